"""Reports of streams: told soon and again, kept while nobody listens, never more than so many."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from tests.tunnel import virtual
from tunnel import wire
from tunnel.reports import BATCH, ENDED_LIMIT, NOTED_S, REPEAT_S, TELL_S, Account, Reports


class Listener:
    """Keeps what it is told, and notes it when asked to."""

    def __init__(self, made: Reports) -> None:
        self.reports = made
        self.heard: list[wire.StreamReports] = []
        self.notes = True

    def send(self, message: wire.Message) -> None:
        assert isinstance(message, wire.StreamReports)
        self.heard.append(message)
        if self.notes:
            asyncio.get_running_loop().call_soon(self.reports.noted, message.serial)

    @property
    def numbers(self) -> list[list[int]]:
        return [[each.number for each in message.reports] for message in self.heard]


def nothing(_account: Account) -> None:
    """Nothing is carried."""


def play(story: Callable[[Reports, Listener], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        made = Reports("b1")
        await story(made, Listener(made))
        made.unlinked()

    virtual.run(main())


def test_who_listens_is_told_at_once_that_there_is_nothing() -> None:
    async def story(made: Reports, ear: Listener) -> None:
        made.linked(ear.send)
        assert [(message.boot, message.reports) for message in ear.heard] == [("b1", [])]
        await asyncio.sleep(10 * REPEAT_S)
        assert len(ear.heard) == 1

    play(story)


def test_a_short_stream_is_told_of_once_and_a_long_one_again_and_again() -> None:
    async def story(made: Reports, ear: Listener) -> None:
        made.linked(ear.send)
        await asyncio.sleep(1)
        carried = {"bytes": 0}

        def look(account: Account) -> None:
            account.received = carried["bytes"]

        long = made.began(b"grant", look, source="192.0.2.1")
        short = made.began(b"other", nothing, whole=True)
        short.over("RESET", "gone")
        await asyncio.sleep(TELL_S + 0.1)
        assert ear.numbers == [[], [2, 1]]
        carried["bytes"] = 7
        await asyncio.sleep(2 * REPEAT_S + 1)
        assert ear.numbers[2:] == [[1], [1]]
        last = ear.heard[-1].reports[0]
        assert (last.received, last.lasted_s, last.source) == (7, None, "192.0.2.1")
        assert last.ago_s > 2 * REPEAT_S
        carried["bytes"] = 9
        long.over()
        carried["bytes"] = 100
        long.over("RESET", "again")
        await asyncio.sleep(TELL_S + 0.1)
        last = ear.heard[-1].reports[0]
        assert (last.received, last.reason) == (9, "")
        assert last.lasted_s is not None
        assert last.lasted_s < last.ago_s
        assert len(made) == 0

    play(story)


def test_what_is_not_noted_is_told_again_also_to_the_next_who_listens() -> None:
    async def story(made: Reports, ear: Listener) -> None:
        ear.notes = False
        made.linked(ear.send)
        made.began(b"grant", nothing).over()
        await asyncio.sleep(NOTED_S + 1)
        assert ear.numbers == [[], [1]]
        made.noted(1)  # too late: that was another time
        await asyncio.sleep(NOTED_S)
        assert ear.numbers == [[], [1], [1]]
        made.unlinked()
        await asyncio.sleep(NOTED_S + 1)
        assert len(ear.heard) == 3
        ear.notes = True
        made.linked(ear.send)
        await asyncio.sleep(1)
        assert ear.numbers == [[], [1], [1], [1]]
        assert len(made) == 0

    play(story)


def test_what_ends_while_it_is_being_told_is_told_with_its_end() -> None:
    async def story(made: Reports, ear: Listener) -> None:
        ear.notes = False
        account = made.began(b"grant", nothing)
        made.linked(ear.send)
        account.over()
        made.noted(1)
        assert len(made) == 1
        ear.notes = True
        await asyncio.sleep(TELL_S + 1)
        assert [each.lasted_s is None for message in ear.heard for each in message.reports] == [True, False]
        assert len(made) == 0

    play(story)


def test_while_nobody_listens_the_oldest_ends_are_dropped_and_counted() -> None:
    async def story(made: Reports, ear: Listener) -> None:
        for _ in range(ENDED_LIMIT + 5):
            made.began(b"grant", nothing).over()
        assert (len(made), made.lost) == (ENDED_LIMIT, 5)
        made.linked(ear.send)
        await asyncio.sleep(1)
        assert len(made) == 0
        assert {len(numbers) for numbers in ear.numbers} <= {BATCH, 0}
        assert [number for numbers in ear.numbers for number in numbers] == list(range(6, ENDED_LIMIT + 6))
        assert ear.heard[-1].lost == 5

    play(story)


def test_a_process_that_ends_tells_everything_without_waiting() -> None:
    async def story(made: Reports, ear: Listener) -> None:
        ear.notes = False
        made.linked(ear.send)
        accounts = [made.began(b"grant", nothing) for _ in range(2 * BATCH + 1)]
        for account in accounts:
            account.over()
        made.last()
        assert [len(numbers) for numbers in ear.numbers] == [0, BATCH, BATCH, 1]

    play(story)
