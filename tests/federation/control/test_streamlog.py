"""What becomes a record: streams by themselves while they are few, sums when they are many; bounded whatever comes."""

from dataclasses import dataclass, replace

import pytest

from atoll.errors import Forbidden
from atoll.streamrecord import Sighting, StreamRecord, StreamState
from federation.control import sightings, streamlog
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
            row, old = page.row, self.rows.get(page.row.id)
            if old is not None and page.shared and not row.version:
                row = sightings.joined(old, row)
            assert row.version == (old.version if old else 0)
            kept = self.rows[row.id] = replace(row, version=row.version + 1)
            row = page.row
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


def told(book: Book, number: int, *, source: str = "192.0.2.1", teller: str = "r-1/b1", **more: object) -> Sighting:
    """Return what a door tells of a connection."""
    return Sighting(by=f"{teller}/{number}", via="east", lane="data", source=source, began_at=book.clock.time, **more)  # type: ignore[arg-type]


def ended(book: Book, sighting: Sighting, **more: object) -> Sighting:
    return replace(sighting, ended_at=book.clock.time, **more)  # type: ignore[arg-type]


def test_a_stream_that_comes_again_by_other_ways_is_one_record() -> None:
    book = Book()
    book.log.permitted(ADA, b"id")
    assert [row.state for row in book.store()] == [StreamState.PERMITTED]
    for number, source in enumerate(("192.0.2.1", "198.51.100.9")):
        book.clock.time += 30
        sighting = told(book, number, source=source, received=1, sent=2)
        for each in (sighting, sighting, ended(book, sighting)):
            book.log.saw(replace(ADA, source=source), b"id", each)
    (row,) = book.store()
    assert (row.state, row.resumed, row.received, row.sent, row.source, row.lanes) == (
        StreamState.ENDED, 1, 2, 4, "198.51.100.9", ("data",),
    )  # fmt: skip
    assert [each.by for each in row.seen] == ["r-1/b1/0", "r-1/b1/1"]


def test_a_record_that_was_forgotten_is_joined_when_more_is_told_of_it() -> None:
    book = Book()
    first = told(book, 1, received=5)
    book.log.saw(ADA, b"id", ended(book, first))
    book.store()
    book.clock.time += 1000
    assert book.store()
    assert book.log.unstored() == []
    assert not book.log._pages
    book.log.saw(ADA, b"id", ended(book, told(book, 2, received=7)))
    (row,) = book.store()
    assert (row.received, row.resumed, row.version) == (12, 1, 2)
    book.log.saw(ADA, b"id", ended(book, first))
    (row,) = book.store()
    assert (row.received, row.resumed) == (12, 1)


def test_the_agents_word_counts_for_the_whole_stream() -> None:
    book = Book()
    whole = Sighting(by="a-1/b1/1", whole=True, began_at=book.clock.time)
    book.log.saw(ADA, b"id", whole)
    door = told(book, 1, received=999)
    book.log.saw(ADA, b"id", ended(book, door, reason="UNAVAILABLE"))
    assert [row.state for row in book.store()] == [StreamState.OPEN]
    book.clock.time += 9
    book.log.saw(ADA, b"id", ended(book, whole, received=100, sent=50, resumed=3, reason="RESET"))
    (row,) = book.store()
    assert (row.state, row.received, row.sent, row.resumed, row.reason, row.ended_at) == (
        StreamState.ENDED, 100, 50, 3, "RESET", 1009.0,
    )  # fmt: skip


def test_what_a_dead_process_left_open_is_closed_when_another_tells() -> None:
    book = Book()
    book.log.saw(ADA, b"id", told(book, 1, received=7))
    book.log.attends("r-1", "b1")
    book.log.attends("r-2", "b9")
    assert [row.state for row in book.store()] == [StreamState.OPEN]
    book.clock.time += 5
    book.log.attends("r-1", "b2")
    (row,) = book.store()
    assert (row.state, row.reason, row.received, row.ended_at) == (StreamState.ENDED, "UNSEEN", 7, 1005.0)
    assert not book.log._tellers


@pytest.mark.parametrize(("whole", "seconds"), [(False, streamlog.SILENT_S), (True, streamlog.RESUME_S)])
def test_a_stream_of_which_nobody_tells_any_more_is_over_at_some_time(whole: bool, seconds: float) -> None:
    book = Book()
    sighting = told(book, 1)
    book.log.saw(ADA, b"id", replace(sighting, whole=whole))
    book.clock.time += seconds - 1
    assert [row.state for row in book.store()] == [StreamState.OPEN]
    book.clock.time += 1
    book.store()
    assert [(row.state, row.reason) for row in book.store()] == [(StreamState.ENDED, "UNSEEN")]
    book.log.saw(ADA, b"id", replace(ended(book, sighting, received=3), whole=whole))
    assert [(row.reason, row.received) for row in book.store()] == [("", 3)]


def test_another_user_who_names_the_same_stream_touches_nothing() -> None:
    book = Book()
    book.log.saw(ADA, b"id", told(book, 1, received=7))
    for other in (replace(ADA, user="eve"), replace(ADA, run="s-2.1.0"), replace(ADA, port=23)):
        book.log.saw(other, b"id", ended(book, told(book, 1)))
    rows = book.store()
    assert len(rows) == 4
    assert [row.state for row in rows if row.received] == [StreamState.OPEN]


def test_however_many_ways_a_stream_went_its_record_stays_small_and_its_bytes_are_counted() -> None:
    book = Book()
    for number in range(100):
        sighting = told(book, number, source=f"192.0.2.{number % 3}", received=2, sent=1)
        book.log.saw(ADA, b"id", sighting)
        book.clock.time += 1
        book.log.saw(ADA, b"id", ended(book, sighting))
    (row,) = book.store()
    assert (row.received, row.sent, row.resumed) == (200, 100, 99)
    assert len(row.seen) == sightings.SEEN_LIMIT
    for number in range(1000):
        book.log.saw(ADA, b"made up", told(book, number))
    assert all(len(page.row.seen) <= sightings.SEEN_LIMIT for page in book.log.unstored())


def test_of_streams_beyond_the_limit_the_agents_last_word_is_summed_once() -> None:
    book = Book()
    for number in range(streamlog.OWN_LIMIT):
        book.log.permitted(ADA, bytes([number]))
    for number in range(streamlog.OWN_LIMIT + 10):
        stream = bytes([number])
        book.log.saw(ADA, stream, ended(book, told(book, number, received=1)))
        whole = Sighting(by=f"a-1/b1/{number}", whole=True, began_at=book.clock.time, received=100)
        book.log.saw(ADA, stream, whole)
        for _ in range(2):
            book.log.saw(ADA, stream, ended(book, whole))
    rows = book.store()
    own = [row for row in rows if row.state is StreamState.ENDED]
    (total,) = [row for row in rows if row.state is StreamState.SUMMED]
    assert (len(own), {row.received for row in own}) == (streamlog.OWN_LIMIT, {100})
    assert (total.streams, total.received) == (10, 1000)


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
