"""TLS for the first words of a connection, which may be lifted then: from there on bytes pass as they are.

It is for streams that are encrypted from end to end. Where both of its connections are bare, a relay has nothing to
decrypt: the kernel passes the bytes on (`tunnel.passthrough`).
"""

import asyncio
import ssl
from collections.abc import Iterable

from tunnel.innertls import InnerTls
from tunnel.stream import StreamReset


class Veil(InnerTls):
    """Either end of such a connection. `name` is the server's at the client's end, and empty at the server's own.

    `lift` is for both ends to call when the first words are said: what was written before goes out, and what comes in
    is taken, as TLS.
    """

    def __init__(self, context: ssl.SSLContext, above: asyncio.Protocol, name: str = "") -> None:
        super().__init__(context, above, server_side=not name, check=_check, name=name)
        self.lifted = False

    def lift(self) -> None:
        """Speak no more TLS."""
        self.lifted = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes."""
        if self.lifted and self._below is not None:
            self._below.write(data)
        else:
            super().write(data)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Send several pieces in order."""
        if self.lifted and self._below is not None:
            self._below.writelines(list_of_data)
        else:
            super().writelines(list_of_data)

    def write_eof(self) -> None:
        """End this direction; the other one stays open."""
        if self.lifted and self._below is not None:
            self._below.write_eof()
        else:
            super().write_eof()

    def close(self) -> None:
        """Send what was written, then end both directions."""
        if self.lifted and self._below is not None:
            self._below.close()
        else:
            super().close()

    def data_received(self, data: bytes) -> None:
        """Records of the peer, or bytes once it is lifted."""
        if not self.lifted:
            super().data_received(data)
            data = self._incoming.read() if self.lifted else b""
        if data:
            self._above.data_received(data)

    def eof_received(self) -> bool:
        """The peer ended its direction."""
        return bool(self._above.eof_received()) if self.lifted else super().eof_received()

    def _goes_on(self) -> bool:
        """Whoever is above may lift it in this very moment."""
        self._deliver()
        return not self.lifted


def _check(tls: ssl.SSLObject) -> None:
    if not tls.selected_alpn_protocol():
        raise StreamReset("the peer speaks another protocol")
