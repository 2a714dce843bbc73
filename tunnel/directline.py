"""An agent's own door for users who reach its machine without a relay: the same grants, checked by the agent alone.

On the wire it is a relay's door (`tunnel.door`): an opening, an answer, then the frames of one resumable stream.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial

from atoll.errors import AtollError, Forbidden, Invalid, Unauthorized, Unavailable
from tunnel import wire
from tunnel.dataline import DataLine
from tunnel.door import framed, payload_of
from tunnel.grant import USER_LIFE_S, BadGrant, Grant
from tunnel.reports import Account, Reports
from tunnel.resume import ID_SIZE
from tunnel.veil import Veil

LANE = "direct"
"""What the door's answer calls its lane."""
_WHY = "the machine was reached without a relay"
_CLOSE_S = 2.0
"""Until a connection that was refused is gone, whether its peer agrees or not."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Caps that keep strangers, or one user, from taking an agent. Counts and seconds."""

    opening: int = 64
    """Connections that have not shown a grant."""
    opening_per_source: int = 32
    """The same of one source address."""
    lines: int = 512
    """Connections, those included."""
    lines_per_user: int = 128
    opening_s: float = 5.0
    """Until a connection must have shown its grant."""


class DirectLine(DataLine):
    """One user's connection. `grant` is there once it was found good."""

    def __init__(self, door: "DirectDoor") -> None:
        super().__init__()
        self.grant: Grant | None = None
        self.account: Account | None = None
        self._door = door
        self.source = ""
        self._refused = False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the opening, unless too many do."""
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self.source = str(peer[0]) if peer else ""
        try:
            self._door.came(self)
        except Unavailable as error:
            self.refuse(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the stream and the door."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)
        self._door.left(self)

    def _begin(self, data: bytes) -> None:
        if self._refused:
            return
        self._head += data
        try:
            payload = payload_of(self._head)
            if payload is not None:
                self._enter(wire.decode_open(payload))
        except wire.ProtocolError as error:
            self.refuse(Invalid(str(error)))
        except AtollError as error:
            self.refuse(error)

    def _enter(self, opening: wire.OpenStream) -> None:
        protocol = self._door.open(self, opening)
        veil = self._below if isinstance(self._below, Veil) and opening.client else None
        self._send(wire.Answer(lane=LANE, why=_WHY, bare=veil is not None))
        if veil is not None:
            veil.lift()
        self._head.clear()
        self.attach(protocol)

    def refuse(self, error: AtollError) -> None:
        """Say why the connection ends, and end it."""
        if self._refused or self.in_use:
            return
        self._refused = True
        self._head.clear()
        self._door.refused[error.code] += 1
        self._send(wire.Answer(code=error.code, message=error.message, hint=error.hint))
        self.close()
        self._timer = asyncio.get_running_loop().call_later(_CLOSE_S, self.abort)

    def _send(self, answer: wire.Answer) -> None:
        if self._below is not None:
            self._below.write(framed(wire.encode(answer)))


class DirectDoor:
    """`accept` is the protocol factory for connections under `wire.ALPN_USER`, and veiled `wire.ALPN_USER_SPLICE`.

    `check` is the agent's own judgement of an opening: its grant, None where it needs none, or `BadGrant`. `serve`
    returns the protocol of a stream's lane, None where it cannot be had. `reports` is told of each connection.
    """

    def __init__(
        self,
        check: Callable[[wire.OpenStream], Grant | None],
        serve: Callable[[wire.OpenStream], asyncio.Protocol | None],
        limits: Limits | None = None,
        reports: Reports | None = None,
    ) -> None:
        self._reports = reports
        self._check = check
        self._serve = serve
        self._limits = limits or Limits()
        self._lines: set[DirectLine] = set()
        self._opening: dict[DirectLine, asyncio.TimerHandle] = {}
        self._users: Counter[str] = Counter()
        self._evicted: dict[str, float] = {}
        self.on_token: Callable[[], None] = lambda: None
        """Told when somebody came in by a credential of which nobody was inside."""
        self.refused: Counter[str] = Counter()
        """Connections that were not let in, by the code of their error."""

    @property
    def tokens(self) -> list[str]:
        """The users' credentials, by id, for which those inside were let in."""
        return sorted({line.grant.token for line in self._lines if line.grant is not None})

    def accept(self) -> DirectLine:
        """Return the protocol for a new connection."""
        return DirectLine(self)

    def evict(self, tokens: Collection[str]) -> None:
        """End the connections of the bearers of these credentials; their grants open none until they have expired."""
        now = asyncio.get_running_loop().time()
        self._evicted = {token: until for token, until in self._evicted.items() if until > now}
        self._evicted |= dict.fromkeys(tokens, now + USER_LIFE_S)
        for line in [line for line in self._lines if line.grant is not None and line.grant.token in tokens]:
            line.abort()

    def close(self) -> None:
        """End all connections."""
        for line in list(self._lines):
            line.abort()

    # What lines call.

    def came(self, line: DirectLine) -> None:
        """Let a connection show its grant; raise `Unavailable` where there are too many."""
        limits = self._limits
        own = sum(each.source == line.source for each in self._opening)
        if len(self._lines) >= limits.lines or len(self._opening) >= limits.opening or own >= limits.opening_per_source:
            raise Unavailable("too many connections are being opened", hint="try again in a moment")
        self._lines.add(line)
        late = Unavailable("no grant was shown in time", hint="try again")
        self._opening[line] = asyncio.get_running_loop().call_later(limits.opening_s, line.refuse, late)

    def open(self, line: DirectLine, opening: wire.OpenStream) -> asyncio.Protocol:
        """Return the protocol of the stream that is asked for; raise `AtollError`."""
        try:
            grant = self._check(opening)
        except BadGrant as error:
            raise Unauthorized(str(error), hint="ask the control plane for a new one") from None
        if grant is None or not (grant.user and grant.token):
            raise Forbidden("the grant is no user's")
        if self._evicted.get(grant.token, 0.0) > asyncio.get_running_loop().time():
            raise Unauthorized("the API token is not valid any more", hint="log in anew")
        if len(opening.resume) != ID_SIZE:
            raise Invalid("only streams that can be resumed pass here")
        if self._users[grant.user] >= self._limits.lines_per_user:
            raise Unavailable(f"{grant.user} has {self._limits.lines_per_user} streams here", hint="close some")
        protocol = self._serve(opening)
        if protocol is None:
            raise Unavailable("the agent does not serve this stream", hint="see `atoll ps`")
        self._shown(line)
        known = grant.token in self.tokens
        line.grant = grant
        self._users[grant.user] += 1
        if not known:
            self.on_token()
        if self._reports is not None:
            look = partial(_look, line)
            line.account = self._reports.began(opening.grant, look, source=line.source)
            line.account.lane = LANE
        return protocol

    def left(self, line: DirectLine) -> None:
        """A connection is gone."""
        self._shown(line)
        if line in self._lines:
            self._lines.remove(line)
            if line.account is not None:
                line.account.over()
            if line.grant is not None:
                self._users[line.grant.user] -= 1
                self._users += Counter()  # drops what is zero

    def _shown(self, line: DirectLine) -> None:
        if timer := self._opening.pop(line, None):
            timer.cancel()


def _look(line: DirectLine, account: Account) -> None:
    account.sent, account.received = line.carried
