"""Programs beside a run, for real: channels, terminals, signals, and that nothing of them outlives what it should."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from agent.events import RuntimeExited, RuntimeStarted, StartFailed
from agent.exec import ExecLeg, login_shell
from agent.runtime import shim
from agent.runtime.process import ProcessRuntime
from atoll.session import SessionSpec
from atoll.slots import Slots
from tunnel import exec as frames
from tunnel.exec import Decoder, Exit, Kind, Order, Size

RUN = f"s-{os.getpid():010d}.2.0"


class Site:
    """A run, `sleep`, that is entered over streams; it watches the runtime."""

    def __init__(self, folder: Path) -> None:
        self.over = False
        self.started = False
        self.folder = folder
        self.runtime = ProcessRuntime(folder, None)
        self.runtime.attach(self)

    def observed(self, event: RuntimeStarted | RuntimeExited | StartFailed, /) -> None:
        self.started = self.started or isinstance(event, RuntimeStarted)
        self.over = self.over or isinstance(event, RuntimeExited)

    def grown(self, run: str, channel: str, size: int, /) -> None: ...

    @property
    def shim(self) -> int:
        identity = self.runtime._folder(RUN).identity
        assert identity is not None
        return identity.shim

    async def until(self, what: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not what():
                await asyncio.sleep(0.02)

    async def enter(self, order: Order) -> "Stream":
        near, far = socket.socketpair()
        await asyncio.get_running_loop().create_connection(lambda: ExecLeg(self.runtime, RUN), sock=far)
        stream = Stream(*await asyncio.open_connection(sock=near))
        stream.writer.write(frames.told(Kind.ORDER, order))
        return stream


class Stream:
    """The other end of a stream: what it heard, by kind."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.decoder = Decoder()
        self.heard: dict[Kind, bytes] = {}

    def say(self, kind: Kind, payload: bytes = b"") -> None:
        self.writer.write(frames.frames(kind, payload))

    async def until(self, kind: Kind, text: bytes = b"") -> bytes:
        async with asyncio.timeout(60):
            while kind not in self.heard or text not in self.heard[kind]:
                data = await self.reader.read(1 << 18)
                assert data, self.heard
                for found, payload in self.decoder.feed(data):
                    self.heard[found] = self.heard.get(found, b"") + payload
        return self.heard[kind]

    async def end(self) -> Exit:
        exit_ = frames.read(await self.until(Kind.EXIT), Exit)
        self.writer.close()
        return exit_


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(tmp_path / ("deep" * 30))  # longer than a socket's name may be
    site.runtime.spawn(RUN, SessionSpec(command=("sleep", "600"), env={"MINE": "1"}), Slots(), {})
    await site.until(lambda: site.started)
    yield site
    site.runtime.kill(RUN)
    await site.until(lambda: site.over)
    assert shim.descendants(site.shim) == []
    site.runtime.close()


async def test_a_command_has_the_run_s_environment_and_directory(site: Site) -> None:
    stream = await site.enter(Order("echo $MINE $LANG $ATOLL_RUN; pwd; echo oops >&2; exit 7", env={"LANG": "C"}))
    assert await stream.end() == Exit(code=7)
    assert stream.heard[Kind.OUTPUT].decode() == f"1 C {RUN}\n{site.folder / RUN / 'work'}\n"
    assert stream.heard[Kind.ERRORS] == b"oops\n"


async def test_input_comes_back_byte_for_byte(site: Site) -> None:
    data = os.urandom(3_000_000)
    stream = await site.enter(Order("cat"))
    stream.say(Kind.INPUT, data)
    stream.say(Kind.INPUT_END)
    assert await stream.end() == Exit()
    assert stream.heard[Kind.OUTPUT] == data


async def test_a_reader_that_wants_no_more_is_no_trouble(site: Site) -> None:
    stream = await site.enter(Order("head -c 3; sleep 0.2; exit 4"))
    stream.say(Kind.INPUT, b"abc" * 300_000)
    assert await stream.end() == Exit(code=4)
    assert stream.heard[Kind.OUTPUT] == b"abc"


async def test_a_terminal_is_one(site: Site) -> None:
    stream = await site.enter(
        Order("stty size; read x; stty size; echo $TERM; tty", terminal="vt100", size=Size(90, 20))
    )
    await stream.until(Kind.OUTPUT, b"20 90")
    stream.writer.write(frames.told(Kind.RESIZE, Size(100, 30)))
    stream.say(Kind.INPUT, b"\n")
    assert await stream.end() == Exit()
    assert b"30 100\r\nvt100\r\n/dev/pts/" in stream.heard[Kind.OUTPUT]


async def test_control_c_reaches_the_foreground(site: Site) -> None:
    stream = await site.enter(Order("trap 'echo caught; exit 5' INT; echo ready; sleep 60 & wait", terminal="dumb"))
    await stream.until(Kind.OUTPUT, b"ready")
    stream.say(Kind.INPUT, b"\x03")
    assert await stream.end() == Exit(code=5)


async def test_signals_reach_the_group_and_are_told(site: Site) -> None:
    stream = await site.enter(Order("echo ready; sleep 60"))
    await stream.until(Kind.OUTPUT, b"ready")
    stream.say(Kind.SIGNAL, b"NONSENSE")
    stream.say(Kind.SIGNAL, b"TERM")
    assert await stream.end() == Exit(signal="TERM")


async def test_who_hangs_up_ends_the_program_but_not_what_it_left_behind(site: Site) -> None:
    before = set(shim.descendants(site.shim))
    stream = await site.enter(Order("setsid sleep 601 >/dev/null 2>&1 & trap '' TERM; echo ready; sleep 602; true"))
    await stream.until(Kind.OUTPUT, b"ready")
    await site.until(lambda: len(set(shim.descendants(site.shim)) - before) == 3)
    stream.writer.transport.abort()
    await site.until(lambda: len(set(shim.descendants(site.shim)) - before) == 1)


async def test_an_agent_that_is_gone_has_hung_up_and_the_next_one_enters(site: Site) -> None:
    before = set(shim.descendants(site.shim))
    stream = await site.enter(Order("echo ready; sleep 603"))
    await stream.until(Kind.OUTPUT, b"ready")
    stream.writer.transport.abort()
    await site.until(lambda: set(shim.descendants(site.shim)) == before)
    site.runtime.close()
    site.started = False
    site.runtime = ProcessRuntime(site.folder, None)
    site.runtime.attach(site)
    site.runtime.adopt([RUN])
    await site.until(lambda: site.started)
    assert await (await site.enter(Order("exit 9"))).end() == Exit(code=9)


async def test_everything_ends_with_the_run(site: Site) -> None:
    stream = await site.enter(Order("trap '' TERM HUP; echo ready; sleep 604"))
    await stream.until(Kind.OUTPUT, b"ready")
    site.runtime.kill(RUN)
    assert await stream.end() == Exit(signal="KILL")
    await site.until(lambda: site.over)


async def test_what_cannot_be_started_is_said(site: Site) -> None:
    nope = await site.enter(Order(subsystem="nope"))
    assert await nope.until(Kind.FAILED) == b"there is no subsystem nope here"
    nul = await site.enter(Order("a\0b"))
    assert b"NUL" in await nul.until(Kind.FAILED)
    nope.writer.close()
    nul.writer.close()


async def test_frames_that_do_not_belong_end_the_stream(site: Site) -> None:
    near, far = socket.socketpair()
    await asyncio.get_running_loop().create_connection(lambda: ExecLeg(site.runtime, RUN), sock=far)
    reader, writer = await asyncio.open_connection(sock=near)
    writer.write(frames.frame(Kind.INPUT, b"x"))
    assert await reader.read() == b""
    writer.close()


async def test_a_supervisor_of_an_older_agent_is_not_signalled(site: Site) -> None:
    os.kill(site.shim, 0)
    live = site.runtime._runs[RUN]
    real, live.shim = live.shim, os.getpid()  # a process that does not catch the signal, and would be ended by it
    try:
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL
        with pytest.raises(OSError, match="older agent"):
            await site.runtime.enter(RUN, ["true"], {}, [0, 1, 2], tty=False)
    finally:
        live.shim = real


def test_the_shell_is_one_that_lets_people_in() -> None:
    assert os.access(login_shell(), os.X_OK)
