"""A running session with a web app, behind the gateway."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from atoll.session import Member, MemberState, Session
from atoll.slots import Slots
from atoll.states import SessionState
from federation.api.grants import Purpose
from tests.fakes.plane import NOW
from tests.federation.gateway.app import running_app
from tests.federation.served import BEARER, Served


class App:
    """A running session with a web app behind the gateway."""

    def __init__(self, server: Served, row: Session, gate: asyncio.Event) -> None:
        self.server = server
        self.row = row
        self.gate = gate
        self.host = f"web--{row.id}.localhost:{server.port}"

    def ask(self, path: str = "/", method: str = "GET", *, host: str = "", auth: bool = True, **sent: Any) -> Any:
        headers = {"Host": host or self.host, **(BEARER if auth else {}), **sent.pop("headers", {})}
        return self.server.http.request(method, self.server.url + path, headers=headers, allow_redirects=False, **sent)

    def cookie(self, session: str = "") -> dict[str, str]:
        grants = self.server.services.door.grants
        return {"Cookie": f"atoll_app={grants.issue(Purpose.APP, 'ada', ttl_s=60, audience=session or self.row.id)}"}


@pytest.fixture
async def app(server: Served) -> AsyncIterator[App]:
    async with running_app() as (port, gate):
        view = await server.submit(name="nb", apps={"web": 0})
        row = await server.plane.sessions.get("default", view.id)
        row = await server.plane.change(
            row,
            state=SessionState.RUNNING,
            attempt=1,
            started_at=NOW,
            members=(Member(rank=0, agent="a-1", slots=Slots(1000), state=MemberState.RUNNING, started_at=NOW),),
        )
        server.plane.streams.apps["web"] = port
        yield App(server, row, gate)
