"""Two connections joined in the kernel: what one receives the other sends, and this process never sees a byte of it."""

import asyncio
import contextlib
import fcntl
import os
import socket
from collections.abc import Callable
from typing import ClassVar

from tunnel import tcp

PARTING_S = 5.0
"""When one side has ended, the other has so long to do the same."""
_PIPE = 1024 * 1024
_SPARE = 16
_FLUSH_S = 0.001

POSSIBLE = hasattr(os, "splice")
"""Whether this system can do it: Linux can."""


class Passthrough:
    """Carries bytes between two transports' sockets from `start` on, until one ends; both transports end then.

    The transports are paused and stay the sockets' owners: whose `connection_lost` is called calls `close`. What was
    written to them leaves first. `moved` hears of bytes from left to right, and from right to left.
    """

    def __init__(
        self,
        left: asyncio.Transport,
        right: asyncio.Transport,
        moved: Callable[[int, int], None],
        *,
        parting_s: float = PARTING_S,
    ) -> None:
        self._transports = (left, right)
        self._moved = moved
        self._parting_s = parting_s
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.Handle | None = None
        self._sockets: list[socket.socket] = []
        self._flows: list[_Flow] = []

    def start(self) -> None:
        """Begin as soon as all is sent that was written."""
        for transport in self._transports:
            transport.pause_reading()
        self._timer = self._loop.call_soon(self._begin)

    def close(self) -> None:
        """Carry nothing more."""
        if self._timer is not None:
            self._timer.cancel()
        for flow in self._flows:
            flow.close()
        for each in self._sockets:
            each.close()
        self._flows.clear()
        self._sockets.clear()

    def _begin(self) -> None:
        if any(transport.get_write_buffer_size() for transport in self._transports):
            self._timer = self._loop.call_later(_FLUSH_S, self._begin)
            return
        if any(transport.is_closing() for transport in self._transports):
            self._end()
            return
        try:
            # Duplicates: the loop lets nobody else wait for a descriptor that a transport of its own has.
            for transport in self._transports:
                descriptor = transport.get_extra_info("socket").fileno()
                self._sockets.append(socket.socket(fileno=os.dup(descriptor)))
                tcp.ease(self._sockets[-1])
        except OSError:
            self._end()
            return
        left, right = self._sockets
        self._flows = [
            _Flow(self._loop, left, right, lambda count: self._moved(count, 0), self._ended),
            _Flow(self._loop, right, left, lambda count: self._moved(0, count), self._ended),
        ]

    def _ended(self, error: OSError | None) -> None:
        if error is not None or all(flow.over for flow in self._flows):
            self._end()
        else:
            self._timer = self._loop.call_later(self._parting_s, self._end)

    def _end(self) -> None:
        self.close()
        for transport in self._transports:
            transport.abort()


class _Flow:
    """One direction. Nothing is taken from its source before all of the last is given to its sink."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        source: socket.socket,
        sink: socket.socket,
        moved: Callable[[int], None],
        ended: Callable[[OSError | None], None],
    ) -> None:
        self.over = False
        self._loop = loop
        self._source, self._sink = source, sink
        self._moved, self._ended = moved, ended
        self._pipe: _Pipe | None = None
        self._held = 0
        loop.add_reader(source.fileno(), self._readable)

    def close(self) -> None:
        """End it where it is."""
        self._loop.remove_reader(self._source.fileno())
        self._loop.remove_writer(self._sink.fileno())
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None

    def _readable(self) -> None:
        try:
            pipe = self._pipe = _Pipe.take()
            flags = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
            self._held = os.splice(self._source.fileno(), pipe.write, _PIPE, flags=flags)
        except BlockingIOError:
            self._release()
        except OSError as error:
            self._ended(error)
        else:
            if self._held:
                self._empty()
            else:
                self._finish()

    def _empty(self) -> None:
        """Give the sink what the pipe holds."""
        assert self._pipe is not None  # noqa: S101 - whoever holds bytes has it
        try:
            while self._held:
                flags = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
                count = os.splice(self._pipe.read, self._sink.fileno(), self._held, flags=flags)
                self._held -= count
                self._moved(count)
        except BlockingIOError:
            self._loop.remove_reader(self._source.fileno())
            self._loop.add_writer(self._sink.fileno(), self._writable)
        except OSError as error:
            self._ended(error)
        else:
            self._release()

    def _writable(self) -> None:
        self._loop.remove_writer(self._sink.fileno())
        self._empty()
        if not self._held and not self.over:
            self._loop.add_reader(self._source.fileno(), self._readable)

    def _finish(self) -> None:
        """The source has ended: so has the sink."""
        self.over = True
        self._release()
        self._loop.remove_reader(self._source.fileno())
        with contextlib.suppress(OSError):
            self._sink.shutdown(socket.SHUT_WR)
        self._ended(None)

    def _release(self) -> None:
        if self._pipe is not None:
            self._pipe.give_back()
            self._pipe = None


class _Pipe:
    """What bytes are in on their way. Empty ones are shared: an idle connection has none."""

    _spare: ClassVar[list["_Pipe"]] = []

    def __init__(self) -> None:
        self.read, self.write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # this user may have no more large ones
            fcntl.fcntl(self.write, fcntl.F_SETPIPE_SZ, _PIPE)

    @classmethod
    def take(cls) -> "_Pipe":
        """Return an empty one. Raises `OSError` where there are no descriptors left."""
        return cls._spare.pop() if cls._spare else cls()

    def give_back(self) -> None:
        """Let others have it: it is empty."""
        if len(self._spare) < _SPARE:
            self._spare.append(self)
        else:
            self.close()

    def close(self) -> None:
        """Close it, with what it holds."""
        os.close(self.read)
        os.close(self.write)
