"""What becomes a record of a user's streams: each its own while they are few, sums by window when they are many. Pure.

A flood of streams fills neither the memory nor the store: beyond so many records a minute of one user in one session,
and of all, further streams are added up, and beyond so many sums into one. Nothing is left out of the sums.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeAlias

from atoll.clock import Chance, Clock
from atoll.errors import AtollError
from atoll.ids import new_id
from atoll.streamrecord import StreamRecord, StreamState

RECORD = "st"
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
RESUME_S = 90.0
"""A resumable stream that comes again within this goes on with its record."""
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

    `growing` are sums of the present window, `awaited` a stream's that may come again.
    """

    def __init__(self, row: StreamRecord) -> None:
        self.row = row
        self.dirty = True
        self.stored_at: float | None = None
        self.open = 1
        self.growing = False
        self.awaited = False

    def ripe(self, now: float) -> bool:
        """Say whether it is to be stored now."""
        over = not (self.growing or self.open)
        return self.dirty and (over or self.stored_at is None or now >= self.stored_at + STORE_S)

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
        self._streams: dict[str, Page] = {}
        self._sums: dict[tuple[object, ...], Page] = {}
        self._window = 0.0
        self._minute = 0.0
        self._own: dict[tuple[str, str], int] = {}
        self._all = 0
        self.on_news = _nothing

    def began(self, visit: Visit, *, stream: str = "", sum_up: bool = False) -> Entry:
        """A stream begins. `stream` names one that may come again by another lane; `sum_up` makes no own record."""
        now = self._clock.now()
        page = self._streams.get(stream) if stream else None
        if page is not None:
            page.open += 1
            again = page.row.state is not StreamState.PERMITTED
            resumed = page.row.resumed + again
            page.change(state=StreamState.OPEN, ended_at=None, resumed=resumed, source=visit.source, reason="")
        elif sum_up or not self._has_room(visit, now):
            page = self._sum(visit, StreamState.SUMMED, "", now)
        else:
            page = self._page(visit, StreamState.OPEN, now)
            if stream:
                self._streams[stream] = page
                page.awaited = True
        self.on_news()
        return Entry(page, self._ended)

    def permitted(self, visit: Visit, stream: str) -> None:
        """Somebody was permitted a stream of that id; whether it begins here is told by `began`."""
        now = self._clock.now()
        if stream not in self._streams and self._has_room(visit, now):
            page = self._streams[stream] = self._page(visit, StreamState.PERMITTED, now)
            page.open, page.awaited = 0, True
            page.change(ended_at=now)
            self.on_news()

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
        page.row = replace(page.row, version=written.version)
        page.stored_at = self._clock.now()

    def _turn(self, now: float) -> None:
        """Begin a new window of sums when the last one is over."""
        if now >= self._window + WINDOW_S:
            for page in self._sums.values():
                page.growing = False
            self._sums.clear()
            self._window = now

    def _tidy(self, now: float) -> None:
        """Forget what is over and stored."""
        for stream, page in list(self._streams.items()):
            if page.row.ended_at is not None and now >= page.row.ended_at + RESUME_S:
                page.awaited = False
                del self._streams[stream]
        for key, page in list(self._pages.items()):
            if not (page.dirty or page.open or page.growing or page.awaited):
                del self._pages[key]

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

    def _page(self, visit: Visit, state: StreamState, now: float) -> Page:
        row = StreamRecord(
            id=new_id(RECORD, self._chance),
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


def _clean(text: str) -> str:
    """Return a message as one short line: it may come from an agent."""
    return "".join(each if each.isprintable() else " " for each in text)[:_TEXT]


def _nothing() -> None:
    """Do nothing."""
