"""What becomes a record: streams by themselves while they are few, sums when they are many; bounded whatever comes."""

from dataclasses import dataclass, replace

import pytest

from atoll.errors import Forbidden
from atoll.streamrecord import StreamRecord, StreamState
from federation.control import streamlog
from federation.control.streamlog import StreamLog, Visit
from tests.tunnel.ends import SeededChance

ADA = Visit(door="ssh", user="ada", project="default", session="s-1", run="s-1.1.0", port=22, source="192.0.2.1")


@dataclass
class Clock:
    time: float = 1000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


class Book:
    """A log, and the table that its records go to."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.log = StreamLog(self.clock, SeededChance())
        self.rows: dict[str, StreamRecord] = {}
        self.writes = 0

    def store(self) -> list[StreamRecord]:
        for page in self.log.due():
            row = page.row
            assert row.version == (self.rows[row.id].version if row.id in self.rows else 0)
            kept = self.rows[row.id] = replace(row, version=row.version + 1)
            self.log.stored(page, row, kept)
            self.writes += 1
        return list(self.rows.values())


def test_a_stream_that_goes_on_is_told_at_its_beginning_and_at_its_end() -> None:
    book = Book()
    entry = book.log.began(ADA)
    entry.lane("mux")
    (row,) = book.store()
    assert (row.state, row.user, row.port, row.source, row.lanes, row.ended_at) == (
        StreamState.OPEN, "ada", 22, "192.0.2.1", ("mux",), None,
    )  # fmt: skip
    book.clock.time += 50
    entry.lane("data")
    entry.carried(7, 8)
    entry.resumed(2)
    entry.ended("RESET", "refused\nby the agent")
    entry.ended("", "again")
    (row,) = book.store()
    assert (row.state, row.lanes, row.received, row.sent, row.resumed) == (
        StreamState.ENDED, ("mux", "data"), 7, 8, 2,
    )  # fmt: skip
    assert (row.reason, row.message, row.ended_at) == ("RESET", "refused by the agent", 1050.0)
    assert book.writes == 2
    assert book.log.unstored() == []


def test_a_short_stream_is_one_write() -> None:
    book = Book()
    book.log.began(ADA).ended()
    assert [row.state for row in book.store()] == [StreamState.ENDED]
    assert book.writes == 1


def test_a_stream_that_comes_again_goes_on_with_its_record() -> None:
    book = Book()
    book.log.permitted(ADA, "id")
    assert [row.state for row in book.store()] == [StreamState.PERMITTED]
    for source in ("192.0.2.1", "198.51.100.9"):
        book.clock.time += streamlog.RESUME_S - 1
        entry = book.log.began(replace(ADA, source=source), stream="id")
        entry.carried(1, 2)
        entry.ended()
    (row,) = book.store()
    assert (row.state, row.resumed, row.received, row.source) == (StreamState.ENDED, 1, 2, "198.51.100.9")
    book.clock.time += streamlog.RESUME_S + 1
    book.store()
    book.log.began(ADA, stream="id")
    assert len(book.store()) == 2


def test_two_lanes_of_one_stream_at_a_time_end_it_together() -> None:
    book = Book()
    old, new = book.log.began(ADA, stream="id"), book.log.began(ADA, stream="id")
    old.ended("RESET", "lost")
    assert [row.state for row in book.store()] == [StreamState.OPEN]
    new.ended()
    assert [(row.state, row.reason) for row in book.store()] == [(StreamState.ENDED, "")]


def test_requests_of_an_app_are_summed_by_window() -> None:
    book = Book()
    web = Visit(door="app", user="ada", session="s-1", app="web", source="192.0.2.1")
    for number in range(1000):
        entry = book.log.began(replace(web, source=f"192.0.2.{number % 2}"), sum_up=True)
        entry.carried(10, 1)
        entry.ended()
        book.clock.time += 0.1
        book.store()
    (row,) = book.store()
    book.clock.time += streamlog.STORE_S
    (row,) = book.store()
    assert (row.state, row.streams, row.received, row.sent, row.source) == (
        StreamState.SUMMED, 1000, 10_000, 1000, "several",
    )  # fmt: skip
    assert book.writes <= 4
    book.clock.time += streamlog.WINDOW_S
    book.log.began(web, sum_up=True).ended()
    assert len(book.store()) == 2


def test_a_refusal_is_recorded_with_its_reason() -> None:
    book = Book()
    with pytest.raises(Forbidden), book.log.refusals(ADA):
        raise Forbidden("nb belongs to bo", reason="FORBIDDEN")
    (row,) = book.store()
    assert (row.state, row.reason, row.message, row.ended_at) == (
        StreamState.REFUSED, "FORBIDDEN", "nb belongs to bo", 1000.0,
    )  # fmt: skip


def test_a_flood_fills_neither_the_store_nor_the_memory_and_every_stream_is_counted() -> None:
    book = Book()
    count = 0
    for minute in range(12):
        for number in range(3000):
            visit = replace(ADA, user=f"u{number % 700}", session=f"s-{number % 900}", port=number % 60000 + 1)
            if number % 3:
                book.log.began(visit).ended()
            else:
                book.log.refused(visit, f"R{number % 4}", "no")
            count += 1
        book.store()
        book.clock.time = 1000.0 + 60.0 * (minute + 1)
    book.clock.time += streamlog.WINDOW_S
    rows = book.store()
    assert sum(row.streams for row in rows) == count
    assert len(rows) <= 12 * streamlog.ALL_LIMIT + 4 * (streamlog.SUMS_LIMIT + 2)
    assert len(book.log._pages) <= streamlog.PAGES_LIMIT
    own = [row for row in rows if row.streams == 1 and row.state is StreamState.ENDED]
    assert sum(row.user == "u1" for row in own if row.began_at < 1060.0) <= streamlog.OWN_LIMIT


def test_one_user_cannot_use_up_the_records_of_others() -> None:
    book = Book()
    for _ in range(1000):
        book.log.began(ADA).ended()
    book.log.began(replace(ADA, user="bo", source="198.51.100.1")).ended()
    own = [row for row in book.store() if row.state is StreamState.ENDED]
    assert [row.user for row in own] == ["ada"] * streamlog.OWN_LIMIT + ["bo"]


def test_while_nothing_can_be_stored_the_memory_stays_bounded() -> None:
    book = Book()
    for minute in range(40):
        for number in range(streamlog.ALL_LIMIT):
            book.log.began(replace(ADA, session=f"s-{number}")).ended()
        book.clock.time = 1000.0 + 60.0 * minute
    assert len(book.log._pages) <= streamlog.PAGES_LIMIT + 2 * 40
    rows = book.store()
    assert sum(row.streams for row in rows) == 40 * streamlog.ALL_LIMIT


def test_what_changes_while_it_is_stored_is_stored_afterwards() -> None:
    book = Book()
    entry = book.log.began(ADA)
    (page,) = book.log.due()
    before = page.row
    entry.carried(1, 1)
    book.log.stored(page, before, replace(before, version=1))
    assert (page.dirty, page.row.version, page.row.received) == (True, 1, 1)
