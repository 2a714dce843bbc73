"""One transaction in SQL: the same statements for SQLite and PostgreSQL."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import msgspec
from sqlalchemy import CursorResult, Executable, Select, Table, and_, delete, func, or_, select, text, tuple_, update
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from atoll.event import Event
from atoll.offer import Decision
from atoll.token import Token
from federation.ports import R, Row, Written
from federation.store import kinds
from federation.store.faults import told
from federation.store.kinds import KINDS
from federation.store.tables import ROWS, answers, decisions, events, session_agents, settings
from federation.store.undivided import undivided

_EVENT_ORDER = 0x61746F6C6C  # "atoll": the advisory lock that makes revs rise in commit order


class SqlTransaction:
    """A `Transaction` on an open connection. Events are written at the very end.

    Written last, they hold PostgreSQL's lock on the order of events for the shortest time, and no
    transaction waits for a row while it holds that lock: they cannot deadlock over it.
    """

    def __init__(self, connection: AsyncConnection, place: str) -> None:
        self._connection = connection
        self._place = place
        self._postgres = connection.dialect.name == "postgresql"
        self._insert: Any = sqlite.insert
        if self._postgres:
            from sqlalchemy.dialects import postgresql

            self._insert = postgresql.insert
        self._events: list[Event] = []
        self.written: list[Written] = []
        self._seen: dict[tuple[str, int], frozenset[str]] = {}
        self.open = True

    async def get(self, kind: type[R], key: str) -> R | None:
        """Return the row, or None."""
        found = await self._rows(kind, _select(kind).where(ROWS[kind].c.key == key))
        return found[0] if found else None

    async def find(
        self, kind: type[R], /, *, after: str = "", limit: int = 0, newest: bool = False, **where: str | Sequence[str]
    ) -> list[R]:
        """Return the rows that match, ordered by creation then key. Raises `Invalid` where `after` is no row."""
        table = ROWS[kind]
        query = _select(kind)
        for column, values in KINDS[kind].check(where).items():
            if column in KINDS[kind].sets:
                placed = select(session_agents.c.session).where(session_agents.c.agent.in_(values))
                query = query.where(table.c.key.in_(placed))
            else:
                query = query.where(table.c[column].in_(values))
        if after:
            query = query.where(await self._beyond(kind, after, newest=newest))
        order = (table.c.created.desc(), table.c.key.desc()) if newest else (table.c.created, table.c.key)
        return await self._rows(kind, query.order_by(*order).limit(limit or None))

    async def tally(self, kind: type[Row], column: str) -> dict[str, int]:
        """Return how many rows there are for each value of an indexed column."""
        KINDS[kind].check({column: ""})
        value = ROWS[kind].c[column]
        counted = select(value.label("value"), func.count().label("rows")).group_by(value).order_by(value)
        return {str(record.value): int(record.rows) for record in await self._run(counted)}

    async def insert(self, row: R) -> R:
        """Add a row and return it with `version` 1; raise `Conflict` when its key exists."""
        kind = KINDS[type(row)]
        key = kind.key_of(row)
        kept = replace(row, version=1)
        values = _values(kept) | {"key": key, "created": kind.created_of(row)}
        if not await self._insert_new(ROWS[type(row)], values):
            raise kinds.exists(kind, key)
        await self._place_session(kept, frozenset())
        self.written.append((type(row), key, kept))
        return kept

    async def update(self, row: R) -> R:
        """Replace the row whose version is still `row.version`; return the next version, or raise `Stale`."""
        kind, table = KINDS[type(row)], ROWS[type(row)]
        key = kind.key_of(row)
        before = await self._agents_of(row, key)
        kept = replace(row, version=row.version + 1)
        current = and_(table.c.key == key, table.c.version == row.version)
        result = await self._run(update(table).where(current).values(_values(kept)))
        if result.rowcount != 1:
            raise kinds.stale(kind, key)
        await self._place_session(kept, before)
        self.written.append((type(row), key, kept))
        return kept

    async def delete(self, kind: type[R], key: str) -> None:
        """Remove a row; well if there is none."""
        table = ROWS[kind]
        await self._run(delete(table).where(table.c.key == key))
        if KINDS[kind].sets:
            await self._run(delete(session_agents).where(session_agents.c.session == key))
        self.written.append((kind, key, None))

    async def append(self, event: Event) -> None:
        """Add an event; it gets its `rev` at commit."""
        self._check_open()
        self._events.append(event)

    async def decide(self, subject: str, decision: Decision, at: float) -> None:
        """Keep `decision` as the newest about `subject`; one equal to the newest only moves its time."""
        mine = decisions.c.subject == subject
        newest = select(decisions.c.id, decisions.c.body).where(mine).order_by(decisions.c.id.desc())
        last = (await self._run(newest.limit(1))).one_or_none()
        if last is not None and _DECODERS[Decision].decode(last.body) == decision:
            await self._run(update(decisions).where(decisions.c.id == last.id).values(at=at))
            return
        body = _encode(decision)
        await self._run(decisions.insert().inline().values(subject=subject, at=at, body=body))
        beyond = newest.with_only_columns(decisions.c.id).limit(1).offset(kinds.DECISIONS_KEPT).scalar_subquery()
        await self._run(delete(decisions).where(mine, decisions.c.id <= beyond))

    async def decisions(self, subject: str) -> list[tuple[float, Decision]]:
        """Return the decisions kept about `subject`, newest first, each with its time."""
        query = select(decisions.c.at, decisions.c.body).where(decisions.c.subject == subject)
        found = await self._run(query.order_by(decisions.c.id.desc()))
        return [(record.at, _DECODERS[Decision].decode(record.body)) for record in found]

    async def consume(self, token: str, now: float) -> Token | None:
        """Use up one use of a token that has uses left and has not expired; None if it has not."""
        table = ROWS[Token]
        usable = and_(
            table.c.key == token,
            table.c.uses_left > 0,
            or_(table.c.expires_at.is_(None), table.c.expires_at > now),
        )
        used = {"uses_left": table.c.uses_left - 1, "version": table.c.version + 1}
        result = await self._run(update(table).where(usable).values(used).returning(*_select(Token).selected_columns))
        record = result.one_or_none()
        return None if record is None else _decode(Token, record)

    async def remember(self, key: str, fingerprint: str, answer: str, at: float) -> None:
        """Keep the answer to an idempotent request; raise `Conflict` when the key has one."""
        await self.forget_answers(at)
        values = {"key": key, "fingerprint": fingerprint, "answer": answer, "at": at}
        if not await self._insert_new(answers, values):
            raise kinds.remembered(key)

    async def forget_answers(self, now: float) -> None:
        """Remove the answers that are older than they need to be kept."""
        await self._run(delete(answers).where(answers.c.at < now - kinds.ANSWERS_KEPT_S))

    async def recall(self, key: str) -> tuple[str, str] | None:
        """Return `(fingerprint, answer)` kept under an idempotency key, or None."""
        query = select(answers.c.fingerprint, answers.c.answer).where(answers.c.key == key)
        record = (await self._run(query)).one_or_none()
        return None if record is None else (record.fingerprint, record.answer)

    async def setting(self, name: str) -> str | None:
        """Return a value kept for the installation, or None."""
        result = await self._run(select(settings.c.value).where(settings.c.name == name))
        return cast("str | None", result.scalar_one_or_none())

    async def set(self, name: str, value: str) -> None:
        """Keep a value for the installation."""
        if not await self._insert_new(settings, {"name": name, "value": value}):
            await self._run(update(settings).where(settings.c.name == name).values(value=value))

    async def flush(self) -> None:
        """Write the events: the last statements of the transaction."""
        self._check_open()
        if not self._events:
            return
        if self._postgres:
            # Held until the commit is visible, so that nobody reads a rev before a lower one can appear.
            await self._run(text("SELECT pg_advisory_xact_lock(:order)").bindparams(order=_EVENT_ORDER))
        for event in self._events:
            await self._run(events.insert().inline().values(kind=event.kind, body=_encode(event)))

    async def _beyond(self, kind: type[Row], after: str, *, newest: bool) -> Any:
        table = ROWS[kind]
        edge = (await self._run(select(table.c.created).where(table.c.key == after))).one_or_none()
        if edge is None:
            raise kinds.no_such_page(KINDS[kind], after)
        place = tuple_(table.c.created, table.c.key)
        mark = tuple_(edge.created, after)
        return place < mark if newest else place > mark

    async def _agents_of(self, row: Row, key: str) -> frozenset[str]:
        if not KINDS[type(row)].sets:
            return frozenset()
        known = self._seen.get((key, row.version))
        if known is not None:
            return known
        return frozenset(
            (await self._run(select(session_agents.c.agent).where(session_agents.c.session == key))).scalars()
        )

    async def _place_session(self, row: Row, before: frozenset[str]) -> None:
        if not KINDS[type(row)].sets:
            return
        key, now = KINDS[type(row)].key_of(row), kinds.agents_of(row)
        if left := sorted(before - now):
            mine = and_(session_agents.c.session == key, session_agents.c.agent.in_(left))
            await self._run(delete(session_agents).where(mine))
        if new := sorted(now - before):
            await self._run(session_agents.insert().values([{"agent": agent, "session": key} for agent in new]))
        self._seen[key, row.version] = now

    async def _insert_new(self, table: Table, values: dict[str, Any]) -> bool:
        """Insert unless the key exists; say whether it did. An error would end PostgreSQL's transaction."""
        result = await self._run(self._insert(table).values(values).on_conflict_do_nothing())
        return result.rowcount == 1

    async def _rows(self, kind: type[R], query: Select[Any]) -> list[R]:
        rows = [_decode(kind, record) for record in await self._run(query)]
        if KINDS[kind].sets:
            for row in rows:
                self._seen[KINDS[kind].key_of(row), row.version] = kinds.agents_of(row)
        return rows

    async def _run(self, statement: Executable) -> CursorResult[Any]:
        self._check_open()
        try:
            with told(self._place):
                work = self._connection.execute(statement)
                return await (work if self._postgres else undivided(work))
        except BaseException:
            # A full disk can undo everything so far: nothing more may be written, even if this is caught.
            self.open = False
            raise

    def _check_open(self) -> None:
        if not self.open:
            raise RuntimeError("the transaction has ended")


def _select(kind: type[Row]) -> Select[Any]:
    table = ROWS[kind]
    return select(table.c.body, table.c.version, *([table.c.uses_left] if kind is Token else []))


def _values(row: Row) -> dict[str, Any]:
    values: dict[str, Any] = {**KINDS[type(row)].values_of(row), "version": row.version, "body": _encode(row)}
    if isinstance(row, Token):
        values |= {"uses_left": row.uses_left, "expires_at": row.expires_at}
    return values


def _decode(kind: type[R], record: Any) -> R:
    row = _DECODERS[kind].decode(record.body)
    columns = {"uses_left": record.uses_left} if kind is Token else {}
    return cast("R", replace(row, version=record.version, **columns))


def read_event(rev: int, body: str) -> Event:
    """Return a kept event with its `rev`."""
    return replace(cast("Event", _DECODERS[Event].decode(body)), rev=rev)


def newest_rev() -> Select[Any]:
    """Return the query for the rev of the newest event, 0 when there is none."""
    return select(func.coalesce(func.max(events.c.rev), 0))


def events_after(since: int, limit: int, kinds: Sequence[str]) -> Select[Any]:
    """Return the query for `(rev, body)` of up to `limit` events after `since`, of `kinds` (empty: any)."""
    query = select(events.c.rev, events.c.body).where(events.c.rev > since)
    if kinds:
        query = query.where(events.c.kind.in_([str(kind) for kind in kinds]))
    return query.order_by(events.c.rev).limit(limit)


_DECODERS: dict[type[Any], msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(kind) for kind in (*ROWS, Event, Decision)
}


def _encode(row: Any) -> str:
    return msgspec.json.encode(row).decode()
