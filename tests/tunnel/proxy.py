"""A TCP proxy as a process of its own, to be killed or stopped: `python -m tests.tunnel.proxy PORT TARGET`."""

import asyncio
import socket
import sys

import uvloop

from tunnel.splice import Leg


async def main(port: int, target: int) -> None:
    """Serve until killed; say so on standard output when ready."""
    loop = asyncio.get_running_loop()
    dials: set[asyncio.Task[None]] = set()

    class Inner(Leg):
        early = b""

        def data_received(self, data: bytes) -> None:
            if self.other is None:  # uvloop begins to read after connection_made, though it is told to pause there
                self.early += data
            super().data_received(data)

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            assert self.transport is not None
            self.transport.pause_reading()
            task = loop.create_task(self.dial())
            dials.add(task)
            task.add_done_callback(dials.discard)

        async def dial(self) -> None:
            outer = Leg()
            outer.other = self
            assert self.transport is not None
            try:
                await loop.create_connection(lambda: outer, "127.0.0.1", target)
            except OSError:
                self.transport.abort()
                return
            self.other = outer
            if outer.transport is not None:
                outer.transport.write(self.early)
            self.transport.resume_reading()

    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    await loop.create_server(Inner, sock=listener)
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))
