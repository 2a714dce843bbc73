"""A TLS client that ends its side by `close_notify` alone, which Python's own streams cannot."""

import asyncio
import contextlib
import ssl


class TlsClient:
    """One connection: `finish` ends this side and closes nothing."""

    def __init__(self, context: ssl.SSLContext, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname="localhost")

    async def shake_hands(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                self._in.write(await self._more())
            else:
                return self._flush()

    def write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._tls.write(view) :]
        self._flush()

    def finish(self) -> None:
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.unwrap()
        self._flush()

    async def read(self, count: int) -> bytes:
        """Return so many bytes, fewer at the end that the server made known."""
        got = bytearray()
        while len(got) < count:
            try:
                part = self._tls.read(65536)
            except ssl.SSLWantReadError:
                self._in.write(await self._more())
                continue
            except ssl.SSLZeroReturnError:
                part = b""
            if not part:
                break
            got += part
        return bytes(got)

    async def _more(self) -> bytes:
        data = await self.reader.read(65536)
        if not data:
            raise EOFError
        return data

    def _flush(self) -> None:
        self.writer.write(self._out.read())
