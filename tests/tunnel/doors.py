"""A site whose relay has a users' door, and permits to come in by it."""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

from msgspec import structs

from agent.permission import Permission
from atoll.errors import AtollError
from atoll.host.system import SystemChance, SystemClock
from tests.tunnel.ends import until
from tests.tunnel.site import AGENT, TlsSite
from tunnel import wire
from tunnel.door import Door, Limits, Visit, Way
from tunnel.grant import BadGrant, Grant, agent_key, relay_key, seal
from tunnel.identity import AgentIdentity, Authority
from tunnel.innertls import towards_user
from tunnel.routes import user_routes
from tunnel.userstream import Permit, UserStream

SECRET = b"s" * 32
KEY = agent_key(SECRET, AGENT, 0)
RUN = "s-1.1.0"


def permit(where: int, ca: str, *, life_s: float = 60.0, relay: bytes = relay_key(SECRET), **fields: object) -> Permit:
    grant = Grant(
        id=os.urandom(16), agent=AGENT, run=RUN, project="default", session="s-1", expires_at=time.time() + life_s,
        user="ada", token="t-ada", port=80, resume=os.urandom(16),
    )  # fmt: skip
    grant = structs.replace(grant, **fields)
    opening = wire.OpenStream(run=RUN, port=80, resume=grant.resume, grant=seal(grant, relay, KEY))
    return Permit(AGENT, opening, [Way("127.0.0.1", where)], ca, 60.0)


class DoorSite(TlsSite):
    """A site with a users' door, whose agent checks grants."""

    def __init__(
        self,
        authority: Authority,
        folder: Path,
        serve: Callable[[], asyncio.Protocol],
        limits: Limits | None = None,
        *,
        blind: bool = False,
    ) -> None:
        self.permission = Permission(SystemClock())
        self.permission.welcomed(wire.Welcome(protocol=3, epoch=1, kill=[], forget=[], grant_key=KEY, now=time.time()))
        self._door_limits = limits
        self.guard = Remembering()
        self.authority = authority

        def checked(opening: wire.OpenStream) -> asyncio.Protocol | None:
            try:
                self.permission.check(opening)
            except BadGrant:
                return None
            if not blind:
                return serve()
            context = AgentIdentity(folder).inner_context(opening.client)
            return towards_user(context, opening.client, serve())

        super().__init__(authority, folder, checked)

    async def __aenter__(self) -> "DoorSite":
        await super().__aenter__()
        self.door = Door(self.relay, relay_key(SECRET), time.time, self._door_limits, self.guard)
        self.acceptor._routes = {
            **self.acceptor._routes,
            **user_routes(self.authority.stream_context, self.door.accept),
        }
        return self

    async def __aexit__(self, *_: object) -> None:
        self.door.close("test over")
        await super().__aexit__()
        await until(lambda: not len(self.door))

    def permit(self, **more: object) -> Permit:
        return permit(self.acceptor.port, self.authority.ca_pem, **more)  # type: ignore[arg-type]

    def stream(self, user: asyncio.Protocol, given: Permit | None = None) -> UserStream:
        given = given or self.permit()

        async def ask(stream: bytes) -> Permit:
            return self.permit(resume=stream)

        stream = UserStream(given, ask, {}, chance=SystemChance())
        stream.attach(user)
        stream.start()
        return stream


class Remembering:
    """A guard that writes down who came and went, and lets in who is not refused."""

    def __init__(self) -> None:
        self.users: list[str] = []
        self.left_by: list[str] = []
        self.refusal: AtollError | None = None

    async def admit(self, visit: Visit) -> None:
        assert visit.grant is not None
        self.users.append(visit.grant.user)
        if self.refusal is not None:
            raise self.refusal

    def left(self, visit: Visit) -> None:
        assert visit.grant is not None
        self.left_by.append(visit.grant.user)
