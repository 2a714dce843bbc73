"""A terminal's input, on asyncio's loop and on uvloop's: they differ in what a write pipe is."""

import asyncio
import os
import tty
from collections.abc import Iterator

import pytest

from agent.terminal import HIGH, TerminalInput


class Told(asyncio.BaseProtocol):
    def __init__(self) -> None:
        self.said: list[str] = []

    def pause_writing(self) -> None:
        self.said.append("pause")

    def resume_writing(self) -> None:
        self.said.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.said.append(f"lost {exc}")


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


async def read(descriptor: int, size: int) -> bytes:
    seen = b""
    async with asyncio.timeout(60):
        while len(seen) < size:
            seen += await asyncio.to_thread(os.read, descriptor, 65536)
    return seen


def test_all_that_is_written_arrives_and_a_slow_program_holds_the_sender_back(
    runner: asyncio.Runner, terminal: tuple[int, int]
) -> None:
    ours, theirs = terminal
    sent = bytes(n % 251 for n in range(2 * HIGH))

    async def work() -> None:
        told = Told()
        stream = TerminalInput(ours, told)
        stream.write(sent[:10])
        assert await read(theirs, 10) == sent[:10]
        assert told.said == []
        stream.write(sent)
        assert told.said == ["pause"]
        assert await read(theirs, len(sent)) == sent
        assert told.said == ["pause", "resume"]

    runner.run(work())


def test_what_the_program_writes_is_not_taken(runner: asyncio.Runner, terminal: tuple[int, int]) -> None:
    ours, theirs = terminal

    async def work() -> None:
        stream = TerminalInput(ours, Told())
        os.write(theirs, b"output")
        stream.write(b"input")
        assert await read(theirs, 5) == b"input"
        assert os.read(ours, 100) == b"output"

    runner.run(work())


def test_the_end_is_told_once(runner: asyncio.Runner, terminal: tuple[int, int]) -> None:
    ours, _ = terminal

    async def work() -> None:
        told = Told()
        stream = TerminalInput(ours, told)
        stream.write(bytes(2 * HIGH))
        stream.abort()
        stream.close()
        stream.write(b"more")
        await asyncio.sleep(0)
        assert stream.is_closing()
        assert told.said == ["pause", "lost None"]

    runner.run(work())
