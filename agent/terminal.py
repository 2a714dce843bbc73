"""A terminal's input, written as it takes it. The same on every event loop: uvloop's write pipes read as well."""

import asyncio
import os

HIGH, LOW = 64 * 1024, 16 * 1024
"""Bytes that wait before the sender is asked to pause, and before it may go on."""


class TerminalInput(asyncio.WriteTransport):
    """What a program reads from its terminal; `descriptor` is our end of it, which stays its owner's to close.

    `protocol` is told to pause, to go on, and of the loss as by any write pipe of asyncio.
    """

    def __init__(self, descriptor: int, protocol: asyncio.BaseProtocol) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._protocol = protocol
        self._loop = asyncio.get_running_loop()
        self._waiting = bytearray()
        self._watched = self._paused = self._over = False
        os.set_blocking(descriptor, False)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write, or keep until the terminal takes it; nothing happens once it is lost."""
        if self._over:
            return
        self._waiting += data
        if not self._watched:
            self._flush()
        if len(self._waiting) > HIGH and not self._paused:
            self._paused = True
            self._protocol.pause_writing()

    def is_closing(self) -> bool:
        """Say whether it is lost or was ended."""
        return self._over

    def abort(self) -> None:
        """Write no more."""
        if not self._over:
            self._over = True
            self._waiting.clear()
            self._watch(False)
            self._loop.call_soon(self._protocol.connection_lost, None)

    close = abort
    """A terminal's input ends by what is written, not by closing."""

    def _flush(self) -> None:
        try:
            sent = os.write(self._descriptor, self._waiting)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.abort()
            return
        del self._waiting[:sent]
        self._watch(bool(self._waiting))
        if self._paused and len(self._waiting) <= LOW:
            self._paused = False
            self._protocol.resume_writing()

    def _watch(self, wanted: bool) -> None:
        if wanted != self._watched:
            self._watched = wanted
            if wanted:
                self._loop.add_writer(self._descriptor, self._flush)
            else:
                self._loop.remove_writer(self._descriptor)
