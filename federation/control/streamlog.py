"""What becomes a record of a user's streams: each its own while they are few, sums by window when they are many. Pure.

A flood of streams fills neither the memory nor the store: beyond so many records a minute of one user in one session,
and of all, further streams are added up, and beyond so many sums into one. Nothing is left out of the sums but a stream
whose agent is lost before it could tell of its end.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import count
from typing import TypeAlias

from atoll.clock import Chance, Clock
from atoll.errors import AtollError
from atoll.ids import new_id
from atoll.streamrecord import Sighting, StreamRecord, StreamState
from federation.control import sightings

RECORD = "st"
CONTROL = "control"
"""Who tells of what came in by the control plane's own door."""
OWN_LIMIT = 20
"""Records of their own for one user's streams to one session that begin within `MINUTE_S`."""
ALL_LIMIT = 300
"""The same of all users."""
SUMS_LIMIT = 500
"""Most sums of one window; what is further is added to one for all."""
PAGES_LIMIT = 5000
"""Most records in memory: streams that go on, and what could not be stored yet. Beyond it there is one sum for all."""
MINUTE_S = 60.0
WINDOW_S = 300.0
STORE_S = 60.0
"""What goes on is stored anew this often."""
RESUME_S = 150.0
"""A stream whose doors have all told of its end, and of which its agent has not told for this long, is over."""
SILENT_S = 900.0
"""So is one of which nobody at all has told for this long: what is open is told every minute."""
RESERVED_S = 600.0
"""What has a record of its own keeps the right to it for this long: as long as a grant is good."""
_TEXT = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """Who goes where, from where: the fields of `StreamRecord` that are known beforehand."""

    door: str
    user: str = ""
    project: str = ""
    session: str = ""
    run: str = ""
    app: str = ""
    port: int = 0
    exec: bool = False
    source: str = ""


class Entry:
    """One stream that is being recorded, by itself or in a sum; or one of which no record is kept."""

    def __init__(self, page: "Page", over: "Over") -> None:
        self._page = page
        self._tell = over
        self._over = False

    @classmethod
    def none(cls) -> "Entry":
        """Return one that leads to no record."""
        return cls(Page(StreamRecord(id="", state=StreamState.OPEN)), lambda _page, _reason, _message: None)

    def lane(self, lane: str) -> None:
        """It took a lane."""
        row = self._page.row
        if lane and lane not in row.lanes:
            self._page.change(lanes=(*row.lanes, lane))

    def carried(self, received: int, sent: int) -> None:
        """Add bytes that came from the session and that went there."""
        row = self._page.row
        self._page.change(received=row.received + received, sent=row.sent + sent)

    def resumed(self, times: int = 1) -> None:
        """It went on after a lost lane."""
        if times:
            self._page.change(resumed=self._page.row.resumed + times)

    def ended(self, reason: str = "", message: str = "") -> None:
        """It is over; well to say twice."""
        if not self._over:
            self._over = True
            self._tell(self._page, reason, message)


class Page:
    """A record in the making: `row` as it is now, `dirty` until that is stored; `open` are its streams that go on.

    `growing` are sums of the present window; `owed` is what somebody waits for; `heard_at` when it was last told of.
    """

    def __init__(self, row: StreamRecord) -> None:
        self.row = row
        self.dirty = True
        self.stored_at: float | None = None
        self.open = 1
        self.growing = False
        self.owed = False
        self.heard_at = 0.0

    @property
    def shared(self) -> bool:
        """Whether a record of that id may have been stored before."""
        return bool(self.row.seen) or self.row.state is StreamState.PERMITTED

    def ripe(self, now: float) -> bool:
        """Say whether it is to be stored now."""
        over = not (self.growing or self.open)
        return self.dirty and (over or self.owed or self.stored_at is None or now >= self.stored_at + STORE_S)

    def change(self, **fields: object) -> None:
        """Replace fields of the row."""
        self.row = replace(self.row, **fields)  # type: ignore[arg-type]
        self.dirty = True


Over: TypeAlias = Callable[[Page, str, str], None]


class StreamLog:
    """All streams of this process. `on_news` is called when there is something to store."""

    def __init__(self, clock: Clock, chance: Chance) -> None:
        self._clock = clock
        self._chance = chance
        self._pages: dict[str, Page] = {}
        self._tellers: dict[str, dict[str, Page]] = {}
        self._boots: dict[str, str] = {}
        self._reserved: dict[str, float] = {}
        self._counted: dict[str, float] = {}
        self._here = f"{CONTROL}/{new_id('b', chance)}"
        self._numbers = count()
        self._sums: dict[tuple[object, ...], Page] = {}
        self._window = 0.0
        self._minute = 0.0
        self._own: dict[tuple[str, str], int] = {}
        self._all = 0
        self.on_news = _nothing

    def began(self, visit: Visit, *, sum_up: bool = False) -> Entry:
        """A stream begins that has its one way here. `sum_up` makes no record of its own."""
        now = self._clock.now()
        if sum_up or not self._has_room(visit, now):
            page = self._sum(visit, StreamState.SUMMED, "", now)
        else:
            page = self._page(visit, StreamState.OPEN, now)
        self.on_news()
        return Entry(page, self._ended)

    def permitted(self, visit: Visit, stream: bytes) -> None:
        """Somebody was permitted a stream of that id; who carries it tells by `saw` what came of it."""
        now = self._clock.now()
        key = _key(visit, stream)
        if key not in self._pages and self._may_have(key, visit, now):
            page = self._page(visit, StreamState.PERMITTED, now, key)
            page.open = 0
            page.change(ended_at=now)
            self.on_news()

    def begins(self) -> Sighting:
        """Return the sighting of a connection that begins at the control plane's own door."""
        return Sighting(by=f"{self._here}/{next(self._numbers)}", began_at=self._clock.now())

    def saw(self, visit: Visit, stream: bytes, sighting: Sighting) -> Page | None:
        """Somebody tells of a stream of that id, perhaps again; return where that is kept, None where it is not.

        Of streams without room for a record of their own, the agents' last word is added to the sums.
        """
        now = self._clock.now()
        key = _key(visit, stream)
        page = self._pages.get(key)
        if page is None:
            if not self._may_have(key, visit, now):
                return self._add_up(key, visit, sighting, now)
            page = self._page(visit, StreamState.OPEN, now, key)
        self._see(page, sightings.seen(page.row, replace(sighting, message=_clean(sighting.message))), now)
        self.on_news()
        return page

    def adopt(self, row: StreamRecord) -> bool:
        """Go on with a stored record that is open elsewhere; False where there are too many."""
        if row.id in self._pages:
            return True
        if len(self._pages) >= PAGES_LIMIT:
            return False
        page = self._pages[row.id] = Page(row)
        self._see(page, row, self._clock.now())
        page.dirty = False
        return True

    def attends(self, teller: str, boot: str) -> None:
        """A relay or an agent tells from now on by this process: what another one of it left open is over."""
        if self._boots.get(teller) == boot:
            return
        self._boots[teller] = boot
        now = self._clock.now()
        for page in list(self._tellers.get(teller, {}).values()):
            former = {
                each.by
                for each in page.row.seen
                if sightings.teller_of(each) == teller and not each.by.startswith(f"{teller}/{boot}/")
            }
            self._see(page, sightings.unseen(page.row, former, now, "the process that carried it has ended"), now)
            self.on_news()

    def _see(self, page: Page, row: StreamRecord, now: float) -> None:
        """Take a record that somebody told of, and note whose word is awaited."""
        before, after = sightings.open_tellers(page.row), sightings.open_tellers(row)
        for teller in before - after:
            self._tellers.get(teller, {}).pop(row.id, None)
            if not self._tellers.get(teller):
                self._tellers.pop(teller, None)
        page.dirty = page.dirty or row is not page.row
        page.row, page.heard_at = row, now
        self._await(page)
        self._reserved[row.id] = now + RESERVED_S

    def _await(self, page: Page) -> None:
        awaited = sightings.open_tellers(page.row)
        for teller in awaited:
            self._tellers.setdefault(teller, {})[page.row.id] = page
        page.open = len(awaited)

    def _add_up(self, key: str, visit: Visit, sighting: Sighting, now: float) -> Page | None:
        if not sighting.whole or sighting.ended_at is None or key in self._counted:
            return None
        self._counted[key] = now + RESERVED_S
        page = self._sum(visit, StreamState.SUMMED, "", now)
        page.open -= 1
        row = page.row
        page.change(ended_at=now, received=row.received + sighting.received, sent=row.sent + sighting.sent)
        self.on_news()
        return page

    @contextmanager
    def refusals(self, visit: Visit) -> Iterator[None]:
        """Record an `AtollError` that ends this block as a refusal."""
        try:
            yield
        except AtollError as error:
            self.refused(visit, error.reason, error.message)
            raise

    def refused(self, visit: Visit, reason: str, message: str) -> None:
        """Somebody who is known was not let through."""
        now = self._clock.now()
        if self._has_room(visit, now):
            page = self._page(visit, StreamState.REFUSED, now)
            page.change(reason=reason, message=_clean(message), ended_at=now)
        else:
            self._sum(visit, StreamState.REFUSED, reason, now).change(ended_at=now)
        self.on_news()

    def _ended(self, page: Page, reason: str, message: str) -> None:
        now = self._clock.now()
        page.open -= 1
        if page.row.state is StreamState.SUMMED:
            page.change(ended_at=now)
        elif page.open <= 0:
            page.change(state=StreamState.ENDED, ended_at=now, reason=reason, message=_clean(message))
        self.on_news()

    def due(self) -> list[Page]:
        """Return what is to be stored now. Who has stored one says so by `stored`."""
        now = self._clock.now()
        self._turn(now)
        self._tidy(now)
        return [page for page in self._pages.values() if page.ripe(now)]

    def unstored(self) -> list[Page]:
        """Return everything that is not stored as it is now."""
        return [page for page in self._pages.values() if page.dirty]

    def stored(self, page: Page, row: StreamRecord, written: StreamRecord) -> None:
        """`row` of a page is stored as `written`; what changed meanwhile is stored later."""
        page.dirty = page.row is not row
        page.owed = page.owed and page.dirty
        page.row = sightings.joined(written, page.row)
        page.stored_at = self._clock.now()
        if page.row.seen:
            self._await(page)

    def _turn(self, now: float) -> None:
        """Begin a new window of sums when the last one is over."""
        if now >= self._window + WINDOW_S:
            for page in self._sums.values():
                page.growing = False
            self._sums.clear()
            self._window = now

    def _tidy(self, now: float) -> None:
        """Give up what nobody tells of any more, and forget what is over and stored."""
        for page in {id(page): page for pages in self._tellers.values() for page in pages.values()}.values():
            if now >= page.heard_at + _patience(page.row):
                elsewhere = sightings.open_tellers(page.row) - {CONTROL}
                lost = sightings.unseen(page.row, [f"{each}/" for each in elsewhere], now, "nobody told of its end")
                self._see(page, lost, now)
        for reserved in (self._reserved, self._counted):
            for key in [key for key, until in reserved.items() if now >= until]:
                del reserved[key]
        for key, page in list(self._pages.items()):
            if not (page.dirty or page.open or page.growing):
                del self._pages[key]

    def _may_have(self, key: str, visit: Visit, now: float) -> bool:
        """Say whether a stream has a record of its own, or there is room for one."""
        if key in self._counted:
            return False
        if key in self._reserved and len(self._pages) < PAGES_LIMIT:
            return True
        if not self._has_room(visit, now):
            return False
        self._reserved[key] = now + RESERVED_S
        return True

    def _has_room(self, visit: Visit, now: float) -> bool:
        if now >= self._minute + MINUTE_S:
            self._minute, self._all = now, 0
            self._own.clear()
        whose = visit.user, visit.session
        if self._all >= ALL_LIMIT or self._own.get(whose, 0) >= OWN_LIMIT or len(self._pages) >= PAGES_LIMIT:
            return False
        self._own[whose] = self._own.get(whose, 0) + 1
        self._all += 1
        return True

    def _page(self, visit: Visit, state: StreamState, now: float, key: str = "") -> Page:
        row = StreamRecord(
            id=key or new_id(RECORD, self._chance),
            state=state,
            project=visit.project,
            session=visit.session,
            run=visit.run,
            user=visit.user,
            door=visit.door,
            app=visit.app,
            port=visit.port,
            exec=visit.exec,
            source=visit.source,
            began_at=now,
        )
        page = self._pages[row.id] = Page(row)
        if state is StreamState.REFUSED:
            page.open = 0
        return page

    def _sum(self, visit: Visit, state: StreamState, reason: str, now: float) -> Page:
        """Return the page to which a stream is added, after counting it there."""
        self._turn(now)
        key: tuple[object, ...] = (
            state, reason, visit.project, visit.session, visit.user, visit.door, visit.app, visit.exec
        )  # fmt: skip
        if key not in self._sums and (len(self._sums) >= SUMS_LIMIT or len(self._pages) >= PAGES_LIMIT):
            visit, key = Visit(door=""), (state,)
            reason = ""
        page = self._sums.get(key)
        if page is None:
            page = self._sums[key] = self._page(visit, state, now)
            page.change(streams=0, reason=reason)
            page.growing, page.open = True, 0
        row = page.row
        page.open += state is StreamState.SUMMED
        page.change(
            streams=row.streams + 1,
            port=row.port if row.port == visit.port else 0,
            source=row.source if row.source == visit.source else "several",
        )
        return page


def _key(visit: Visit, stream: bytes) -> str:
    return sightings.record_id(RECORD, (visit.user, visit.run, visit.app, visit.port), stream)


def _patience(row: StreamRecord) -> float:
    """Return how long to wait for who has not told: while a door has it open, it may be cut off from us and go on."""
    return SILENT_S if any(each.ended_at is None and not each.whole for each in row.seen) else RESUME_S


def _clean(text: str) -> str:
    """Return a message as one short line: it may come from an agent."""
    return "".join(each if each.isprintable() else " " for each in text)[:_TEXT]


def _nothing() -> None:
    """Do nothing."""
