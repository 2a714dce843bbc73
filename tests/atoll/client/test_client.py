"""Both clients against a real HTTP server: calls, errors, retries, streams that break and go on."""

import inspect
import socket
from pathlib import Path
from typing import Any

import pytest

from atoll import AsyncClient, Client
from atoll.client import calls, profile
from atoll.client.stream import LogChunk
from atoll.client.views import EventView, SessionView
from atoll.document import group, provider
from atoll.errors import Conflict, Invalid, NotFound, Unauthorized, Unavailable
from atoll.site import Site
from tests.atoll.plane import TOKEN, Plane, standing

SPEC = {"command": ["true"]}


def _public(kind: type[Any]) -> dict[str, list[str]]:
    methods = {n: m for n, m in vars(kind).items() if not n.startswith("_") and callable(m)}
    return {name: list(inspect.signature(method).parameters) for name, method in methods.items()}


def test_both_clients_have_the_same_methods() -> None:
    blocking, waiting = _public(Client), _public(AsyncClient)
    only_here = {"server_time"}
    assert {n: p for n, p in blocking.items() if n not in only_here} == {
        n: p for n, p in waiting.items() if n not in {"close", "connect"}
    }


def test_sessions_are_submitted_listed_over_pages_and_fetched(plane: Plane) -> None:
    client = Client(plane.url, TOKEN)
    made = client.submit(SPEC, count=5)
    assert [view.id for view in client.sessions()] == [view.id for view in reversed(made)]
    assert [view.id for view in client.sessions(limit=3)] == ["s-4", "s-3", "s-2"]
    assert client.session("calm-2").id == "s-2"


def test_a_lost_answer_makes_no_second_session(plane: Plane) -> None:
    plane.answers_to_lose = 2
    made = Client(plane.url, TOKEN).submit(SPEC)
    assert [view.id for view in made] == list(plane.sessions) == ["s-0"]


def test_errors_come_back_as_their_classes(plane: Plane) -> None:
    client = Client(plane.url, TOKEN)
    with pytest.raises(NotFound, match="no session 'x'") as caught:
        client.session("x")
    assert caught.value.hint == "see ps"
    with pytest.raises(Unauthorized):
        Client(plane.url, "atk_wrong").status()
    client.create(Site(name="desk"))
    with pytest.raises(Conflict):
        client.create(Site(name="desk"))
    with pytest.raises(Invalid):
        Client("ftp://x")


def test_a_refused_connection_is_told_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(Unavailable, match="no control plane answers") as caught:
        Client(url, TOKEN).status()
    assert "atoll up" in caught.value.hint


def test_objects_are_created_and_applied(plane: Plane) -> None:
    client = Client(plane.url, TOKEN)
    client.apply(provider({"type": "sim", "settings": {"boot_s": 1}}))
    client.apply(group({"name": "burst", "provider": "sim"}))
    assert client.group("burst").spec["size"] == {"min": 0, "max": 4}
    assert [view.name for view in client.providers()] == ["sim"]


@pytest.mark.parametrize("cuts", [[], [7], [20, 1, 33, 60], [0, 0, 14]])
async def test_output_is_complete_whatever_breaks(plane: Plane, cuts: list[int]) -> None:
    out, err = bytes(range(256)) * 2, b"some error\n" * 9
    for client_kind in ("blocking", "waiting"):
        plane.output, plane.cuts = {1: {"out": out, "err": err}}, list(cuts)
        ref = Client(plane.url, TOKEN).submit(SPEC)[0].id
        if client_kind == "blocking":
            news = list(Client(plane.url, TOKEN).follow(ref))
        else:
            async with AsyncClient(plane.url, TOKEN) as client:
                news = [each async for each in client.follow(ref)]
        got = {"out": b"", "err": b""}
        for each in news:
            if isinstance(each, LogChunk):
                assert each.offset == len(got[each.channel])
                got[each.channel] += each.data
        assert got == {"out": out, "err": err}
        assert isinstance(news[-1], SessionView)
        assert news[-1].state == "succeeded"
        assert not plane.cuts


def test_a_later_attempt_starts_at_its_own_beginning(plane: Plane) -> None:
    plane.output = {1: {"out": b"first try, cut", "err": b""}, 2: {"out": b"second try", "err": b"e"}}
    plane.cuts = [7]
    ref = Client(plane.url, TOKEN).submit(SPEC)[0].id
    news = list(Client(plane.url, TOKEN).follow(ref))
    chunks = [each for each in news if isinstance(each, LogChunk)]
    told = {
        attempt: b"".join(c.data for c in chunks if c.attempt == attempt and c.channel == "out") for attempt in (1, 2)
    }
    assert told == {1: b"first try, cut", 2: b"second try"}
    assert isinstance(news[-1], SessionView)


def test_a_watch_goes_on_where_it_broke(plane: Plane) -> None:
    plane.events = [
        EventView(rev=n, at=0.0, kind="session", key=f"s-{n}", name="", state="queued", reason="", message="")
        for n in range(1, 8)
    ]
    found = []
    for event in Client(plane.url, TOKEN).watch(["sessions"], since=0):
        found.append(event.rev)
        if len(found) == 7:
            break
    assert found == list(range(1, 8))


async def test_a_forwarded_port(plane: Plane) -> None:
    async with AsyncClient(plane.url, TOKEN) as client:
        ref = (await client.submit(SPEC))[0].id
        async with client.connect(ref, 8080) as channel:
            await channel.send_bytes(b"abc")
            assert await channel.receive_bytes() == b"ABC"
            await channel.send_str("eof")
            assert await channel.receive_bytes() == b"port 8080"


def test_the_profile_is_private_and_checked(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unavailable, match="no control plane is known"):
        profile.load()
    profile.save(profile.Profile(url="http://127.0.0.1:1/", token="atk_x"))
    assert profile.path().stat().st_mode & 0o777 == 0o600
    assert profile.load() == profile.Profile(url="http://127.0.0.1:1", token="atk_x")
    monkeypatch.setenv("ATOLL_TOKEN", "atk_y")
    assert profile.load().token == "atk_y"
    for damaged in ("{", "[]"):
        profile.path().write_text(damaged)
        with pytest.raises(Invalid, match="damaged"):
            profile.load()


async def test_prices_are_asked_for_with_time_to_answer(plane: Plane) -> None:
    plane.prices = {"aws": standing()}
    async with AsyncClient(plane.url, TOKEN) as client:
        assert [view.provider for view in await client.price_lists()] == ["aws"]
        assert (await client.prices("aws", shape="m5*")).count == 2
        assert plane.queries == [{"shape": "m5*"}]
        assert (await client.update_prices("aws")).count == 2
        assert (await client.import_prices({"name": "p", "content": "x"}))[0].provider == "aws"
        assert await client.export_prices("aws") == "the prices of aws"
    assert plane.bodies == [{"accept_jumps": False}, {"name": "p", "content": "x"}]
    assert calls.update_prices("aws", accept_jumps=False).takes_s > 600
