"""Who is linked, and streams to them: over the link they have, or over data connections that they dial when asked."""

import asyncio
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field

from atoll.clock import Chance
from atoll.errors import Unavailable
from tunnel import wire
from tunnel.dataline import TOKEN, RelayLine
from tunnel.lanes import LANES, Choice, Lane, Limits, Pool, Refusal, Tally, Use
from tunnel.link import Link
from tunnel.stream import StreamTransport

_SIFT_S = 1.0
_AGAIN = "it reconnects by itself; try again in a moment"
_WHY = {Use.SHORT: "short or unknown traffic", Use.BULK: "bulk", Use.BLIND: "encrypted from end to end"}


@dataclass(frozen=True, slots=True)
class Opened:
    """A stream's lane, and how it was chosen."""

    transport: StreamTransport | RelayLine
    choice: Choice


class _Lot:
    """An agent's data connections for one lane that carry nothing yet, and who waits for one."""

    def __init__(self, lane: Lane, limits: Limits) -> None:
        self.lane = lane
        self.pool = Pool(limits)
        self.ready: deque[RelayLine] = deque()
        self.waiting: deque[asyncio.Future[RelayLine]] = deque()


class _Member:
    """One linked agent: its link and its data connections."""

    def __init__(self, agent: str, boot: str, limits: Limits) -> None:
        self.agent = agent
        self.boot = boot
        self.link: Link | None = None
        self.dials = False
        self.lots: dict[Lane, _Lot] = {}
        self.lines: set[RelayLine] = set()
        self.timer: asyncio.TimerHandle | None = None
        self.gone_at = 0.0
        self.past: dict[Lane, Tally] = {}
        self._limits = limits

    def lot(self, lane: Lane) -> _Lot:
        """Return what there is for a lane."""
        if lane not in self.lots:
            self.lots[lane] = _Lot(lane, self._limits)
        return self.lots[lane]

    @property
    def in_use(self) -> int:
        """How many of its data connections carry a stream."""
        return len(self.lines) - sum(len(lot.ready) for lot in self.lots.values())

    @property
    def waiting(self) -> int:
        """How many openers wait for one."""
        return sum(len(lot.waiting) for lot in self.lots.values())

    @property
    def buffered(self) -> int:
        """Bytes held for its data connections."""
        return sum(line.get_write_buffer_size() for line in self.lines)

    def held(self) -> "Held":
        """Return what there is of its data connections."""
        lots = self.lots.values()
        ready = sum(len(lot.ready) for lot in lots)
        return Held(ready, self.in_use, sum(len(lot.pool.pending) for lot in lots), self.waiting)


@dataclass(frozen=True, slots=True)
class Held:
    """One agent's data connections at this moment: ready, carrying a stream, awaited; and who waits for one."""

    ready: int = 0
    in_use: int = 0
    pending: int = 0
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class Carried:
    """What the lanes to an agent, or to all, carry and have carried. `streams` are open now, `buffered` bytes wait.

    An agent's tallies begin anew with its process.
    """

    lanes: dict[Lane, Tally]
    streams: dict[Lane, int]
    held: Held = field(default_factory=Held)
    buffered: int = 0


class Relay:
    """Opens streams to linked agents.

    `accept` is the protocol factory for connections under `wire.ALPN_DATA`, `accept_spliced` for those under
    `wire.ALPN_DATA_SPLICE`.

    A token is one dial's: it can be shown once, before its deadline, while the link lives over which it was sent.
    An agent's data connections outlive its link for `Limits.grace_s`, and go on when the same process (`boot`)
    comes back; another process, or `revoke`, ends them at once.
    """

    def __init__(self, chance: Chance, limits: Limits | None = None) -> None:
        self._chance = chance
        self._limits = limits or Limits()
        self._members: dict[str, _Member] = {}
        self._tokens: dict[bytes, tuple[_Member, _Lot]] = {}
        self._owners: dict[RelayLine, _Member] = {}
        self._strangers: dict[RelayLine, asyncio.TimerHandle] = {}
        self._past: dict[Lane, Tally] = _tallies()

    # Who is linked.

    def linked(self, agent: str, link: Link, *, boot: str, dials: bool) -> None:
        """An agent is linked; `boot` names its process, `dials` says that it understands `wire.Dial`."""
        member = self._members.get(agent)
        if member is not None and member.boot != boot:
            self._dissolve(member, "another process of this agent took its place")
            member = None
        if member is None:
            member = self._members[agent] = _Member(agent, boot, self._limits)
        if member.link is not link:
            self._leave(member)
            if member.lines:
                asyncio.get_running_loop().call_later(_SIFT_S, self._sift, member, link)
        member.link = link
        member.dials = dials
        self._fill(member)

    def _sift(self, member: _Member, link: Link) -> None:
        """End the data connections that have not been heard of since an agent came back by another link.

        What took the last link may have taken them, too (a router with a new address): their streams resume on others
        at once, where TCP alone would take a quarter of a minute to notice.
        """
        if member.link is link:
            for line in [line for line in member.lines if line.silence >= _SIFT_S]:
                line.abort()

    def unlinked(self, agent: str, link: Link) -> None:
        """A link is over. Nothing happens where a newer one has taken its place."""
        member = self._members.get(agent)
        if member is None or member.link is not link:
            return
        self._leave(member)
        member.gone_at = asyncio.get_running_loop().time()
        self._refuse_waiting(member, Unavailable("the agent's link is down", hint=_AGAIN, reason=Refusal.OFFLINE))
        self._arm(member)

    def revoke(self, agent: str, reason: str) -> None:
        """End the agent's link and every stream of it now."""
        member = self._members.get(agent)
        if member is not None:
            link = member.link
            self._dissolve(member, reason)
            if link is not None:
                link.close(reason)

    def close(self, reason: str) -> None:
        """End all data connections; links are their owner's."""
        for member in list(self._members.values()):
            self._dissolve(member, reason)
        for line in list(self._strangers):
            line.abort()

    def held(self, agent: str) -> Held:
        """Return what there is of an agent's data connections."""
        member = self._members.get(agent)
        return Held() if member is None else member.held()

    def tallies(self) -> dict[Lane, Tally]:
        """Return what each lane has carried up to now."""
        return self.carried().lanes

    def carried(self, agent: str | None = None) -> Carried:
        """Return what the lanes to one agent, or (None) to all, carry and have carried."""
        if agent is None:
            return _sum(self._past, list(self._members.values()), [*self._owners, *self._strangers])
        member = self._members.get(agent)
        if member is None:
            return Carried(_tallies(), dict.fromkeys(Lane, 0))
        return _sum(member.past, [member], list(member.lines))

    # Streams.

    async def open(
        self,
        agent: str,
        opening: wire.OpenStream,
        protocol: asyncio.Protocol,
        *,
        use: Use = Use.SHORT,
        lane: Lane | None = None,
        again: bool = False,
    ) -> Opened:
        """Open a lane to an agent and attach `protocol` to it; its `connection_made` was called on return.

        The lane follows from `use` unless it is given; `again` says that the stream has lost one. A mux lane has
        half-close and reset; a data lane carries bytes alone, so only what frames them itself may run there. Nothing
        may be written to a spliced one, nor read: it is for `Passthrough`. Raises `Unavailable` with a hint and a
        `Refusal` as its reason.
        """
        member = self._members.get(agent)
        wanted = (lane,) if lane else LANES[use]
        if member is None or member.link is None:
            self._past[wanted[0]].refuse(Refusal.OFFLINE)
            raise Unavailable("the agent is not connected", hint=_AGAIN, reason=Refusal.OFFLINE)
        opened = await self._open(member, opening, protocol, wanted, "asked for" if lane else _WHY[use])
        for tally in self._both(member, opened.choice.lane):
            tally.opens += 1
            tally.resumes += again
        return opened

    async def _open(
        self, member: _Member, opening: wire.OpenStream, protocol: asyncio.Protocol, lanes: Sequence[Lane], why: str
    ) -> Opened:
        """Open the first of these lanes that can be had: who may have another is not `patient`."""
        lane, others = lanes[0], lanes[1:]
        if lane is Lane.MUX:
            return self._open_mux(member, opening, protocol, why)
        try:
            line, found = await self._line(member, member.lot(lane), patient=not others)
        except Unavailable as error:
            self._refused(member, lane, error)
            if not others:
                raise
            return await self._open(member, opening, protocol, others, f"{why}, but {error.message}")
        line.open(opening, protocol)
        return Opened(line, Choice(lane, f"{why}, {found}"))

    def _open_mux(self, member: _Member, opening: wire.OpenStream, protocol: asyncio.Protocol, why: str) -> Opened:
        try:
            if member.link is None:
                raise Unavailable("the agent is not connected", hint=_AGAIN, reason=Refusal.OFFLINE)
            transport = member.link.open_stream(opening, protocol)
        except Unavailable as error:
            self._refused(member, Lane.MUX, error)
            raise
        return Opened(transport, Choice(Lane.MUX, why))

    async def _line(self, member: _Member, lot: _Lot, *, patient: bool) -> tuple[RelayLine, str]:
        """Take a ready connection or wait for one; return how it was had, too."""
        loop = asyncio.get_running_loop()
        limits = self._limits
        if not member.dials:
            raise Unavailable("its agent is too old for data connections", hint="update the agent", reason=Refusal.OLD)
        if member.in_use + member.waiting >= limits.streams:
            raise Unavailable(
                f"the agent carries {limits.streams} data streams already",
                hint="try again later",
                reason=Refusal.STREAMS,
            )
        if member.buffered > limits.buffered:
            raise Unavailable(
                "too much waits to be sent to the agent already", hint="try again later", reason=Refusal.BUFFERED
            )
        while lot.ready:
            line = lot.ready.pop()
            if not line.is_closing():
                lot.pool.used(loop.time(), missed=False)
                self._fill(member)
                return line, "a connection was ready"
        if member.waiting >= limits.waiting:
            raise Unavailable(
                f"{limits.waiting} streams wait for data connections already",
                hint="try again later",
                reason=Refusal.WAITING,
            )
        hopeful = patient or lot.pool.hopeful(loop.time())
        lot.pool.used(loop.time(), missed=True)
        if not hopeful:
            self._fill(member)
            raise Unavailable(
                "the agent made no data connection when last asked",
                hint="try again in a moment",
                reason=Refusal.NO_DIAL,
            )
        return await self._dialled(member, lot, limits.dial_s if patient else limits.patience_s)

    async def _dialled(self, member: _Member, lot: _Lot, seconds: float) -> tuple[RelayLine, str]:
        """Wait for a connection in a queue of openers; the first that comes is the first one's."""
        waiter: asyncio.Future[RelayLine] = asyncio.get_running_loop().create_future()
        lot.waiting.append(waiter)
        self._fill(member)
        line: RelayLine | None = None
        try:
            async with asyncio.timeout(seconds):
                line = await waiter
        except TimeoutError:
            raise Unavailable(
                "the agent made no data connection in time", hint="try again in a moment", reason=Refusal.NO_DIAL
            ) from None
        finally:
            if line is None:
                self._gave_up(lot, waiter)
        if line.is_closing():
            raise Unavailable("the agent's data connection broke", hint="try again in a moment", reason=Refusal.BROKE)
        return line, "a connection was dialled"

    def _gave_up(self, lot: _Lot, waiter: "asyncio.Future[RelayLine]") -> None:
        if waiter in lot.waiting:
            lot.waiting.remove(waiter)
        elif waiter.done() and not waiter.cancelled() and waiter.exception() is None and not waiter.result().over:
            self._offer(lot, waiter.result())  # it came in the very turn in which its opener gave up

    # LineOwner: the data connections' ends.

    def accept(self) -> RelayLine:
        """Return the protocol for a new connection under `wire.ALPN_DATA`."""
        return RelayLine(self)

    def accept_spliced(self) -> RelayLine:
        """Return the protocol for a new connection under `wire.ALPN_DATA_SPLICE`."""
        return RelayLine(self, Lane.SPLICE)

    def admit(self, line: RelayLine) -> bool:
        """Let a connection show its token within `Limits.token_s`, unless there are too many."""
        strangers = len(self._strangers)
        if strangers >= self._limits.strangers or strangers + len(self._owners) >= self._limits.lines:
            return False
        self._strangers[line] = asyncio.get_running_loop().call_later(self._limits.token_s, line.abort)
        return True

    def shown(self, line: RelayLine, token: bytes) -> bool:
        """Take a connection whose token is awaited; False for any other."""
        self._no_stranger(line)
        member, lot = self._tokens.pop(token, (None, None))
        if member is None or lot is None or not lot.pool.redeem(token, asyncio.get_running_loop().time()):
            return False
        if lot.lane is not line.lane:
            return False
        self._owners[line] = member
        member.lines.add(line)
        self._offer(lot, line)
        self._fill(member)
        return True

    def dropped(self, line: RelayLine) -> None:
        """A connection is gone."""
        self._no_stranger(line)
        member = self._owners.pop(line, None)
        self._past[line.lane].carried(line.received, line.sent)
        if member is not None:
            self._both(member, line.lane)[0].carried(line.received, line.sent)
            member.lines.discard(line)
            if line in (ready := member.lot(line.lane).ready):
                ready.remove(line)

    def _no_stranger(self, line: RelayLine) -> None:
        if timer := self._strangers.pop(line, None):
            timer.cancel()

    def _offer(self, lot: _Lot, line: RelayLine) -> None:
        """Give a fresh connection to who waited longest, or keep it ready."""
        while lot.waiting:
            waiter = lot.waiting.popleft()
            if not waiter.done():
                waiter.set_result(line)
                return
        lot.ready.append(line)

    # Dials.

    def _fill(self, member: _Member) -> None:
        """Ask the agent for as many dials as are lacking."""
        link = member.link
        if link is None or not link.alive or not member.dials:
            self._arm(member)
            return
        now = asyncio.get_running_loop().time()
        for lot in member.lots.values():
            count = lot.pool.wanted(len(lot.ready), len(lot.waiting))
            tokens = [self._chance.token_bytes(TOKEN) for _ in range(count)]
            for token in tokens:
                lot.pool.promise(token, now)
                self._tokens[token] = member, lot
            if tokens:
                link.send(wire.Dial(tokens=tokens, splice=lot.lane is Lane.SPLICE))
        self._arm(member)

    def _rest(self, member: _Member) -> None:
        """Time has passed: give up late dials, let go of what is not used, ask again for who still waits."""
        now = asyncio.get_running_loop().time()
        if member.link is None and now >= member.gone_at + self._limits.grace_s:
            self._dissolve(member, "the agent did not come back")
            return
        for lot in member.lots.values():
            for token in lot.pool.rest(now):
                self._tokens.pop(token, None)
            while len(lot.ready) > lot.pool.size:
                lot.ready.popleft().close()
        self._fill(member)

    def _arm(self, member: _Member) -> None:
        """Wake up when there is something to do; an agent that nobody uses costs no timer."""
        if member.timer is not None:
            member.timer.cancel()
            member.timer = None
        rests = [lot.pool.next_rest() for lot in member.lots.values()]
        at = min((at for at in rests if at is not None), default=None)
        if member.link is None:
            at = member.gone_at + self._limits.grace_s
        if at is not None:
            loop = asyncio.get_running_loop()
            member.timer = loop.call_at(max(at, loop.time() + 0.001), self._rest, member)

    def _leave(self, member: _Member) -> None:
        """Its link is over: so are the tokens that went over it."""
        if member.link is not None:
            for tally in self._both(member, Lane.MUX):
                tally.carried(*member.link.carried)
            member.link = None
        for lot in member.lots.values():
            for token in lot.pool.pending:
                self._tokens.pop(token, None)
            lot.pool.pending.clear()

    def _dissolve(self, member: _Member, reason: str) -> None:
        """Forget an agent and end all it has here."""
        if self._members.get(member.agent) is member:
            del self._members[member.agent]
        self._leave(member)
        self._refuse_waiting(member, Unavailable(f"the agent is gone: {reason}", hint=_AGAIN, reason=Refusal.OFFLINE))
        if member.timer is not None:
            member.timer.cancel()
        for line in list(member.lines):
            line.abort()

    def _refuse_waiting(self, member: _Member, error: Unavailable) -> None:
        for lot in member.lots.values():
            waiting, lot.waiting = lot.waiting, deque()
            for waiter in waiting:
                if not waiter.done():
                    waiter.set_exception(error)

    def _both(self, member: _Member, lane: Lane) -> tuple[Tally, Tally]:
        """What is counted for an agent is counted for all."""
        return member.past.setdefault(lane, Tally()), self._past[lane]

    def _refused(self, member: _Member, lane: Lane, error: Unavailable) -> None:
        for tally in self._both(member, lane):
            tally.refuse(error.reason)


def _tallies() -> dict[Lane, Tally]:
    return {lane: Tally() for lane in Lane}


def _sum(past: dict[Lane, Tally], members: Sequence[_Member], lines: Sequence[RelayLine]) -> Carried:
    """Return what was carried before, and what the links and connections of the present carry."""
    lanes = {lane: past[lane].copy() if lane in past else Tally() for lane in Lane}
    links = [member.link for member in members if member.link is not None]
    for link in links:
        lanes[Lane.MUX].carried(*link.carried)
    for line in lines:
        lanes[line.lane].carried(line.received, line.sent)
    all_held = [astuple(member.held()) for member in members]
    held = Held(*map(sum, zip(*all_held, strict=True))) if all_held else Held()
    streams = {Lane.MUX: sum(link.streams for link in links), Lane.DATA: 0, Lane.SPLICE: 0}
    streams.update(Counter(line.lane for member in members for line in member.lines if line.in_use))
    buffered = sum(link.buffered for link in links) + sum(member.buffered for member in members)
    return Carried(lanes, streams, held, buffered)
