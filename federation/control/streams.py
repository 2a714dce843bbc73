"""Users' streams to runs: permitted by a grant, over the lane that suits them, resumed when it breaks."""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from weakref import WeakSet

from msgspec import structs

from atoll.clock import Chance, Clock
from atoll.errors import BLIND, Conflict, NotFound, Unavailable
from atoll.session import Session
from atoll.states import PLACED
from federation.control.changes import Changes
from federation.control.config import ControlConfig
from federation.control.liveagent import LiveAgent
from federation.control.members import current_runs
from federation.control.streamlog import Entry, StreamLog, Visit
from tunnel import wire
from tunnel.dialer import host_port
from tunnel.door import Way
from tunnel.grant import LIFE_S, USER_LIFE_S, Grant, relay_key, seal
from tunnel.lanes import Use
from tunnel.redial import RedialledTransport
from tunnel.relay import Opened, Relay
from tunnel.resume import ID_SIZE
from tunnel.stream import StreamTransport

USER_STREAMS = 1000
"""Most streams of one user at a time that this process has opened."""


@dataclass(frozen=True, slots=True)
class Permitted:
    """A user's permission for one stream to an agent: `opening` holds the sealed grant, to be shown at a door."""

    agent: str
    opening: wire.OpenStream
    expires_at: float


class Streams:
    """Opens streams by way of `relay`, the one in this process. `live` knows the agents that are connected.

    `relays` are the URLs of the relays that serve beside it.
    """

    def __init__(
        self,
        changes: Changes,
        config: ControlConfig,
        clock: Clock,
        chance: Chance,
        live: Callable[[str], LiveAgent | None],
    ) -> None:
        self.relay = Relay(chance)
        self.log = StreamLog(clock, chance)
        self._changes = changes
        self._clock = clock
        self._chance = chance
        self._live = live
        self._relay_key = relay_key(config.secret_key)
        self.relays: list[str] = []
        self._agent_url = config.agent_url
        self._unix_zero = clock.now() - clock.monotonic()
        self._resumable: WeakSet[RedialledTransport] = WeakSet()
        self.user_limit = USER_STREAMS
        self._users: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        """Streams not opened since their user had too many: `user_streams`."""

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
        door: str = "",
        source: str = "",
    ) -> asyncio.Transport:
        """Open a stream to an app or port of a run, for a `user`; raises `NotFound` or `Unavailable` with a hint.

        With `exec` it is to a program beside the run: the bytes are frames of `tunnel.exec`.
        A `BULK` stream has a connection of its own where the agent makes one, and goes on when it is lost. With a
        `door` by which the user came in, from the address `source`, the stream is recorded.
        """
        visit = Visit(
            door=door,
            user=user,
            session=run.partition(".")[0],
            run=run,
            app=app,
            port=port,
            exec=exec,
            source=source,
        )
        with self.log.refusals(visit) if door else nullcontext():
            return await self._open(visit, protocol, use)

    async def _open(self, visit: Visit, protocol: asyncio.Protocol, use: Use) -> asyncio.Transport:
        self._check_user(visit.user)
        live, session = await self._place_of(visit.run)
        _check_open(session)
        if visit.exec and live.protocol < wire.EXECS:
            raise Unavailable("the session's agent is too old to be entered", hint="update it, then restart it")
        opening = wire.OpenStream(run=visit.run, app=visit.app, port=visit.port, exec=visit.exec)
        if use is Use.SHORT or live.protocol < wire.DIALS:
            opened = await self.relay.open(live.id, self._granted(live, session, visit.user, opening), protocol)
            assert isinstance(opened.transport, StreamTransport)  # noqa: S101 - nothing else is short traffic's
            self._record(visit, session, opened.transport).lane(opened.choice.lane)
            return opened.transport
        opening = structs.replace(opening, resume=self._chance.token_bytes(ID_SIZE))

        async def dial(make: Callable[[], asyncio.Protocol]) -> None:
            live, session = await self._place_of(visit.run)
            granted = self._granted(live, session, visit.user, opening)
            opened = await self.relay.open(live.id, granted, make(), use=use, again=stream.resumed > 0)
            entry.lane(opened.choice.lane)

        stream = RedialledTransport(opening.resume, dial, chance=self._chance, peer=live.id)
        entry = self._record(visit, session, stream)
        self._resumable.add(stream)
        stream.attach(protocol)
        stream.start()
        return stream

    def _record(self, visit: Visit, session: Session, stream: StreamTransport | RedialledTransport) -> Entry:
        """Begin the record of a stream, and have its end tell what it carried; without a door nothing is kept."""
        entry = self.log.began(replace(visit, project=session.project)) if visit.door else Entry.none()
        self._users[visit.user] += 1

        def over(error: Exception | None) -> None:
            self._users[visit.user] -= 1
            if not self._users[visit.user]:
                del self._users[visit.user]
            entry.carried(*stream.carried)
            entry.resumed(stream.resumed if isinstance(stream, RedialledTransport) else 0)
            entry.ended("RESET" if error else "", str(error or ""))

        stream.on_over = over
        return entry

    def _check_user(self, user: str) -> None:
        """Raise `Unavailable` where a user has too many streams; what serves several users is capped by agent."""
        if user and self._users[user] >= self.user_limit:
            self.refused["user_streams"] += 1
            raise Unavailable(
                f"{user} has {self.user_limit} streams already", hint="close some of them", reason="USER_STREAMS"
            )

    async def permit(
        self, run: str, app: str, port: int, *, user: str, token: str, resume: bytes = b"", client: bytes = b""
    ) -> Permitted:
        """Permit a user who showed the credential `token` a stream to an app or port of a run, from outside.

        With `resume` it is that stream's again, else a new one's. With `client`, the SHA-256 of the user's own
        certificate, it is a blind one. Raises `NotFound`, `Unavailable`, and `Conflict` for agents that know of no
        grants, and where only blind streams are let in.
        """
        live, session = await self._place_of(run)
        if not client:
            _check_open(session)
        if live.protocol < wire.GRANTS:
            raise Conflict("the session's agent is too old for streams that resume", hint="update it, then restart it")
        opening = wire.OpenStream(run=run, app=app, port=port, resume=resume or self._chance.token_bytes(ID_SIZE))
        expires_at = self.now() + USER_LIFE_S
        opening = self._granted(live, session, user, opening, token=token, client=client, expires_at=expires_at)
        return Permitted(live.id, opening, expires_at)

    def ways(self, agent: str) -> list[Way]:
        """Return where there are doors to an agent, the best first: its own, those of its relays, this process's."""
        live = self._live(agent)
        own = _own_door(agent, live.direct) if live is not None else []
        serving = [url for url in live.relays if url in self.relays] if live is not None else []
        return [*own, *(Way(*host_port(url), wire.RELAY_NAME) for url in serving), Way(*host_port(self._agent_url))]

    async def echo(self, agent: str, protocol: asyncio.Protocol, use: Use) -> Opened:
        """Open a stream to an agent that sends back what comes, by the lane for a `use`; raises `Unavailable`."""
        live = self._live(agent)
        if live is None:
            raise Unavailable("the agent is not connected", hint="it reconnects by itself; try again shortly")
        grant = Grant(
            id=self._chance.token_bytes(ID_SIZE),
            agent=live.id,
            run="",
            project="",
            session="",
            expires_at=self.now() + LIFE_S,
            echo=True,
        )
        sealed = seal(grant, self._relay_key, live.grant_key)
        return await self.relay.open(live.id, wire.OpenStream(run="", echo=True, grant=sealed), protocol, use=use)

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

    def _granted(
        self,
        live: LiveAgent,
        session: Session,
        user: str,
        opening: wire.OpenStream,
        *,
        token: str = "",
        client: bytes = b"",
        expires_at: float = 0.0,
    ) -> wire.OpenStream:
        """Return an opening with a grant for just this; agents of older protocols know of none."""
        if live.protocol < wire.GRANTS:
            return opening
        grant = Grant(
            id=self._chance.token_bytes(ID_SIZE),
            agent=live.id,
            run=opening.run,
            project=session.project,
            session=session.id,
            expires_at=expires_at or self.now() + LIFE_S,
            user=user,
            token=token,
            app=opening.app,
            port=opening.port,
            exec=opening.exec,
            resume=opening.resume,
            client=client,
        )
        return structs.replace(opening, grant=seal(grant, self._relay_key, live.grant_key))

    async def _place_of(self, run: str) -> tuple[LiveAgent, Session]:
        """Return the connected agent that a run is on, and its session: blind where its site is."""
        rows = await self._changes.rows()
        row = rows.sessions.get(run.partition(".")[0])
        member = next((m for key, m in current_runs(row) if key == run), None) if row else None
        agent = rows.agents.get(member.agent) if member else None
        site = rows.sites.get(agent.site) if agent else None
        if row is None or member is None or row.state not in PLACED:
            raise NotFound(f"run {run} is not running", hint="see `atoll ps`")
        live = self._live(member.agent)
        if live is None or live.ended:
            raise Unavailable("the session's agent is not connected", hint="it reconnects by itself; try again shortly")
        return live, replace(row, spec=replace(row.spec, blind=True)) if site and site.blind else row


def _check_open(session: Session) -> None:
    """Raise `Conflict` where bytes may pass only that nobody between their ends can read."""
    if session.spec.blind:
        raise Conflict(
            f"{session.name} is blind: only what is encrypted from the user's machine to its agent enters it",
            hint=f"atoll forward {session.name} PORT",
            reason=BLIND,
        )


def _own_door(agent: str, address: str) -> list[Way]:
    """Return the way to an agent's own door, none where it has no address or said nonsense."""
    try:
        return [Way(*host_port(address), agent + wire.AGENT_NAMES)] if 0 < len(address) < 300 else []
    except OSError:
        return []
