"""S4: every byte to a session passed one rule: all doors, each tried with every kind of proof.

The doors come from the route table, the acceptor and the source: one that is new and not in the table fails here.
"""

import asyncio
import base64
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from aiohttp import WSServerHandshakeError

from atoll.errors import AtollError
from atoll.host.config import ServerConfig
from federation.api.application import ROUTES
from federation.api.grants import Purpose
from federation.gateway.sshdoor import SshDoor
from federation.gateway.userdoor import UserDoor
from federation.main import _acceptors
from tests.security.house import House, house
from tests.structure.source import ROOT
from tunnel.grant import for_relay, relay_key
from tunnel.wire import ALPN_CONTROL, ALPN_DATA, ALPN_DATA_SPLICE, ALPN_JOIN, ALPN_UPLINK, ALPN_USER, ALPN_USER_SPLICE

BASE = "/v1/projects/{project}/sessions/{ref}"
Headers: TypeAlias = dict[str, str]


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[House]:
    async with house(tmp_path) as made:
        yield made


# Doors. Each takes the headers or the kind of a caller and says what became of it: "in", or a refusal's code.


async def app_http(at: House, headers: Headers) -> str:
    where = {"Host": f"web--{at.session}.localhost:{at.server.port}", **headers}
    async with at.server.http.get(at.server.url + "/", headers=where, allow_redirects=False) as answer:
        return "in" if answer.status == 200 else str((await answer.json(content_type=None))["code"])


async def app_websocket(at: House, headers: Headers) -> str:
    host = f"web--{at.session}.localhost:{at.server.port}"
    return await _socket(at, "/ws", {"Host": host, "Origin": f"http://{host}", **headers})


async def forward(at: House, headers: Headers) -> str:
    path = f"/v1/projects/default/sessions/{at.session}/forward?port={at.port}"
    return await _socket(at, path, {"Origin": at.server.url, **headers})


async def permit(at: House, headers: Headers) -> str:
    path = f"{at.server.url}/v1/projects/default/sessions/{at.session}/streams"
    sent = {"Origin": at.server.url, **headers}
    async with at.server.http.post(path, json={"port": at.port}, headers=sent) as answer:
        told = await answer.json(content_type=None)
    if answer.status != 201:
        return str(told["code"])
    grant = for_relay(base64.b64decode(told["grant"]), relay_key(at.control.config.secret_key), time.time())
    assert (grant.session, grant.port) == (at.session, at.port)
    return "in"


async def link(at: House, headers: Headers) -> str:
    path = f"{at.server.url}/v1/projects/default/sessions/{at.session}/apps/web:link"
    async with at.server.http.post(path, headers={"Origin": at.server.url, **headers}) as answer:
        return "in" if answer.status < 300 else str((await answer.json(content_type=None))["code"])


async def _socket(at: House, path: str, headers: Headers) -> str:
    try:
        async with at.server.http.ws_connect(at.server.url + path, headers=headers) as socket:
            await socket.close()
    except WSServerHandshakeError as error:
        return {401: "UNAUTHORIZED", 403: "FORBIDDEN", 404: "NOT_FOUND"}.get(error.status, str(error.status))
    return "in"


HTTP_DOORS: dict[str, Callable[[House, Headers], Awaitable[str]]] = {
    "an app over HTTP": app_http,
    "an app over WebSocket": app_websocket,
    f"GET {BASE}/forward": forward,
    f"POST {BASE}/streams": permit,
    f"POST {BASE}/apps/{{app}}:link": link,
}
API_DOORS = [door for door in HTTP_DOORS if BASE in door]
APP_DOORS = [door for door in HTTP_DOORS if BASE not in door]
NO_DOORS = {
    f"GET {BASE}", f"POST {BASE}:stop", f"POST {BASE}:approve", f"POST {BASE}:move", f"GET {BASE}/why",
    f"GET {BASE}/logs", f"GET {BASE}/streams", f"POST {BASE}/apps/{{app}}:share",
}  # fmt: skip
"""Routes of a session by which no byte reaches it; who may use them is tested with the API."""
OWN_PROOF: dict[str, str] = {
    "the owner": "in",
    "an administrator": "in",
    "another user": "FORBIDDEN",
    "a deleted token": "UNAUTHORIZED",
}


def test_every_route_of_a_session_is_a_door_or_none() -> None:
    found = {f"{route.method} {route.path}" for route in ROUTES if route.path.startswith(BASE)}
    assert found - NO_DOORS == set(API_DOORS)


def test_every_protocol_of_the_port_is_known_here() -> None:
    class Anything:
        def __getattr__(self, name: str) -> Any:
            return Anything()

        def __call__(self, *_: object) -> Any:
            return Anything()

    anything: Any = Anything()
    acceptor, inside = _acceptors(ServerConfig(), anything, anything, anything, anything, anything)
    who = {
        ALPN_CONTROL: "agents, by certificate", ALPN_UPLINK: "relays, by certificate",
        ALPN_DATA: "agents, by a one-use token", ALPN_JOIN: "the API", "http/1.1": "the API and apps",
        ALPN_DATA_SPLICE: "agents, by a one-use token", ALPN_USER: "users, by a grant",
        ALPN_USER_SPLICE: "users, by a grant",
    }  # fmt: skip
    assert set(acceptor._routes) == set(who), "and SSH and, on loopback, plain HTTP"
    assert set(inside._routes) == set(who) - {"http/1.1"}, "inside a WebSocket"


def test_streams_are_opened_by_the_doors_alone() -> None:
    """Who opens streams to agents, or permits them, is a door: it is in this file's tables."""
    opens = re.compile(r"streams\.(?:open|permit)\(|_relay\.open\(|relay\.open\(")
    found = {
        str(path.relative_to(ROOT))
        for package in ("federation", "tunnel")
        for path in (ROOT / package).rglob("*.py")
        if opens.search(path.read_text())
    }
    assert found == {
        "federation/api/permits.py", "federation/api/session_streams.py", "federation/control/streams.py",
        "federation/gateway/ssh.py", "federation/gateway/tunnel.py", "tunnel/door.py",
    }  # fmt: skip


@pytest.mark.parametrize("door", HTTP_DOORS)
async def test_api_tokens(at: House, door: str) -> None:
    for kind, expected in OWN_PROOF.items():
        assert await HTTP_DOORS[door](at, at.bearer(kind)) == expected, kind
    for nobody in ({}, {"Authorization": "Bearer atk_" + "0" * 64}, {"Authorization": "Basic YWRhOmFkYQ=="}):
        assert await HTTP_DOORS[door](at, nobody) == "UNAUTHORIZED"


@pytest.mark.parametrize("door", APP_DOORS)
async def test_cookies_at_apps(at: House, door: str) -> None:
    async def told(*grant: Any, **more: Any) -> str:
        return await HTTP_DOORS[door](at, at.cookie("atoll_app", *grant, **more))

    assert await told(Purpose.APP, "ada", at.session) == "in"
    assert await told(Purpose.APP, "ada", at.other) == "UNAUTHORIZED", "of another session"
    assert await told(Purpose.APP, "ada") == "UNAUTHORIZED", "of none"
    assert await told(Purpose.APP, "ada", at.session, ttl_s=-1) == "UNAUTHORIZED", "expired"
    assert await told(Purpose.PAGE, "ada", at.session) == "UNAUTHORIZED", "of the pages"
    assert await told(Purpose.LINK, "ada", at.session) == "UNAUTHORIZED", "a link's grant"
    page = at.cookie("atoll_page", Purpose.PAGE, "ada")
    assert await HTTP_DOORS[door](at, page) == "UNAUTHORIZED", "the pages' cookie opens no app"


@pytest.mark.parametrize("door", API_DOORS)
async def test_cookies_at_the_api(at: House, door: str) -> None:
    async def told(owner: str, name: str = "atoll_page", purpose: Purpose = Purpose.PAGE, **more: Any) -> str:
        return await HTTP_DOORS[door](at, at.cookie(name, purpose, owner, **more))

    owner = (
        "FORBIDDEN" if door.endswith("/streams") else "in"
    )  # a permit lives as long as an API token: a cookie has none
    assert await told("ada") == owner
    assert await told("bo") == "FORBIDDEN"
    assert await told("root") == "FORBIDDEN", "a browser's cookie carries no role"
    assert await told("ada", ttl_s=-1) == "UNAUTHORIZED"
    assert await told("ada", "atoll_app", Purpose.APP, audience=at.session) == "UNAUTHORIZED", "an app's"
    assert await told("ada", "atoll_page", Purpose.APP, audience=at.session) == "UNAUTHORIZED", (
        "an app's by another name"
    )


async def test_ssh(at: House) -> None:
    door = SshDoor(at.server.services)

    async def told(name: str, owner: str, token: str) -> str:
        try:
            visitor = await door.admit(name, owner, token, lambda _why: None)
        except AtollError as error:
            return error.code
        door.left(visitor)
        return "in"

    try:
        for kind, expected in {**OWN_PROOF, "another user": "NOT_FOUND"}.items():
            owner = {"the owner": "ada", "an administrator": "root", "another user": "bo", "a deleted token": "ada"}[
                kind
            ]
            assert await told("nb", owner, at.tokens[kind]) == expected, kind
        assert await told("nb", "ada", at.tokens["another user"]) == "UNAUTHORIZED", "another's token"
        assert await told("nb", "ada", "") == "UNAUTHORIZED"
        assert await told("other/nb", "ada", at.tokens["the owner"]) == "NOT_FOUND"
    finally:
        await door.close()


async def test_the_door_for_streams(at: House) -> None:
    """A grant is only given to who may enter (above); the door takes no other, and none of a token that is gone."""
    from tests.federation.gateway.test_userdoor import Caller
    from tunnel.grant import Grant

    [agent] = await at.control.agents.list()
    door = UserDoor(at.server.services.control, at.control.streams.relay, at.control.streams.now)

    async def told(user: str, token: str) -> str:
        grant = Grant(
            id=b"g", agent=agent.id, run=f"{at.session}.1.0", project="default", session=at.session,
            expires_at=time.time() + 60, user=user, token=token, port=at.port,
        )  # fmt: skip
        visit = Caller(grant)
        try:
            await door.admit(visit)
        except AtollError as error:
            return error.code
        finally:
            door.left(visit)
        return "in"

    try:
        assert await told("ada", at.tokens["the owner"]) == "in"
        assert await told("ada", at.tokens["a deleted token"]) == "UNAUTHORIZED"
        assert await told("ada", at.tokens["another user"]) == "UNAUTHORIZED"
        assert await told("", "") == "FORBIDDEN"
    finally:
        await door.close()


async def test_nothing_reached_the_app_of_who_was_refused(at: House) -> None:
    opened: list[object] = []
    real = at.control.streams.open

    async def counting(*args: Any, **more: Any) -> asyncio.Transport:
        opened.append(args)
        return await real(*args, **more)

    at.control.streams.open = counting  # type: ignore[method-assign]
    for door in HTTP_DOORS.values():
        for headers in ({}, at.bearer("another user"), at.bearer("a deleted token")):
            assert await door(at, headers) != "in"
    assert opened == []
