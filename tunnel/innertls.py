"""TLS inside a stream, from the user's end to the agent: whatever carries the stream sees records, and no more.

Both ends show certificates: the agent the one that the installation's CA signed for it, the user one of its own whose
hash is in the grant. So a relay, which sees grants, can neither read a stream nor come in with a user's grant.
"""

import asyncio
import ssl
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

from tunnel import certificates
from tunnel.certificates import Bearer
from tunnel.endpoint import Endpoint
from tunnel.stream import StreamReset
from tunnel.wire import ALPN_INNER

HANDSHAKE_S = 30.0
"""Most seconds until both ends have shown who they are; the stream may lose a lane meanwhile."""
_READ = 256 * 1024
_OWN_S = 30 * 86_400.0

Check = Callable[[ssl.SSLObject], None]
"""Looks at the peer's certificate; raises `StreamReset`."""


class InnerTls(asyncio.Transport, asyncio.Protocol):
    """Either end: a protocol for the stream below, a transport for the protocol above.

    That one's `connection_made` is called once the peer has shown who it is; where it does not, it hears of the end
    alone. Each direction ends with the `close_notify` of TLS: a stream that ends without was cut off.
    `shaken` is done once the handshake is over, and fails with the `OSError` that ended it.
    """

    def __init__(
        self, context: ssl.SSLContext, above: asyncio.Protocol, *, server_side: bool, check: Check, name: str = ""
    ) -> None:
        """`check` looks at who has shaken hands; a client asks for the server of that `name`, if there is one."""
        super().__init__()
        self._above = above
        self._check = check
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=name or None
        )
        self._below: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._held = bytearray()
        self._up = False
        self._paused = False
        self._ended = False
        self._end_told = False
        self._finished = False
        self._closing = False
        self._error: StreamReset | None = None
        self.shaken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # What the protocol above calls.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send bytes; nothing happens once it is closing."""
        if self.is_closing() or self._finished:
            return
        view = memoryview(data)
        sent = 0
        try:
            while sent < len(view):
                sent += self._tls.write(view[sent:])
        except ssl.SSLError as error:
            self._fail(f"the encrypted stream failed: {error.reason}")
            return
        self._flush()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Send several pieces in order."""
        self.write(b"".join(list_of_data))

    def pause_reading(self) -> None:
        """Hold bytes back."""
        self._paused = True
        if self._below is not None:
            self._below.pause_reading()

    def resume_reading(self) -> None:
        """Deliver bytes again, soon."""
        if self._paused and self._below is not None:
            self._paused = False
            self._below.resume_reading()
            asyncio.get_running_loop().call_soon(self._deliver)

    def is_reading(self) -> bool:
        """Say whether bytes are delivered as they come."""
        return not (self._paused or self.is_closing())

    def is_closing(self) -> bool:
        """Say whether it is closed or being closed."""
        return self._closing or self._error is not None or self._below is None or self._below.is_closing()

    def can_write_eof(self) -> bool:
        """Half-close is supported."""
        return True

    def write_eof(self) -> None:
        """End this direction; the other one stays open."""
        if not self._finished and not self.is_closing():
            self._finish()
            if self._below is not None:
                self._below.write_eof()

    def close(self) -> None:
        """Send what was written and the end, then end both directions."""
        if self._up and not self._finished and not self.is_closing():
            self._finish()
        self._closing = True
        if self._below is not None:
            self._below.close()

    def abort(self) -> None:
        """End both directions now."""
        if self._below is not None:
            self._below.abort()

    def reset(self, reason: str) -> None:
        """End both directions now; over a stream the peer is told why."""
        if isinstance(self._below, Endpoint):
            self._below.reset(reason)
        else:
            self.abort()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the marks, in bytes, at which writing is paused and resumed."""
        if self._below is not None:
            self._below.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        """Return the bytes that wait below."""
        return self._below.get_write_buffer_size() if self._below is not None else 0

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Exchange the protocol above."""
        self._above = cast("asyncio.Protocol", protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol above."""
        return self._above

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what is known of TLS here; all else the stream below knows."""
        if name in ("ssl_object", "sslcontext"):
            return self._tls if name == "ssl_object" else self._tls.context
        return default if self._below is None else self._below.get_extra_info(name, default)

    # What the stream below calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to speak TLS."""
        self._below = cast("asyncio.Transport", transport)
        self._timer = asyncio.get_running_loop().call_later(HANDSHAKE_S, self._fail, "the peer did not speak TLS")
        self._shake_hands()

    def data_received(self, data: bytes) -> None:
        """Records of the peer."""
        if self._error is not None:
            return
        self._incoming.write(data)
        if not self._up:
            self._shake_hands()
        if self._up:
            self._decrypt()
            self._deliver()

    def eof_received(self) -> bool:
        """The stream's direction has ended: after the peer's `close_notify`, or it was cut off."""
        if not self._ended:
            self._fail("the encrypted stream was cut off")
        return True

    def pause_writing(self) -> None:
        """The stream takes no more for now."""
        if self._up:
            self._above.pause_writing()

    def resume_writing(self) -> None:
        """The stream takes bytes again."""
        if self._up:
            self._above.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """The stream is gone."""
        if self._timer is not None:
            self._timer.cancel()
        if not self.shaken.done():
            cause = self._error.__cause__ if self._error is not None else exc
            self.shaken.set_exception(cause if isinstance(cause, OSError) else ConnectionResetError("no handshake"))
            self.shaken.exception()  # nobody may be waiting any more
        self._above.connection_lost(self._error or exc)

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return
        except ssl.SSLError as error:
            self._flush()  # an alert says why
            self._fail(f"the peer did not prove who it is: {error.reason}", error)
            return
        self._flush()
        try:
            self._check(self._tls)
        except StreamReset as error:
            self._fail(str(error))
            return
        if self._timer is not None:
            self._timer.cancel()
        self._up = True
        if not self.shaken.done():
            self.shaken.set_result(None)
        self._above.connection_made(self)

    def _decrypt(self) -> None:
        """Take all whole records off, paused or not: what is not taken would be in the way of our own end."""
        try:
            while data := self._tls.read(_READ):
                self._held += data
                if not self._goes_on():
                    break
            else:
                self._ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._ended = True
        except ssl.SSLError as error:
            self._fail(f"the encrypted stream was tampered with: {error.reason}")
        self._flush()

    def _goes_on(self) -> bool:
        """Say, after a record, whether the next bytes are one, too."""
        return True

    def _deliver(self) -> None:
        if self._held and not self._paused and not self.is_closing():
            held, self._held = bytes(self._held), bytearray()
            self._above.data_received(held)
        if self._ended and not (self._held or self._paused or self._end_told or self.is_closing()):
            self._end_told = True
            if not self._above.eof_received():
                self.close()

    def _finish(self) -> None:
        self._finished = True
        try:
            self._tls.unwrap()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self._fail(f"the encrypted stream failed: {error.reason}")
        self._flush()

    def _flush(self) -> None:
        if self._outgoing.pending and self._below is not None:
            self._below.write(self._outgoing.read())

    def _fail(self, reason: str, cause: Exception | None = None) -> None:
        if self._error is None:
            self._error = StreamReset(reason)
            self._error.__cause__ = cause
            self.reset(reason)


class OwnKey:
    """A user's key for blind streams, made for one command and kept nowhere. Loads `cryptography`."""

    def __init__(self, now: float) -> None:
        """Make it; `now` is in Unix seconds."""
        self._key = certificates.new_key()
        self._pem = certificates.new_own(self._key, now=now, ttl_s=_OWN_S)
        self.certificate = ssl.PEM_cert_to_DER_cert(self._pem)
        """What the agent is told of it, DER."""
        self._contexts: dict[str, ssl.SSLContext] = {}

    def context(self, ca: str) -> ssl.SSLContext:
        """Return the context for agents whose certificates `ca` (PEM) signs, made once. Raises `OSError`."""
        if ca not in self._contexts:
            self._contexts[ca] = self._make_context(ca)
        return self._contexts[ca]

    def _make_context(self, ca: str) -> ssl.SSLContext:
        from tempfile import TemporaryDirectory  # here: agents load this module, and need no folders

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False  # an agent has no host name: `towards_agent` checks its id
        context.load_verify_locations(cadata=ca)
        context.set_alpn_protocols([ALPN_INNER])
        with TemporaryDirectory() as folder:  # 0700, and gone at once: this library reads keys from files only
            place = Path(folder) / "own.pem"
            place.write_bytes(self._key + self._pem.encode())
            context.load_cert_chain(place)
        return context


def towards_agent(context: ssl.SSLContext, agent: str, above: asyncio.Protocol) -> InnerTls:
    """Return the user's end of a blind stream to that very agent."""

    def check(tls: ssl.SSLObject) -> None:
        _check_protocol(tls)
        names = cast("tuple[tuple[str, str], ...]", (tls.getpeercert() or {}).get("subjectAltName", ()))
        bearer = Bearer.of(value for kind, value in names if kind == "URI")
        if bearer is None or bearer.agent != agent:
            raise StreamReset(f"another agent than {agent} answered")

    return InnerTls(context, above, server_side=False, check=check)


def towards_user(context: ssl.SSLContext, certificate: bytes, above: asyncio.Protocol) -> InnerTls:
    """Return the agent's end of a blind stream from the user who has that very certificate (DER)."""

    def check(tls: ssl.SSLObject) -> None:
        _check_protocol(tls)
        if tls.getpeercert(binary_form=True) != certificate:
            raise StreamReset("another user than the one of the grant answered")

    return InnerTls(context, above, server_side=True, check=check)


def _check_protocol(tls: ssl.SSLObject) -> None:
    if tls.selected_alpn_protocol() != ALPN_INNER:
        raise StreamReset("the peer speaks another protocol")
