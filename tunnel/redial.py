"""The client's end of a resumable stream: keeps it on a lane, dialling another whenever one is lost."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from atoll.clock import Chance
from atoll.errors import AtollError, Unavailable
from tunnel.backoff import Backoff
from tunnel.dialer import DIAL_TIMEOUT_S
from tunnel.resumable import RESUME_S, Lane, ResumableTransport
from tunnel.resume import WINDOW, Resume, Side
from tunnel.stream import StreamReset

_FIRST_S = 0.1
_LONGEST_S = 1.0

Dial: TypeAlias = Callable[[Callable[[], asyncio.Protocol]], Awaitable[None]]
"""Makes a lane to the agent: connects, sends whatever comes before the stream's own bytes (token, grant), hands
the transport to `make()` and returns when `connection_made` was called. The greeting goes out there and then
and must be answered within `ANSWER_S`, so not before the way to the agent is open.

`OSError` and `Unavailable` mean: try again. `StreamReset` and any other `AtollError` mean that the stream
cannot be had (any more): it ends with that.
"""


class RedialledTransport(ResumableTransport):
    """A resumable stream that finds its lanes by itself.

    `resumed` counts the lanes that were lost and replaced.
    """

    def __init__(self, stream: bytes, dial: Dial, *, chance: Chance, peer: str = "", window: int = WINDOW) -> None:
        """Prepare a stream of this id; `attach` gives it its protocol and `start` its first lane."""
        super().__init__(Resume(stream, Side.CLIENT, window), peer)
        self.resumed = 0
        self._dial = dial
        self._chance = chance
        self._keeper: asyncio.Task[None] | None = None
        self._deadline = 0.0
        self._backoff = Backoff(chance, first_s=_FIRST_S, longest_s=_LONGEST_S)
        self._why: Exception | None = None

    def start(self) -> None:
        """Dial the first lane; one must be had within `DIAL_TIMEOUT_S`."""
        self._keep(DIAL_TIMEOUT_S, wait=False)

    def move(self, dial: Dial | None = None) -> None:
        """Go over to a new lane, made by `dial` from now on; the present one serves until that is connected."""
        self._dial = dial or self._dial
        if self._keeper is not None:
            self._keeper.cancel()
            self._keeper = None
        if not self.core.over:
            self._keep(RESUME_S, wait=False)

    def detached(self, error: Exception, answered: bool) -> None:
        """A lane was lost: dial another."""
        if self.core.over:
            return
        self._why = error
        if answered:
            self.resumed += 1
            self._backoff = Backoff(self._chance, first_s=_FIRST_S, longest_s=_LONGEST_S)
            self._keep(RESUME_S, wait=True)
        elif isinstance(error, StreamReset) and self.core.fresh:
            self._fail(error)
        else:
            self._keep(None, wait=True)

    def parted(self) -> None:
        """No lane is needed any more."""
        if self._keeper is not None:
            self._keeper.cancel()
            self._keeper = None

    def _keep(self, seconds: float | None, *, wait: bool) -> None:
        if seconds is not None:
            self._deadline = self._loop.time() + seconds
        if self._keeper is None:
            self._keeper = self._loop.create_task(self._find(wait=wait))

    async def _find(self, *, wait: bool) -> None:
        """Dial until there is a lane. One that is lost before its answer brings us here again, by `detached`."""
        before = self.core.epoch
        while True:
            if wait:
                pause = self._backoff.next()
                if self._loop.time() + pause >= self._deadline:
                    break
                await asyncio.sleep(pause)
            wait = True
            try:
                async with asyncio.timeout_at(min(self._deadline, self._loop.time() + DIAL_TIMEOUT_S)):
                    await self._dial(lambda: Lane(self))
            except StreamReset as error:
                return self._fail(error)
            except (OSError, Unavailable) as error:
                self._why = error
            except AtollError as error:
                return self._fail(StreamReset(error.message))
            if self.attached and self.core.epoch > before:
                self._keeper = None
                return None
        self._keeper = None
        if not self.attached:
            why = f": {self._why}" if self._why else ""
            self._fail(StreamReset(f"the stream found no way to its agent in time{why}"))
        return None

    def _fail(self, error: StreamReset) -> None:
        keeper, self._keeper = self._keeper, None
        self.core.reset(str(error))
        self.lose(error)
        if keeper is not None and keeper is not asyncio.current_task():
            keeper.cancel()
