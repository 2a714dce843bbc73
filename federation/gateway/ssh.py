"""SSH itself: the connections of stock clients, each into one session: programs, files, and ports of that session."""

import asyncio
import socket
from collections.abc import Awaitable
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import asyncssh
from asyncssh.constants import DEFAULT_LANG, MSG_DISCONNECT, OPEN_ADMINISTRATIVELY_PROHIBITED, OPEN_CONNECT_FAILED
from asyncssh.packet import String, UInt32

from atoll.errors import AtollError, Unavailable
from federation.gateway.visitors import Visitor
from tunnel import exec as frames
from tunnel.exec import Decoder, ExecError, Exit, Kind, Order, Size
from tunnel.lanes import Use

if TYPE_CHECKING:
    from federation.gateway.sshdoor import SshDoor

LOGIN_S = 10
KEEPALIVE_S, KEEPALIVE_COUNT = 15, 3
KEX = ("mlkem768x25519-sha256", "curve25519-sha256")
"""The second one is for OpenSSH before 9.9, Debian 12's among them."""
CIPHERS = ("aes256-gcm@openssh.com", "aes128-gcm@openssh.com")
MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com")
SIGNATURES = ("ssh-ed25519", "ecdsa-sha2-nistp256", "sk-ssh-ed25519@openssh.com")
LOCAL = frozenset({"localhost", "127.0.0.1", "::1", ""})
"""What `-L` and `-D` may name: the session's own machine, as it sees itself."""
REFUSED = 126
"""What a program that could not be started exits with, as shells have it."""


async def serve(door: "SshDoor", connection: socket.socket) -> None:
    """Serve an accepted connection; returns once its user is known. Raises `OSError` where it never is."""
    asyncssh.set_log_level("ERROR")  # its lower levels quote commands (S6)
    try:
        await asyncssh.run_server(connection, options=await _options(door))
    except asyncssh.Error as error:
        raise ConnectionAbortedError(str(error)) from error


async def _options(door: "SshDoor") -> asyncssh.SSHServerConnectionOptions:
    options: asyncssh.SSHServerConnectionOptions = await asyncssh.SSHServerConnectionOptions.construct(
        server_factory=lambda: Entrance(door),
        server_host_keys=[_host_key(door.services.ssh.host_key)],
        server_version="Atoll",
        kex_algs=list(KEX),
        encryption_algs=list(CIPHERS),
        mac_algs=list(MACS),
        signature_algs=list(SIGNATURES),
        compression_algs=None,
        host_based_auth=False,
        password_auth=False,
        kbdint_auth=False,
        public_key_auth=True,
        gss_host=None,
        agent_forwarding=False,
        x11_forwarding=False,
        line_editor=False,
        encoding=None,
        login_timeout=LOGIN_S,
        keepalive_interval=KEEPALIVE_S,
        keepalive_count_max=KEEPALIVE_COUNT,
        tcp_keepalive=True,
    )
    return options


@cache
def _host_key(private: bytes) -> asyncssh.SSHKey:
    return asyncssh.import_private_key(private)


class Signed(asyncssh.SSHAuthorizedKeys):
    """Whose keys are good: those that our own authority has signed, for the user whom the certificate names."""

    def __init__(self, ca_public: str) -> None:
        super().__init__()
        self._ca = asyncssh.import_public_key(ca_public)

    def validate(
        self,
        key: asyncssh.SSHKey,
        client_host: str,  # noqa: ARG002 - as the class above has it
        client_addr: str,  # noqa: ARG002
        cert_principals: Any = None,
        ca: bool = False,
    ) -> Any:
        """Return the options of a good key: the certificate's principals, so that the user name may be a session."""
        if ca and key == self._ca and cert_principals and len(cert_principals) == 2:
            return {"principals": list(cert_principals)}
        return None


class Entrance(asyncssh.SSHServer):
    """One connection: its user name names the session, its certificate the user."""

    def __init__(self, door: "SshDoor") -> None:
        self.door = door
        self._name = ""
        self._admitted: asyncio.Task[Visitor] | None = None
        self._channels: set[asyncio.Task[None]] = set()

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        """Keep the connection."""
        self._connection = conn

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """The user is gone."""
        if self._admitted is not None:
            self._admitted.cancel()
            if self._admitted.done() and not self._admitted.cancelled() and not self._admitted.exception():
                self.door.left(self._admitted.result())

    def begin_auth(self, username: str) -> bool:
        """Ask for a certificate, always."""
        self._name = username
        self._connection.set_authorized_keys(Signed(self.door.services.ssh.ca_public))
        return True

    def auth_completed(self) -> None:
        """The certificate is good: see whether its user may enter. Channels wait for the answer."""
        owner, token = cast(list[str], self._connection.get_key_option("principals"))
        loop = asyncio.get_running_loop()
        self._admitted = loop.create_task(self.door.admit(self._name, owner, token, self._end), name="ssh admission")

    async def run(self) -> str:
        """Return the run to serve this user with now; raises `AtollError`."""
        if self._admitted is None:
            raise Unavailable("nobody is logged in")
        return await self.door.run_of(await asyncio.shield(self._admitted))

    @property
    def user(self) -> str:
        """Who was let in: known once `run` has answered."""
        return self._admitted.result().owner if self._admitted else ""

    @property
    def source(self) -> str:
        """The address that the connection comes from."""
        peer = self._connection.get_extra_info("peername")
        return str(peer[0]) if peer else ""

    def session_requested(self) -> "Program":
        """A program, shell or subsystem is wanted."""
        return Program(self)

    def connection_requested(
        self,
        dest_host: str,
        dest_port: int,
        orig_host: str,  # noqa: ARG002
        orig_port: int,  # noqa: ARG002
    ) -> "Awaitable[Forward]":
        """A port is wanted (`-L`, `-D`): one of the session's own, and no other host's."""
        return self._forward(dest_host.strip("[]").lower(), dest_port)

    async def _forward(self, host: str, port: int) -> "Forward":
        if host not in LOCAL:
            raise asyncssh.ChannelOpenError(
                OPEN_ADMINISTRATIVELY_PROHIBITED,
                "only ports of the session itself are reached from here: localhost, 127.0.0.1 or ::1",
            )
        forward = Forward()
        try:
            run = await self.run()
            transport = await self.door.services.control.streams.open(
                run, "", port, forward.far, use=Use.BULK, user=self.user, door="ssh", source=self.source
            )
        except AtollError as error:
            raise asyncssh.ChannelOpenError(OPEN_CONNECT_FAILED, error.message) from None
        forward.opened(transport)
        return forward

    def _end(self, why: str) -> None:
        # First of all the reason: `disconnect` closes the channels before it gives one, and a client that reads so far
        # and no further leaves without a word.
        code = asyncssh.DISC_BY_APPLICATION
        self._connection.send_packet(MSG_DISCONNECT, UInt32(code), String(why), String(DEFAULT_LANG))
        self._connection.disconnect(code, why)


class _Far(asyncio.Protocol):
    """A stream's end here, told to the channel it belongs to."""

    def __init__(self, channel: "Forward | Program") -> None:
        self._channel = channel

    def data_received(self, data: bytes) -> None:
        self._channel.far_data(data)

    def eof_received(self) -> bool:
        self._channel.far_ended()
        return True

    def pause_writing(self) -> None:
        self._channel.far_full(full=True)

    def resume_writing(self) -> None:
        self._channel.far_full(full=False)

    def connection_lost(self, exc: Exception | None) -> None:
        self._channel.far_lost(exc)


class _Channel:
    """What programs and ports have in common: a stream on one side, an SSH channel on the other, no more than that."""

    def __init__(self) -> None:
        self.far = _Far(cast("Forward | Program", self))
        self._stream: asyncio.Transport | None = None
        self._chan: Any = None
        self._full = False

    def connection_made(self, chan: Any) -> None:
        """The channel is open."""
        self._chan = chan

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """The channel is closed: so is the stream."""
        self._chan = None
        if self._stream is not None:
            self._stream.close()

    def pause_writing(self) -> None:
        """The client reads too slowly."""
        self._full = True
        if self._stream is not None and not self._stream.is_closing():
            self._stream.pause_reading()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._full = False
        if self._stream is not None and not self._stream.is_closing():
            self._stream.resume_reading()

    def far_full(self, *, full: bool) -> None:
        """The stream takes no more, or again."""
        if self._chan is not None:
            self._chan.pause_reading() if full else self._chan.resume_reading()

    def _open(self) -> bool:
        return self._chan is not None and not self._chan.is_closing()

    def _write(self, data: bytes) -> None:
        if self._stream is not None and not self._stream.is_closing():
            self._stream.write(data)


class Forward(_Channel, asyncssh.SSHTCPSession[bytes]):
    """A port of the session: bytes both ways."""

    def opened(self, stream: asyncio.Transport) -> None:
        """The stream is there; nothing is read from it before the channel is."""
        self._stream = stream
        stream.pause_reading()

    def session_started(self) -> None:
        """The channel is there."""
        if self._stream is not None and not self._full:
            self._stream.resume_reading()

    def data_received(self, data: bytes, datatype: object) -> None:  # noqa: ARG002
        """Bytes from the client."""
        self._write(data)

    def eof_received(self) -> bool:
        """The client has said all it had to."""
        if self._stream is not None and self._stream.can_write_eof():
            self._stream.write_eof()
        return True

    def far_data(self, data: bytes) -> None:
        """Bytes from the session."""
        if self._open():
            self._chan.write(data)

    def far_ended(self) -> None:
        """The session has said all it had to."""
        if self._open():
            self._chan.write_eof()

    def far_lost(self, exc: Exception | None) -> None:
        """The stream is over."""
        self._stream = None
        if self._chan is not None:
            self._chan.abort() if exc else self._chan.close()


class Program(_Channel, asyncssh.SSHServerSession[bytes]):
    """A program beside the session: its order, its three channels, its end."""

    def __init__(self, entrance: Entrance) -> None:
        super().__init__()
        self._entrance = entrance
        self._decoder = Decoder()
        self._terminal = ""
        self._size = Size()
        self._command = self._subsystem = ""
        self._exited = False
        self._early: list[bytes] = []
        self._opening: asyncio.Task[None] | None = None

    def pty_requested(self, term_type: str, term_size: tuple[int, int, int, int], term_modes: object) -> bool:  # noqa: ARG002
        """The program shall have a terminal."""
        self._terminal = term_type or "dumb"
        self._size = Size(*term_size)
        return True

    def shell_requested(self) -> bool:
        """The user's shell."""
        return True

    def exec_requested(self, command: str) -> bool:
        """A command of the user's shell."""
        self._command = command
        return True

    def subsystem_requested(self, subsystem: str) -> bool:
        """A subsystem; there is one."""
        self._subsystem = subsystem
        return subsystem == "sftp"

    def session_started(self) -> None:
        """Everything is known: start it. What the client sends meanwhile, a window at most, is kept."""
        self._opening = asyncio.get_running_loop().create_task(self._start(), name="ssh program")

    async def _start(self) -> None:
        order = Order(
            command=self._command,
            subsystem=self._subsystem,
            terminal=self._terminal,
            size=self._size,
            env=dict(self._chan.get_environment()),
        )
        try:
            run = await self._entrance.run()
            stream = await self._entrance.door.services.control.streams.open(
                run,
                "",
                0,
                self.far,
                use=Use.BULK,
                exec=True,
                user=self._entrance.user,
                door="ssh",
                source=self._entrance.source,
            )
            self._stream = stream
            self._write(b"".join([frames.told(Kind.ORDER, order), *self._early]))
            self._early.clear()
        except AtollError as error:
            self._fail(f"{error.text}\n", error.exit_code)
        except ExecError as error:
            self._fail(f"error: {error}\n", REFUSED)
        else:
            if self._chan is None:
                stream.abort()

    def _say(self, frame: bytes) -> None:
        if self._stream is not None:
            self._write(frame)
        elif not self._exited:
            self._early.append(frame)

    def connection_lost(self, exc: Exception | None) -> None:
        """The channel is closed; a program that has not ended is hung up."""
        if self._stream is not None and not self._exited:
            self._stream.abort()
        super().connection_lost(exc)

    def _fail(self, sentence: str, code: int) -> None:
        self._exited = True
        if self._open():
            self._chan.write(sentence.encode(), asyncssh.EXTENDED_DATA_STDERR)
            self._chan.exit(code)

    # From the client.

    def data_received(self, data: bytes, datatype: object) -> None:  # noqa: ARG002
        """Input for the program."""
        self._say(frames.frames(Kind.INPUT, data))

    def eof_received(self) -> bool:
        """No more of it."""
        self._say(frames.frame(Kind.INPUT_END))
        return True

    def terminal_size_changed(self, width: int, height: int, pixwidth: int, pixheight: int) -> None:
        """Its window has another size."""
        self._say(frames.told(Kind.RESIZE, Size(width, height, pixwidth, pixheight)))

    def signal_received(self, signal: str) -> None:
        """A signal for it."""
        self._say(frames.frame(Kind.SIGNAL, signal.encode()[:32]))

    def break_received(self, msec: int) -> bool:  # noqa: ARG002
        """A break: as good as an interrupt."""
        self._say(frames.frame(Kind.SIGNAL, b"INT"))
        return True

    # From the agent.

    def far_data(self, data: bytes) -> None:
        """Frames of the agent's."""
        try:
            for kind, payload in self._decoder.feed(data):
                self._take(kind, payload)
        except ExecError as error:
            self._fail(f"error: the agent said something unexpected: {error}\n", REFUSED)
            if self._stream is not None:
                self._stream.abort()

    def _take(self, kind: Kind, payload: bytes) -> None:
        if not self._open():
            return
        if kind is Kind.OUTPUT:
            self._chan.write(payload)
        elif kind is Kind.ERRORS:
            self._chan.write(payload, asyncssh.EXTENDED_DATA_STDERR)
        elif kind is Kind.FAILED:
            self._fail(f"error: {payload.decode(errors='replace')}\n", REFUSED)
        elif kind is Kind.EXIT:
            end = frames.read(payload, Exit)
            self._exited = True
            if end.signal:
                self._chan.exit_with_signal(end.signal)
            else:
                self._chan.exit(end.code)
        else:
            raise ExecError(f"{kind.name} does not belong here")

    def far_ended(self) -> None:
        """Nothing more comes of the agent: its last frame was `EXIT`, or this is no good end."""
        self.far_lost(None)

    def far_lost(self, exc: Exception | None) -> None:
        """The stream is over, perhaps before the program was."""
        self._stream = None
        if not self._exited:
            why = str(exc) if exc else "the way to it was lost"
            lost = Unavailable(f"the session ended, or its agent is gone: {why}", hint="see `atoll ps`")
            self._fail(f"{lost.text}\n", lost.exit_code)
