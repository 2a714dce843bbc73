"""The server's end of TLS over a TCP connection, with half-close: asyncio's and uvloop's TLS have none.

A client may end its side by `close_notify` and still hear us (RFC 8446, 6.1), as long as it keeps the connection open.
"""

import asyncio
import ssl

from tunnel.innertls import InnerTls

SHUTDOWN_S = 30.0
"""Most seconds that a closed connection has for what was written to it before."""


class ServerTls(InnerTls):
    """A protocol for the connection below, a transport for the protocol above.

    The end of the TCP connection's other direction is the end of all, whether `close_notify` came before or not.
    """

    def __init__(self, context: ssl.SSLContext, above: asyncio.Protocol, *, shutdown_s: float = SHUTDOWN_S) -> None:
        super().__init__(context, above, server_side=True, check=lambda _: None)
        self._shutdown_s = shutdown_s

    def close(self) -> None:
        """Send what was written and the end, then end both directions."""
        if self._up and not self.is_closing():
            self._timer = asyncio.get_running_loop().call_later(self._shutdown_s, self.abort)
        super().close()

    def eof_received(self) -> bool:
        """The client has closed the connection."""
        return False
