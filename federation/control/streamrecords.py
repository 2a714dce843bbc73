"""Keeps the records of users' streams: stored in batches, looked up, and no more of them than so many."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from atoll.streamrecord import StreamRecord, StreamState
from federation.control import sightings
from federation.control.changes import Change, Changes
from federation.control.streamlog import CONTROL, Page, StreamLog

FLUSH_S = 2.0
"""News wait this long for more of them: a short stream is one write."""
RETRY_S = 30.0
"""What could not be stored is tried again after this at the latest."""
BATCH = 200
KEPT = 50_000
"""Records kept; the oldest go first."""
_TRIM = 1000


class StreamRecords:
    """Stores what `log` has to tell; `round` is a reconciler's, woken by news."""

    def __init__(self, changes: Changes, log: StreamLog, *, kept: int = KEPT) -> None:
        self._changes = changes
        self._log = log
        self._kept = kept
        self._lock = asyncio.Lock()
        self._recovered = False
        self._news_at: float | None = None
        self._new = 0
        self._awaited: dict[str, tuple[Sequence[Page], Callable[[], None]]] = {}

    def acknowledge(self, teller: str, pages: Sequence[Page], say: Callable[[], None]) -> None:
        """Call `say` once these pages are stored as they are now, unless the same teller asks again before.

        Sums that still grow are not waited for.
        """
        owed = [page for page in pages if page.dirty and not page.growing]
        for page in owed:
            page.owed = True
        if owed:
            self._awaited[teller] = (owed, say)
            self._log.on_news()
        else:
            self._awaited.pop(teller, None)
            say()

    async def list(
        self, *, project: str = "", session: str = "", user: str = "", after: str = "", limit: int = 100
    ) -> list[StreamRecord]:
        """Return records, newest first, of a project, a session, a user where given."""
        await self.flush()
        given = {"project": project, "session": session, "user": user}
        where: dict[str, str | Sequence[str]] = {column: value for column, value in given.items() if value}
        async with self._changes.look() as tx:
            return await tx.find(StreamRecord, newest=True, after=after, limit=limit, **where)

    async def round(self) -> float | None:
        """Store what is due; return when there is more, in seconds."""
        await self._recover()
        if not (self._log.unstored() or self._awaited):
            self._log.due()  # what nobody tells of any more is over at some time
            return None
        now = self._changes.clock.monotonic()
        if self._news_at is None:
            self._news_at = now
        if now < self._news_at + FLUSH_S:
            return self._news_at + FLUSH_S - now
        self._news_at = None
        await self._store(self._log.due)
        if self._new >= _TRIM:
            await self._trim()
        return FLUSH_S if self._log.unstored() or self._awaited else None

    async def flush(self) -> None:
        """Store everything now."""
        await self._recover()
        await self._store(self._log.unstored)

    async def _store(self, which: Callable[[], Sequence[Page]]) -> None:
        async with self._lock:
            pages = which()
            for start in range(0, len(pages), BATCH):
                batch = [(page, page.row) for page in pages[start : start + BATCH]]
                async with self._changes.commit("streams.record") as change:
                    written = [await _written(change, page, row) for page, row in batch]
                for (page, row), kept in zip(batch, written, strict=True):
                    self._new += kept.version == 1
                    self._log.stored(page, row, kept)
            for teller, (awaited, say) in list(self._awaited.items()):
                if not any(page.owed for page in awaited):
                    del self._awaited[teller]
                    say()

    async def _recover(self) -> None:
        """Streams whose end was here cannot be open any more after another process; of others one may yet hear."""
        async with self._lock:
            if self._recovered:
                return
            async with self._changes.look() as tx:
                left = await tx.find(StreamRecord, state=StreamState.OPEN)
            if left:
                async with self._changes.commit("streams.recover") as change:
                    kept = [await change.tx.update(_ended(row, change.now)) for row in left]
                for row in kept:
                    if sightings.open_tellers(row):
                        self._log.adopt(row)
            self._recovered = True

    async def _trim(self) -> None:
        async with self._changes.commit("streams.trim") as change:
            beyond = sum((await change.tx.tally(StreamRecord, "state")).values()) - self._kept
            for row in await change.tx.find(StreamRecord, limit=beyond) if beyond > 0 else ():
                await change.tx.delete(StreamRecord, row.id)
        self._new = 0


async def _written(change: Change, page: Page, row: StreamRecord) -> StreamRecord:
    """A record may be there without our knowing it, and one that we know may have been the oldest and be gone."""
    old = await change.tx.get(StreamRecord, row.id) if row.version or page.shared else None
    if old is None:
        return await change.tx.insert(replace(row, version=0))
    return await change.tx.update(sightings.joined(old, row) if page.shared else row)


def _ended(row: StreamRecord, now: float) -> StreamRecord:
    told = "the control plane ended before this stream did: its bytes were not counted"
    if row.seen:
        return sightings.unseen(row, [f"{CONTROL}/"], now, told)
    return replace(row, state=StreamState.ENDED, ended_at=now, reason="UNKNOWN", message=told)
