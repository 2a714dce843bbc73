"""An agent's own door for users who reach its machine without a relay: the same grants, checked by the agent alone.

On the wire it is a relay's door (`tunnel.door`): an opening, an answer, then the frames of one resumable stream.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass

from atoll.errors import AtollError, Forbidden, Invalid, Unauthorized, Unavailable
from tunnel import wire
from tunnel.dataline import DataLine
from tunnel.door import framed, payload_of
from tunnel.grant import BadGrant, Grant
from tunnel.resume import ID_SIZE

LANE = "direct"
"""What the door's answer calls its lane."""
_WHY = "the machine was reached without a relay"


@dataclass(frozen=True, slots=True)
class Limits:
    """Caps that keep strangers, or one user, from taking an agent. Counts and seconds."""

    opening: int = 64
    """Connections that have not shown a grant."""
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
        self._door = door

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the opening, unless too many do."""
        super().connection_made(transport)
        if not self._door.came(self):
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the stream and the door."""
        super().connection_lost(exc)
        self._door.left(self)

    def _begin(self, data: bytes) -> None:
        self._head += data
        try:
            payload = payload_of(self._head)
            if payload is not None:
                self._enter(wire.decode_open(payload))
        except wire.ProtocolError as error:
            self._refuse(Invalid(str(error)))
        except AtollError as error:
            self._refuse(error)

    def _enter(self, opening: wire.OpenStream) -> None:
        protocol = self._door.open(self, opening)
        self._send(wire.Answer(lane=LANE, why=_WHY))
        self._head.clear()
        self.attach(protocol)

    def _refuse(self, error: AtollError) -> None:
        self._send(wire.Answer(code=error.code, message=error.message, hint=error.hint))
        self.close()

    def _send(self, answer: wire.Answer) -> None:
        if self._below is not None:
            self._below.write(framed(wire.encode(answer)))


class DirectDoor:
    """`accept` is the protocol factory for connections under `wire.ALPN_USER`.

    `check` is the agent's own judgement of an opening: its grant, None where it needs none, or `BadGrant`. `serve`
    returns the protocol of a stream's lane, None where it cannot be had.
    """

    def __init__(
        self,
        check: Callable[[wire.OpenStream], Grant | None],
        serve: Callable[[wire.OpenStream], asyncio.Protocol | None],
        limits: Limits | None = None,
    ) -> None:
        self._check = check
        self._serve = serve
        self._limits = limits or Limits()
        self._lines: set[DirectLine] = set()
        self._opening: dict[DirectLine, asyncio.TimerHandle] = {}
        self._users: Counter[str] = Counter()

    @property
    def tokens(self) -> list[str]:
        """The users' credentials, by id, for which those inside were let in."""
        return sorted({line.grant.token for line in self._lines if line.grant is not None})

    def accept(self) -> DirectLine:
        """Return the protocol for a new connection."""
        return DirectLine(self)

    def evict(self, tokens: Collection[str]) -> None:
        """End the connections of the bearers of these credentials."""
        for line in [line for line in self._lines if line.grant is not None and line.grant.token in tokens]:
            line.abort()

    def close(self) -> None:
        """End all connections."""
        for line in list(self._lines):
            line.abort()

    # What lines call.

    def came(self, line: DirectLine) -> bool:
        """Let a connection show its grant, unless there are too many."""
        if len(self._lines) >= self._limits.lines or len(self._opening) >= self._limits.opening:
            return False
        self._lines.add(line)
        self._opening[line] = asyncio.get_running_loop().call_later(self._limits.opening_s, line.abort)
        return True

    def open(self, line: DirectLine, opening: wire.OpenStream) -> asyncio.Protocol:
        """Return the protocol of the stream that is asked for; raise `AtollError`."""
        try:
            grant = self._check(opening)
        except BadGrant as error:
            raise Unauthorized(str(error), hint="ask the control plane for a new one") from None
        if grant is None or not (grant.user and grant.token):
            raise Forbidden("the grant is no user's")
        if len(opening.resume) != ID_SIZE:
            raise Invalid("only streams that can be resumed pass here")
        if self._users[grant.user] >= self._limits.lines_per_user:
            raise Unavailable(f"{grant.user} has {self._limits.lines_per_user} streams here", hint="close some")
        protocol = self._serve(opening)
        if protocol is None:
            raise Unavailable("the agent does not serve this stream", hint="see `atoll ps`")
        self._shown(line)
        line.grant = grant
        self._users[grant.user] += 1
        return protocol

    def left(self, line: DirectLine) -> None:
        """A connection is gone."""
        self._shown(line)
        if line in self._lines:
            self._lines.remove(line)
            if line.grant is not None:
                self._users[line.grant.user] -= 1
                self._users += Counter()  # drops what is zero

    def _shown(self, line: DirectLine) -> None:
        if timer := self._opening.pop(line, None):
            timer.cancel()
