"""S5: no header, path or id crosses from one tenant's sessions to another's."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.errors import NotFound, Unauthorized
from federation.api.address import Address
from federation.api.grants import Purpose
from federation.gateway.sshdoor import SshDoor
from tests.security.house import House, house

FOREIGN = "acme"


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path) as made:
        yield made


async def asked(at: House, method: str, path: str, headers: dict[str, str], **more: Any) -> int:
    async with at.server.http.request(
        method, at.server.url + path, headers=headers, allow_redirects=False, **more
    ) as answer:
        return answer.status


HEADERS = [
    {"X-Forwarded-Host": "web--{mine}.localhost"}, {"Forwarded": "host=web--{mine}.localhost"},
    {"X-Original-URL": "/v1/status"}, {"X-Rewrite-URL": "/"}, {"X-Forwarded-User": "bo"}, {"Remote-User": "bo"},
    {"X-Forwarded-For": "127.0.0.1"}, {"X-Atoll-User": "bo"}, {"Authorization": "Bearer bo"},
    {"Origin": "http://web--{theirs}.localhost"}, {"Referer": "http://web--{theirs}.localhost/"},
]  # fmt: skip


@pytest.mark.parametrize("more", HEADERS, ids=[next(iter(each)) for each in HEADERS])
async def test_no_header_turns_a_cookie_of_one_session_into_one_of_another(at: House, more: dict[str, str]) -> None:
    mine = at.cookie("atoll_app", Purpose.APP, "ada", at.session)
    sent = {name: text.format(mine=at.session, theirs=at.other) for name, text in more.items()}
    host = {"Host": f"web--{at.other}.localhost:{at.server.port}"}
    assert await asked(at, "GET", "/", {**host, **mine, **sent}) == 401


@pytest.mark.parametrize(
    "path",
    [
        "/..",
        "//",
        "/%2e%2e/",
        "/@web--{mine}.localhost/",
        "/\\web--{mine}.localhost",
        "/?x=http://web--{mine}.localhost",
    ],
)
async def test_no_path_does_so_either(at: House, path: str) -> None:
    mine = at.cookie("atoll_app", Purpose.APP, "ada", at.session)
    host = {"Host": f"web--{at.other}.localhost:{at.server.port}"}
    assert await asked(at, "GET", path.format(mine=at.session), {**host, **mine}) in (400, 401)


async def test_two_hosts_in_one_request_are_the_first_ones_or_nobodys(at: House) -> None:
    """The address in the request line, where there is one, must not differ from what was checked."""
    opened: list[str] = []
    real = at.control.streams.open

    async def noting(run: str, *args: Any, **more: Any) -> asyncio.Transport:
        opened.append(run)
        return await real(run, *args, **more)

    at.control.streams.open = noting  # type: ignore[method-assign]
    reader, writer = await asyncio.open_connection("127.0.0.1", at.server.port)
    cookie = at.cookie("atoll_app", Purpose.APP, "ada", at.session)["Cookie"]
    lines = (
        f"GET http://web--{at.other}.localhost:{at.server.port}/ HTTP/1.1",
        f"Host: web--{at.session}.localhost:{at.server.port}", f"Cookie: {cookie}", "Connection: close", "", "",
    )  # fmt: skip
    writer.write("\r\n".join(lines).encode())
    answer = await reader.read()
    writer.close()
    assert answer.startswith((b"HTTP/1.1 200", b"HTTP/1.1 4")), answer
    assert {run.partition(".")[0] for run in opened} <= {at.session}


async def test_a_session_is_found_in_its_own_project_only(at: House) -> None:
    owner = at.bearer("the owner")
    foreign = f"/v1/projects/{FOREIGN}/sessions"
    for ref in (at.session, "nb", "%6eb", f"..%2f..%2fdefault%2fsessions%2f{at.session}"):
        for method, rest in (
            ("GET", ""), ("POST", ":stop"), ("POST", ":move"), ("GET", "/why"), ("GET", "/logs"),
            ("GET", f"/forward?port={at.port}"), ("POST", "/streams"), ("POST", "/apps/web:link"),
        ):  # fmt: skip
            body = {"json": {"port": at.port}} if rest == "/streams" else {}
            assert await asked(at, method, f"{foreign}/{ref}{rest}", owner, **body) in (400, 404), (ref, rest)
            stranger = at.bearer("another user")
            assert await asked(at, method, f"{foreign}/{ref}{rest}", stranger, **body) in (400, 403), (ref, rest)
    assert (await at.control.sessions.get("default", at.session)).state == "running"
    door = SshDoor(at.server.services)
    with pytest.raises(NotFound):
        await door.admit(f"{FOREIGN}/nb", "ada", at.tokens["the owner"], lambda _why: None)
    await door.close()


async def test_an_idempotency_key_is_its_users_and_projects_own(at: House) -> None:
    made = []
    body = {"spec": {"command": ["true"]}}
    for kind, project in (("the owner", "default"), ("another user", "default"), ("the owner", FOREIGN)):
        headers = {**at.bearer(kind), "Idempotency-Key": "k-1"}
        path = f"{at.server.url}/v1/projects/{project}/sessions"
        for _ in range(2):
            async with at.server.http.post(path, json=body, headers=headers) as answer:
                made.append((await answer.json())["items"][0]["id"])
    assert made[0::2] == made[1::2]
    assert len(set(made)) == 3


async def test_nobody_acts_in_anothers_name(at: House) -> None:
    bo = at.bearer("another user")
    path = "/v1/tokens"
    for body in ({"kind": "api", "owner": "ada"}, {"kind": "api", "owner": "bo", "roles": ["admin"]}):
        assert await asked(at, "POST", path, bo, json=body) == 403
    assert await asked(at, "POST", path, bo, json={"kind": "api"}) == 201, "in their own"
    assert await asked(at, "POST", path, at.bearer("an administrator"), json={"kind": "api", "owner": "ada"}) == 201
    theirs = at.tokens["the owner"]
    assert await asked(at, "DELETE", f"{path}/{theirs}", bo) == 403
    assert await at.control.tokens.authenticate(at.secrets["the owner"])
    assert await asked(at, "DELETE", f"{path}/{at.tokens['another user']}", bo) == 204
    with pytest.raises(Unauthorized):
        await at.control.tokens.authenticate(at.secrets["another user"])
    owned = {"spec": {"command": ["true"]}, "owner": "ada"}
    assert await asked(at, "POST", "/v1/projects/default/sessions", at.bearer("the owner"), json=owned) == 400


@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=60), st.booleans())
def test_a_host_names_an_app_exactly_or_not_at_all(text: str, inside: bool) -> None:
    """Nothing but `<app>--<session>.<domain>` is an app's, and what is an app's is never the pages'."""
    address = Address(public_url="https://fed.example", agent_url="https://fed.example", apps_domain="apps.example")
    host = f"web--s-1{text}.apps.example" if inside else text
    named = address.app_of(host)
    if named is not None:
        app, session = named
        assert address.app_of(f"{app}--{session}.apps.example") == named
        assert "." not in app + session
        assert not address.is_ours(host)
