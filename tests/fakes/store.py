"""A store and log store in memory: deterministic, without threads, with hooks for crashes and faults."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

from atoll.errors import Unavailable
from atoll.event import Event
from atoll.offer import Decision
from atoll.token import Token
from federation.ports import R, Row, Written
from federation.store import kinds
from federation.store.kinds import KINDS, Kind
from federation.store.logs import gap_line

Hook = Callable[[str], Awaitable[None]]
Place = tuple[type[Row], str]


@dataclass(slots=True)
class _Memory:
    """What is committed: it outlives the store object, as a disk outlives a process."""

    rows: dict[type[Row], dict[str, Row]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    created: dict[Place, float] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    decisions: dict[str, tuple[tuple[float, Decision], ...]] = field(default_factory=dict)
    answers: dict[str, tuple[str, str, float]] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)


class MemoryStore:
    """A `Store` in memory. Transactions run one after the other, in the order in which they were asked for.

    `on_commit` is awaited before (`before:<writes>`) and after (`after:<writes>`) each commit that writes,
    e.g. `before:session.update,event.append`; what it raises before the commit undoes the transaction, what
    it raises after does not. `on_call` is awaited before each operation with its name (`get`, `find`,
    `update`, …) and may fail or delay it.
    """

    def __init__(self, *, on_commit: Hook | None = None, on_call: Hook | None = None) -> None:
        self.on_commit = on_commit
        self.on_call = on_call
        self.commits = 0
        self._memory = _Memory()
        self._lock = asyncio.Lock()
        self._holder: asyncio.Task[Any] | None = None
        self._closed = False

    def restarted(self) -> "MemoryStore":
        """Return a store over what is committed, as a new process would find it; this one fails from now on."""
        self._closed = True
        store = MemoryStore(on_commit=self.on_commit, on_call=self.on_call)
        store._memory = self._memory
        return store

    def rows(self, kind: type[R]) -> list[R]:
        """Return the committed rows in the order of their insertion, without a transaction: for checkers."""
        return cast("list[R]", list(self._memory.rows[kind].values()))

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["MemoryTransaction"]:
        """Open a transaction; all its writes commit when the block ends without an error."""
        task = asyncio.current_task()
        if task is not None and task is self._holder:
            raise RuntimeError("this task has a transaction open already")
        async with self._lock:
            self._check()
            self._holder = task
            transaction = MemoryTransaction(self._memory, self._call)
            try:
                yield transaction
                await self._commit(transaction)
            finally:
                transaction.open = False
                self._holder = None

    async def _commit(self, transaction: "MemoryTransaction") -> None:
        self._check()
        if not transaction.writes:
            return
        writes = ",".join(transaction.writes)
        if self.on_commit is not None:
            await self.on_commit(f"before:{writes}")
            self._check()
        transaction.apply()
        self.commits += 1
        if self.on_commit is not None:
            await self.on_commit(f"after:{writes}")

    async def _call(self, name: str) -> None:
        self._check()
        if self.on_call is not None:
            await self.on_call(name)
            self._check()

    async def events(self, since: int, limit: int = 500, kinds: Sequence[str] = ()) -> list[Event]:
        """Return committed events with `rev > since`, in order."""
        await self._call("events")
        wanted = [event for event in self._memory.events[max(0, since) :] if not kinds or event.kind in kinds]
        return wanted[:limit]

    async def last_rev(self) -> int:
        """Return the rev of the newest event, 0 when there is none."""
        await self._call("last_rev")
        return len(self._memory.events)

    async def close(self) -> None:
        """Refuse all further use; what is committed stays for `restarted`."""
        self._closed = True

    def _check(self) -> None:
        if self._closed:
            raise Unavailable("the store is closed")


class MemoryTransaction:
    """A `Transaction` whose writes lie over the committed rows until it commits."""

    def __init__(self, memory: _Memory, call: Hook) -> None:
        self.open = True
        self.writes: list[str] = []
        self.written: list[Written] = []
        self._memory = memory
        self._call = call
        self._rows: dict[Place, Row | None] = {}
        self._created: dict[Place, float] = {}
        self._events: list[Event] = []
        self._decisions: dict[str, tuple[tuple[float, Decision], ...]] = {}
        self._answers: dict[str, tuple[str, str, float]] = {}
        self._settings: dict[str, str] = {}

    async def get(self, kind: type[R], key: str) -> R | None:
        """Return the row, or None."""
        await self._enter("get")
        return self._row(kind, key)

    async def find(
        self, kind: type[R], /, *, after: str = "", limit: int = 0, newest: bool = False, **where: str | Sequence[str]
    ) -> list[R]:
        """Return the rows that match, ordered by creation then key."""
        wanted = KINDS[kind].check(where)
        await self._enter("find")
        rows = {key: row for key, row in self._memory.rows[kind].items() if (kind, key) not in self._rows}
        rows |= {key: row for (of, key), row in self._rows.items() if of is kind and row is not None}
        order = {key: (self._created_at(kind, key), key) for key in rows}
        if after and after not in order:
            raise kinds.no_such_page(KINDS[kind], after)
        found = sorted((key for key, row in rows.items() if _matches(KINDS[kind], row, wanted)), key=order.__getitem__)
        if after:
            edge = order[after]
            found = [key for key in found if (order[key] < edge if newest else order[key] > edge)]
        if newest:
            found.reverse()
        return cast("list[R]", [rows[key] for key in (found[:limit] if limit else found)])

    async def tally(self, kind: type[Row], column: str) -> dict[str, int]:
        """Return how many rows there are for each value of an indexed column."""
        KINDS[kind].check({column: ""})
        counts = Counter(KINDS[kind].values_of(row)[column] for row in await self.find(kind))  # type: ignore[type-var]
        return dict(sorted(counts.items()))

    async def insert(self, row: R) -> R:
        """Add a row and return it with version 1; raise `Conflict` when its key exists."""
        kind = KINDS[type(row)]
        key = kind.key_of(row)
        await self._enter("insert", f"{kind.name}.insert")
        if self._row(type(row), key) is not None:
            raise kinds.exists(kind, key)
        kept = replace(row, version=1)
        self._rows[type(row), key] = kept
        self._created[type(row), key] = kind.created_of(row)
        self.written.append((type(row), key, kept))
        return kept

    async def update(self, row: R) -> R:
        """Replace the row whose version is still `row.version`, or raise `Stale`."""
        kind = KINDS[type(row)]
        key = kind.key_of(row)
        await self._enter("update", f"{kind.name}.update")
        now = self._row(type(row), key)
        if now is None or now.version != row.version:
            raise kinds.stale(kind, key)
        kept = replace(row, version=row.version + 1)
        self._rows[type(row), key] = kept
        self.written.append((type(row), key, kept))
        return kept

    async def delete(self, kind: type[R], key: str) -> None:
        """Remove a row; well if there is none."""
        await self._enter("delete", f"{KINDS[kind].name}.delete")
        self._rows[kind, key] = None
        self.written.append((kind, key, None))

    async def append(self, event: Event) -> None:
        """Add an event; it gets its `rev` at commit."""
        await self._enter("append", "event.append")
        self._events.append(event)

    async def decide(self, subject: str, decision: Decision, at: float) -> None:
        """Keep `decision` as the newest about `subject`; one equal to the newest only moves its time."""
        await self._enter("decide", "decision.keep")
        kept = self._decided(subject)
        if kept and kept[0][1] == decision:
            kept = kept[1:]
        self._decisions[subject] = ((at, decision), *kept)[: kinds.DECISIONS_KEPT]

    async def decisions(self, subject: str) -> list[tuple[float, Decision]]:
        """Return the decisions kept about `subject`, newest first."""
        await self._enter("decisions")
        return list(self._decided(subject))

    async def consume(self, token: str, now: float) -> Token | None:
        """Use up one use of a token that has uses left and has not expired."""
        await self._enter("consume", "token.consume")
        row = self._row(Token, token)
        if row is None or row.uses_left < 1 or (row.expires_at is not None and row.expires_at <= now):
            return None
        used = replace(row, uses_left=row.uses_left - 1, version=row.version + 1)
        self._rows[Token, token] = used
        return used

    async def remember(self, key: str, fingerprint: str, answer: str, at: float) -> None:
        """Keep the answer to an idempotent request; raise `Conflict` when the key has one."""
        await self._enter("remember", "answer.keep")
        kept = self._answer(key)
        if kept is not None and kept[2] >= at - kinds.ANSWERS_KEPT_S:
            raise kinds.remembered(key)
        self._answers[key] = (fingerprint, answer, at)

    async def recall(self, key: str) -> tuple[str, str] | None:
        """Return `(fingerprint, answer)` kept under an idempotency key, or None."""
        await self._enter("recall")
        kept = self._answer(key)
        return None if kept is None else kept[:2]

    async def setting(self, name: str) -> str | None:
        """Return a value kept for the installation, or None."""
        await self._enter("setting")
        return self._settings.get(name, self._memory.settings.get(name))

    async def set(self, name: str, value: str) -> None:
        """Keep a value for the installation."""
        await self._enter("set", "setting.set")
        self._settings[name] = value

    def apply(self) -> None:
        """Make all writes of this transaction the committed state, at once."""
        memory = self._memory
        for (kind, key), row in self._rows.items():
            if row is None:
                memory.rows[kind].pop(key, None)
                memory.created.pop((kind, key), None)
            else:
                memory.rows[kind][key] = row
        memory.created |= {place: at for place, at in self._created.items() if self._rows[place] is not None}
        for event in self._events:
            memory.events.append(replace(event, rev=len(memory.events) + 1))
        memory.decisions |= self._decisions
        memory.answers |= self._answers
        memory.settings |= self._settings

    async def _enter(self, name: str, write: str = "") -> None:
        if not self.open:
            raise RuntimeError("the transaction has ended")
        await self._call(name)
        if write:
            self.writes.append(write)

    def _row(self, kind: type[R], key: str) -> R | None:
        if (kind, key) in self._rows:
            return cast("R | None", self._rows[kind, key])
        return cast("R | None", self._memory.rows[kind].get(key))

    def _created_at(self, kind: type[Row], key: str) -> float:
        place = (kind, key)
        return self._created[place] if place in self._created else self._memory.created[place]

    def _decided(self, subject: str) -> tuple[tuple[float, Decision], ...]:
        return self._decisions.get(subject) or self._memory.decisions.get(subject, ())

    def _answer(self, key: str) -> tuple[str, str, float] | None:
        return self._answers.get(key) or self._memory.answers.get(key)


def _matches(kind: Kind, row: Row, where: dict[str, tuple[str, ...]]) -> bool:
    for column, values in where.items():
        if column in kind.sets:
            if kinds.agents_of(row).isdisjoint(values):
                return False
        elif getattr(row, column) not in values:
            return False
    return True


class MemoryLogs:
    """A `LogStore` in memory. `on_write` is awaited before each write with the run id, and may fail it."""

    def __init__(self, *, on_write: Hook | None = None) -> None:
        self.on_write = on_write
        self._kept: dict[tuple[str, str], bytearray] = {}

    async def size(self, run: str, channel: str) -> int:
        """Return how many bytes are kept."""
        return len(self._kept.get((run, channel), b""))

    async def write(self, run: str, channel: str, offset: int, data: bytes) -> int:
        """Keep `data` at `offset`; return the new size. A gap is said in one line and padded with NULs."""
        if self.on_write is not None:
            await self.on_write(run)
        kept = self._kept.setdefault((run, channel), bytearray())
        if offset > len(kept):
            missing = offset - len(kept)
            kept += gap_line(missing).ljust(missing, b"\0")
        kept += data[max(0, len(kept) - offset) :]
        return len(kept)

    async def read(self, run: str, channel: str, offset: int, limit: int) -> bytes:
        """Return up to `limit` bytes from `offset`; empty at the end."""
        return bytes(self._kept.get((run, channel), b"")[offset : offset + limit])
