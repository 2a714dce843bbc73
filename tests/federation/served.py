"""A real server on loopback over a fake control plane, and a client that checks every answer against its view."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import msgspec
from aiohttp import ClientResponse, ClientSession, DummyCookieJar, web

from atoll.client.views import Problem
from federation.api.address import Address
from federation.api.agentpack import AgentPack
from federation.api.application import ROUTES, build
from federation.api.auth import Door
from federation.api.connection import connections
from federation.api.grants import Grants, Purpose
from federation.api.plane import Plane
from federation.api.route import Route, Services
from federation.gateway.gateway import Gateway
from federation.web.pages import Pages
from tests.fakes.plane import API_TOKEN, FakePlane
from tunnel.sshkeys import SshKeys

BEARER = {"Authorization": f"Bearer {API_TOKEN}"}
SESSIONS = "/v1/projects/default/sessions"


@dataclass
class Served:
    """The server, its control plane, and an HTTP client without cookies of its own."""

    plane: FakePlane
    services: Services
    http: ClientSession
    port: int
    bearer: dict[str, str]
    http_protocol: Callable[[], asyncio.Protocol]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Ask as the bearer of an API token; returns the status and the answer decoded as its view."""
        sent = {**self.bearer, **headers}
        data = None if body is None else msgspec.json.encode(body)
        if data is not None:
            sent["Content-Type"] = "application/json"
        async with self.http.request(method, self.url + path, data=data, headers=sent) as answer:
            return answer.status, await decode(method, path, answer)

    async def good(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Ask, and fail unless the answer is a good one."""
        status, answer = await self.ask(method, path, body, **headers)
        assert status < 300, answer
        return answer

    async def submit(self, **spec: Any) -> Any:
        """Queue a session and return its view."""
        return (await self.good("POST", SESSIONS, {"spec": {"command": ["true"], **spec}})).items[0]

    def page_cookie(self, user: str = "ada") -> dict[str, str]:
        """Return the Cookie header of a logged-in browser."""
        grant = self.services.door.grants.issue(Purpose.PAGE, user, ttl_s=3600)
        return {"Cookie": f"atoll_page={grant}"}


async def decode(method: str, path: str, answer: ClientResponse) -> Any:
    raw = await answer.read()
    if answer.status >= 400:
        assert answer.content_type == "application/problem+json", raw
        problem = msgspec.json.decode(raw, type=Problem)
        assert problem.status == answer.status
        return problem
    route = route_of(method, path)
    assert answer.status == route.status
    return msgspec.json.decode(raw, type=route.answer) if route.answer else raw


def route_of(method: str, path: str) -> Route:
    """Return the table's row for a path."""
    parts = path.partition("?")[0].split("/")
    for route in ROUTES:
        wanted = route.path.split("/")
        if route.method == method and len(wanted) == len(parts) and all(map(_fits, wanted, parts)):
            return route
    raise AssertionError(f"no route for {method} {path}")


def _fits(wanted: str, part: str) -> bool:
    if not wanted.startswith("{"):
        return wanted == part
    _, _, verb = wanted.partition("}")
    return part.endswith(verb) and (":" in part) == bool(verb)


@asynccontextmanager
async def served(tmp_path: Path, real: Plane | None = None, token: str = API_TOKEN) -> AsyncIterator[Served]:
    fake = FakePlane()
    plane: Plane = real or fake
    runner_port: list[int] = []
    address = Address(public_url="http://127.0.0.1:1", agent_url="https://127.0.0.1:1")
    services = Services(
        control=plane,
        door=Door(plane.tokens, Grants(plane.config.secret_key, plane.clock), address),
        address=address,
        chance=fake.chance,
        pack=AgentPack(tmp_path),
        ssh=SshKeys(tmp_path / "keys"),
    )
    gateway = Gateway(services)
    runner = web.AppRunner(
        build(services, pages=Pages(services).routes(), fronts=(gateway.front,)), shutdown_timeout=1.0
    )
    await runner.setup()
    protocol = connections(cast("web.Server", runner.server))
    listening = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    runner_port.append(listening.sockets[0].getsockname()[1])
    services.address = Address(
        public_url=f"http://127.0.0.1:{runner_port[0]}",
        agent_url=f"https://127.0.0.1:{runner_port[0]}",
        apps_port=runner_port[0],
    )
    services.door.address = services.address
    async with ClientSession(cookie_jar=DummyCookieJar()) as http:
        try:
            yield Served(fake, services, http, runner_port[0], {"Authorization": f"Bearer {token}"}, protocol)
        finally:
            listening.close()
            services.closing.set()
            await gateway.close()
            await runner.cleanup()
