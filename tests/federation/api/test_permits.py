"""Permits for users' streams: for whom, for what, and what they hold."""

import base64

import pytest

from atoll.session import Member, MemberState
from atoll.slots import Slots
from atoll.states import SessionState
from tests.fakes.plane import NOW
from tests.federation.served import SESSIONS, Served


async def running(server: Served, **spec: object) -> str:
    row = await server.plane.sessions.get("default", (await server.submit(name="nb", **spec)).id)
    member = Member(rank=0, agent="a-1", slots=Slots(1000), state=MemberState.RUNNING, started_at=NOW)
    changed = await server.plane.change(row, state=SessionState.RUNNING, attempt=1, started_at=NOW, members=(member,))
    return changed.id


async def test_a_permit_is_for_one_stream_and_names_the_ways_to_it(server: Served) -> None:
    key = await running(server, apps=["web"])
    view = await server.good("POST", f"{SESSIONS}/nb/streams", {"port": 80})
    assert (view.run, view.app, view.port, view.agent) == (f"{key}.1.0", "", 80, "a-1")
    assert (bytes.fromhex(view.resume), base64.b64decode(view.grant)) == (bytes(16), b"sealed")
    assert [(way.host, way.port, way.server_name) for way in view.ways] == [
        ("relay.example", 443, "relay.internal"),
        ("127.0.0.1", 8700, "control.atoll.internal"),
    ]
    assert view.ca == server.plane.config.authority.ca_pem
    assert view.valid_s == 600
    again = await server.good("POST", f"{SESSIONS}/nb/streams", {"app": "web", "resume": "ab" * 16})
    assert (again.app, again.resume) == ("web", "ab" * 16)
    assert server.plane.streams.opened == [(f"{key}.1.0", "", 80), (f"{key}.1.0", "web", 0)]


@pytest.mark.parametrize(
    "body",
    [{}, {"port": 70000}, {"port": 80, "app": "web"}, {"app": "none"}, {"port": 80, "rank": 1},
     {"port": 80, "client": "ab"}, {"port": 80, "resume": "zz"}, {"port": 80, "resume": "ab"}, {"port": 80, "more": 1}],
)  # fmt: skip
async def test_nonsense_is_refused(server: Served, body: dict[str, object]) -> None:
    await running(server, apps=["web"])
    status, problem = await server.ask("POST", f"{SESSIONS}/nb/streams", body)
    assert (status, problem.code) == (400, "INVALID")


async def test_others_browsers_and_sessions_that_do_not_run_get_none(server: Served) -> None:
    await server.submit(name="waits")
    status, problem = await server.ask("POST", f"{SESSIONS}/waits/streams", {"port": 80})
    assert (status, problem.code) == (409, "CONFLICT")
    await running(server)
    _, secret = await server.plane.tokens.create_api("bo")
    other = {"Authorization": f"Bearer {secret}"}
    status, problem = await server.ask("POST", f"{SESSIONS}/nb/streams", {"port": 80}, **other)
    assert (status, problem.code) == (403, "FORBIDDEN")
    origin = {"Origin": server.url, "Authorization": "", **server.page_cookie()}
    status, problem = await server.ask("POST", f"{SESSIONS}/nb/streams", {"port": 80}, **origin)
    assert (status, problem.code) == (403, "FORBIDDEN")
    assert server.plane.streams.opened == []
