"""Users' streams to runs: permitted by a grant, over the lane that suits them, resumed when it breaks."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING
from weakref import WeakSet

from msgspec import structs

from atoll.clock import Chance, Clock
from atoll.errors import NotFound, Unavailable
from atoll.session import Session
from atoll.states import PLACED
from federation.control.changes import Changes
from federation.control.config import ControlConfig
from federation.control.members import current_runs
from tunnel import wire
from tunnel.grant import LIFE_S, Grant, relay_key, seal
from tunnel.lanes import Use
from tunnel.redial import RedialledTransport
from tunnel.relay import Relay
from tunnel.resume import ID_SIZE

if TYPE_CHECKING:
    from federation.control.links import LiveAgent


class Streams:
    """Opens streams by way of `relay`, the one in this process. `live` knows the agents that are connected."""

    def __init__(
        self,
        changes: Changes,
        config: ControlConfig,
        clock: Clock,
        chance: Chance,
        live: "Callable[[str], LiveAgent | None]",
    ) -> None:
        self.relay = Relay(chance)
        self._changes = changes
        self._clock = clock
        self._chance = chance
        self._live = live
        self._relay_key = relay_key(config.secret_key)
        self._unix_zero = clock.now() - clock.monotonic()
        self._resumable: WeakSet[RedialledTransport] = WeakSet()

    def now(self) -> float:
        """Return Unix seconds that never jump while this process lives, for agents know them from its welcome."""
        return self._unix_zero + self._clock.monotonic()

    async def open(
        self,
        run: str,
        app: str,
        port: int,
        protocol: asyncio.Protocol,
        *,
        use: Use = Use.SHORT,
        exec: bool = False,  # noqa: A002 - the field's name on the wire
        user: str = "",
    ) -> asyncio.Transport:
        """Open a stream to an app or port of a run, for a `user`; raises `NotFound` or `Unavailable` with a hint.

        With `exec` it is to a program beside the run: the bytes are frames of `tunnel.exec`.
        A `BULK` stream has a connection of its own where the agent makes one, and goes on when it is lost.
        """
        live, session = await self._place_of(run)
        if exec and live.protocol < wire.EXECS:
            raise Unavailable("the session's agent is too old to be entered", hint="update it, then restart it")
        opening = wire.OpenStream(run=run, app=app, port=port, exec=exec)
        if use is Use.SHORT or live.protocol < wire.DIALS:
            return (await self.relay.open(live.id, self._granted(live, session, user, opening), protocol)).transport
        opening = structs.replace(opening, resume=self._chance.token_bytes(ID_SIZE))

        async def dial(make: Callable[[], asyncio.Protocol]) -> None:
            live, session = await self._place_of(run)
            await self.relay.open(live.id, self._granted(live, session, user, opening), make(), use=use)

        stream = RedialledTransport(opening.resume, dial, chance=self._chance, peer=live.id)
        self._resumable.add(stream)
        stream.attach(protocol)
        stream.start()
        return stream

    def end(self, agent: str, reason: str) -> None:
        """End an agent's link and all streams to it now."""
        self.relay.revoke(agent, reason)
        for stream in [stream for stream in self._resumable if stream.get_extra_info("peername")[0] == agent]:
            stream.reset(reason)

    def close(self, reason: str) -> None:
        """End all streams."""
        for stream in list(self._resumable):
            stream.reset(reason)
        self.relay.close(reason)

    def _granted(self, live: "LiveAgent", session: Session, user: str, opening: wire.OpenStream) -> wire.OpenStream:
        """Return an opening with a grant for just this; agents of older protocols know of none."""
        if live.protocol < wire.GRANTS:
            return opening
        grant = Grant(
            id=self._chance.token_bytes(ID_SIZE),
            agent=live.id,
            run=opening.run,
            project=session.project,
            session=session.id,
            expires_at=self.now() + LIFE_S,
            user=user,
            app=opening.app,
            port=opening.port,
            exec=opening.exec,
            resume=opening.resume,
        )
        return structs.replace(opening, grant=seal(grant, self._relay_key, live.grant_key))

    async def _place_of(self, run: str) -> "tuple[LiveAgent, Session]":
        """Return the connected agent that a run is on, and its session."""
        async with self._changes.look() as tx:
            row = await tx.get(Session, run.partition(".")[0])
        member = next((m for key, m in current_runs(row) if key == run), None) if row else None
        if row is None or member is None or row.state not in PLACED:
            raise NotFound(f"run {run} is not running", hint="see `atoll ps`")
        live = self._live(member.agent)
        if live is None:
            raise Unavailable("the session's agent is not connected", hint="it reconnects by itself; try again shortly")
        return live, row
