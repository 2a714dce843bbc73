"""The agent's data connections: dialled as the control plane asks, each serves one stream."""

import asyncio
import logging
from collections.abc import Callable, Sequence

from tunnel import wire
from tunnel.dataline import TOKEN, AgentLine
from tunnel.dialer import Dialer

_log = logging.getLogger("atoll.agent")

DIALS_LIMIT = 16
"""Most dials at a time: tokens beyond are left to lapse."""
LINES_LIMIT = 320
"""Most connections at a time."""


class DataLines:
    """Dials, shows the token, and gives each connection's stream to `serve` (None refuses it)."""

    def __init__(self, dialer: Dialer, serve: Callable[[wire.OpenStream], asyncio.Protocol | None]) -> None:
        self._dialer = dialer
        self._serve = serve
        self._dials: set[asyncio.Task[None]] = set()
        self._lines: set[AgentLine] = set()

    @property
    def in_use(self) -> int:
        """How many carry a stream."""
        return sum(line.in_use for line in self._lines)

    def dial(self, tokens: Sequence[bytes], *, splice: bool = False) -> None:
        """Begin a connection for each token; with `splice` those that will be bare."""
        room = min(DIALS_LIMIT - len(self._dials), LINES_LIMIT - len(self._lines) - len(self._dials))
        for token in tokens[: max(0, room)]:
            if len(token) == TOKEN:
                task = asyncio.get_running_loop().create_task(self._dial(token, splice), name="agent data dial")
                self._dials.add(task)
                task.add_done_callback(self._dials.discard)

    async def close(self) -> None:
        """End them all."""
        for task in self._dials:
            task.cancel()
        await asyncio.gather(*self._dials, return_exceptions=True)
        for line in list(self._lines):
            line.abort()

    async def _dial(self, token: bytes, splice: bool) -> None:
        try:
            await self._dialer.dial(lambda: self._line(token), splice=splice)
        except OSError as error:
            _log.info("a data connection could not be made: %s", error)

    def _line(self, token: bytes) -> AgentLine:
        line = AgentLine(token, self._serve, self._lines.discard)
        self._lines.add(line)
        return line
