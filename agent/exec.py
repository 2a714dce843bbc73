"""Programs that users run beside a session: one stream of the control plane, one guest of the run."""

import asyncio
import contextlib
import fcntl
import os
import pwd
import shutil
import signal
import struct
import termios
from collections.abc import Sequence
from typing import IO, cast

from agent.runtime.port import Guest, Runtime
from agent.terminal import TerminalInput
from tunnel import exec as frames
from tunnel.exec import Decoder, ExecError, Exit, Kind, Order, Size

LINGER_S = 0.25
"""A terminal that others still hold open is read for this long after its program has ended."""
CLOSE_S = 5.0
"""After the last frame the other side closes the stream; it is closed here when that takes longer."""
ENV_LIMIT = 100
SFTP_SERVERS = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/libexec/sftp-server")
_BEFORE = {Kind.ORDER}
_AFTER = {Kind.INPUT, Kind.INPUT_END, Kind.RESIZE, Kind.SIGNAL}
_NO_SHELLS = ("nologin", "false")
_END_OF_INPUT = b"\x04"


class ExecLeg(asyncio.Protocol):
    """The stream's protocol: takes an order, starts it as a guest of the run, and carries its three channels."""

    def __init__(self, runtime: Runtime, run: str) -> None:
        self._runtime = runtime
        self._run = run
        self._decoder = Decoder()
        self._stream: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._guest: Guest | None = None
        self._input: asyncio.WriteTransport | None = None
        self._outputs: list[_Output] = []
        self._early: list[tuple[Kind, bytes]] = []
        self._terminal = False

    # What the stream tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The stream is open: its first frame is the order."""
        self._stream = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Frames came."""
        try:
            for kind, payload in self._decoder.feed(data):
                self._take(kind, payload)
        except ExecError:
            self._abort()

    def eof_received(self) -> bool:
        """The other side has hung up: the end of the input is a frame of its own."""
        return False

    def pause_writing(self) -> None:
        """The stream is full: the program has to wait."""
        for output in self._outputs:
            output.pause()

    def resume_writing(self) -> None:
        """The stream takes bytes again."""
        for output in self._outputs:
            output.resume()

    def connection_lost(self, _error: Exception | None) -> None:
        """The stream is over: so is the program, if it still runs."""
        self._stream = None
        if self._task is not None:
            self._task.cancel()

    # Frames.

    def _take(self, kind: Kind, payload: bytes) -> None:
        if kind not in (_AFTER if self._task else _BEFORE):
            raise ExecError(f"{kind.name} does not belong here")
        if kind is Kind.ORDER:
            order = frames.read(payload, Order)
            self._task = asyncio.get_running_loop().create_task(self._serve(order), name="exec")
            self._hold()
        elif self._guest is None:
            self._early.append((kind, payload))  # the stream is held back: these came with the order
        elif kind is Kind.INPUT:
            if self._input is not None and not self._input.is_closing():
                self._input.write(payload)
        elif kind is Kind.INPUT_END:
            self._end_input()
        elif kind is Kind.RESIZE:
            self._resize(frames.read(payload, Size))
        else:
            number = getattr(signal, f"SIG{payload.decode('ascii', 'replace')}", None)
            if isinstance(number, signal.Signals):
                self._guest.signal(number)

    def _send(self, data: bytes) -> None:
        if self._stream is not None and not self._stream.is_closing():
            self._stream.write(data)

    def _hold(self) -> None:
        if self._stream is not None:
            self._stream.pause_reading()

    def _go_on(self) -> None:
        if self._stream is not None and not self._stream.is_closing():
            self._stream.resume_reading()

    def _abort(self) -> None:
        if self._stream is not None:
            self._stream.abort()

    # The program.

    async def _serve(self, order: Order) -> None:
        try:
            await self._run_program(order)
            self._go_on()
            # Closing now could cost the other side its last frames, where what it still sends is not read here.
            await asyncio.sleep(CLOSE_S)
        finally:
            if self._stream is not None:
                self._stream.close()

    async def _run_program(self, order: Order) -> None:
        channels = Channels(order)
        try:
            argv, env = command(order)
            self._terminal = bool(order.terminal)
            self._guest = await self._runtime.enter(self._run, argv, env, channels.theirs, tty=self._terminal)
            channels.started()
            await self._connect(channels)
            early, self._early = self._early, []
            for kind, payload in early:
                self._take(kind, payload)
            self._go_on()
            code = await self._guest.ended()
            await self._drain()
        except (OSError, ExecError) as error:
            sentence = (error.strerror if isinstance(error, OSError) else None) or str(error)
            self._send(frames.frame(Kind.FAILED, sentence.encode()))
        else:
            self._send(frames.told(Kind.EXIT, _exit(code)))
        finally:
            if self._guest is not None:
                self._guest.leave()
            if self._input is not None:
                self._input.abort()
            for output in self._outputs:
                if output.transport is not None:
                    output.transport.close()
            channels.close()

    async def _connect(self, channels: "Channels") -> None:
        loop = asyncio.get_running_loop()
        for kind, pipe in channels.outputs():
            output = _Output(self, kind)
            self._outputs.append(output)
            await loop.connect_read_pipe(lambda output=output: output, pipe)  # type: ignore[misc]
        if self._terminal:
            self._input = TerminalInput(channels.input().fileno(), _Input(self))
        else:
            self._input, _ = await loop.connect_write_pipe(lambda: _Input(self), channels.input())

    async def _drain(self) -> None:
        """Wait until all that the program wrote has been read: to the end of its pipes, which others may hold."""
        ends = [output.ended for output in self._outputs]
        if self._terminal:
            await asyncio.wait(ends, timeout=LINGER_S)
        else:
            await asyncio.wait(ends)

    def _end_input(self) -> None:
        if self._input is not None and not self._input.is_closing():
            if self._terminal:
                self._input.write(_END_OF_INPUT)
            else:
                self._input.close()

    def _resize(self, size: Size) -> None:
        if self._terminal and self._outputs and self._outputs[0].transport is not None:
            set_size(self._outputs[0].transport.get_extra_info("pipe").fileno(), size)


class _Output(asyncio.Protocol):
    """One channel that the program writes."""

    def __init__(self, leg: ExecLeg, kind: Kind) -> None:
        self._leg = leg
        self._kind = kind
        self.transport: asyncio.ReadTransport | None = None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.ReadTransport, transport)

    def data_received(self, data: bytes) -> None:
        self._leg._send(frames.frames(self._kind, data))

    def connection_lost(self, _error: Exception | None) -> None:
        self.transport = None
        if not self.ended.done():
            self.ended.set_result(None)

    def pause(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.pause_reading()

    def resume(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()


class _Input(asyncio.BaseProtocol):
    """The channel that the program reads: while it does not, the stream is held back."""

    def __init__(self, leg: ExecLeg) -> None:
        self._leg = leg

    def pause_writing(self) -> None:
        self._leg._hold()

    def resume_writing(self) -> None:
        self._leg._go_on()

    def connection_lost(self, _error: Exception | None) -> None:
        self._leg._input = None
        self._leg._go_on()  # it wants no more: what comes is dropped, but signals and sizes must still get through


class Channels:
    """The descriptors between a program and us: a terminal, or three pipes."""

    def __init__(self, order: Order) -> None:
        self._ours: list[IO[bytes]] = []
        self.theirs: list[int] = []
        """Its standard input, output and errors."""
        self._kinds: Sequence[Kind]
        if order.terminal:
            ours, theirs = os.openpty()
            set_size(ours, order.size)
            self._ours = [os.fdopen(ours, "rb", buffering=0), os.fdopen(os.dup(ours), "wb", buffering=0)]
            self.theirs = [theirs, theirs, theirs]
            self._kinds = (Kind.OUTPUT,)
        else:
            (stdin, w), (o, stdout), (e, stderr) = os.pipe(), os.pipe(), os.pipe()
            self._ours = [os.fdopen(o, "rb", buffering=0), os.fdopen(e, "rb", buffering=0)]
            self._ours.append(os.fdopen(w, "wb", buffering=0))
            self.theirs = [stdin, stdout, stderr]
            self._kinds = (Kind.OUTPUT, Kind.ERRORS)

    def outputs(self) -> list[tuple[Kind, IO[bytes]]]:
        """Return what it writes to, our ends."""
        return list(zip(self._kinds, self._ours, strict=False))

    def input(self) -> IO[bytes]:
        """Return what it reads from, our end."""
        return self._ours[-1]

    def started(self) -> None:
        """Close its ends here: it has its own now."""
        for descriptor in set(self.theirs):
            os.close(descriptor)
        self.theirs = []

    def close(self) -> None:
        """Close what is still open."""
        self.started()
        for file in self._ours:
            with contextlib.suppress(OSError):
                file.close()


def command(order: Order) -> tuple[list[str], dict[str, str]]:
    """Return the words to run and what to add to the environment; raise `OSError` where this machine cannot."""
    if len(order.env) > ENV_LIMIT:
        raise OSError(0, f"{len(order.env)} environment variables are too many")
    for word in (order.command, *order.env, *order.env.values()):
        if "\0" in word:
            raise OSError(0, "a NUL byte is in the command or its environment")
    env = {name: value for name, value in order.env.items() if name and "=" not in name}
    if order.terminal:
        env["TERM"] = order.terminal
    if order.subsystem:
        return [_subsystem(order.subsystem)], env
    shell = login_shell()
    env.setdefault("SHELL", shell)
    return ([shell, "-c", order.command] if order.command else [shell]), env


def login_shell() -> str:
    """Return this user's shell; `/bin/sh` where there is none that lets people in."""
    try:
        shell = pwd.getpwuid(os.getuid()).pw_shell
    except KeyError:
        shell = ""
    good = shell and os.access(shell, os.X_OK) and os.path.basename(shell) not in _NO_SHELLS  # noqa: PTH119
    return shell if good else "/bin/sh"


def set_size(terminal: int, size: Size) -> None:
    """Set a terminal's size; its foreground processes are told. Sizes out of range are cut."""
    cut = [max(0, min(65535, number)) for number in (size.rows, size.columns, size.width, size.height)]
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", *cut))


def _subsystem(name: str) -> str:
    if name != "sftp":
        raise OSError(0, f"there is no subsystem {name} here")
    for path in (*SFTP_SERVERS, shutil.which("sftp-server") or ""):
        if path and os.access(path, os.X_OK):
            return path
    raise OSError(
        0, "this machine has no sftp-server: install openssh-sftp-server there, or copy with rsync, or `scp -O`"
    )


def _exit(code: int) -> Exit:
    if code >= 0:
        return Exit(code=code)
    try:
        return Exit(signal=signal.Signals(-code).name.removeprefix("SIG"))
    except ValueError:
        return Exit(code=128 - code)
