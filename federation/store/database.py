"""The store in a database: opening it, its transactions one after the other, its events."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DisconnectionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

from atoll.clock import Clock
from atoll.errors import Invalid, Unavailable
from atoll.event import Event
from federation.ports import Store
from federation.store.disk import of_os
from federation.store.faults import told
from federation.store.hold import FileHold, Hold, PostgresHold, connect
from federation.store.schema import prepare
from federation.store.transaction import SqlTransaction, events_after, newest_rev, read_event
from federation.store.undivided import undivided

T = TypeVar("T")

_PRAGMAS = (
    "PRAGMA busy_timeout = 5000",
    "PRAGMA journal_mode = WAL",
    # An acknowledged write must survive a power cut, not only the end of the process.
    "PRAGMA synchronous = FULL",
)


async def open_store(url: str, clock: Clock) -> Store:
    """Open the control plane's database, made or upgraded as needed, and hold it against a second control plane.

    `url` is `sqlite:///<path>` or `postgresql://user:password@host:port/database`. `clock` times how
    long the answers to idempotent requests are kept. Raises `Invalid` for another kind of URL,
    `Refused` or `Unavailable` with one sentence where the database cannot be used.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise Invalid("the database URL cannot be read", hint="write sqlite:///path or postgresql://…") from error
    if parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:"):
        store = _sqlite(Path(str(parsed.database)))
    elif parsed.get_backend_name() == "postgresql":
        store = _postgres(parsed)
    else:
        raise Invalid(
            f"a database of kind {parsed.drivername!r} cannot keep the store",
            hint="write sqlite:///path or postgresql://user@host/database",
        )
    await store.open(clock.now())
    return store


def _sqlite(path: Path) -> "SqlStore":
    # The real path, so that the lock beside it is the same for every name of the file.
    path = path.resolve()
    place = str(path)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
    except OSError as error:
        raise of_os(error, f"the database {place}") from error
    engine = create_async_engine(
        URL.create("sqlite+aiosqlite", database=place),
        poolclass=AsyncAdaptedQueuePool,
        pool_size=2,
        max_overflow=0,
        connect_args={"isolation_level": None},
    )
    event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return SqlStore(engine, FileHold(path), place)


def _postgres(url: URL) -> "SqlStore":
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    place = f"{url.host or 'localhost'}:{url.port or 5432}/{url.database or url.username or ''}"
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda: connect(plain, place),
        poolclass=AsyncAdaptedQueuePool,
        pool_size=2,
        max_overflow=4,
    )
    event.listen(engine.sync_engine, "checkout", _check_alive)
    return SqlStore(engine, PostgresHold(plain, place), place)


def _prepare_sqlite(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    for pragma in _PRAGMAS:
        cursor.execute(pragma)
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # IMMEDIATE takes the write lock now: a lock asked for later could fail in the middle.
    reading = connection.get_execution_options().get("reading", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _check_alive(connection: Any, *_: object) -> None:
    # The driver knows without a round trip; the pool then dials anew.
    if connection.driver_connection.is_closed():
        raise DisconnectionError


class SqlStore:
    """A `Store` in SQLite or PostgreSQL for the only control plane of an installation.

    Transactions run one after the other, in the order in which they were asked for, on both databases:
    what control decides on is exactly what it decides about, and a conflict shows as a version alone.
    Events are read beside them on a connection of their own.
    """

    def __init__(self, engine: AsyncEngine, hold: Hold, place: str) -> None:
        self._engine = engine
        self._hold = hold
        self._place = place
        self._turn = asyncio.Lock()
        self._holder: asyncio.Task[Any] | None = None
        self._closed = False

    async def open(self, now: float) -> None:
        """Take the hold, prepare the schema and forget old answers; `now` is Unix seconds."""
        try:
            await self._hold.renew()
            async with self._connection() as connection:
                with told(self._place):
                    await connection.run_sync(prepare, self._place)
                    await connection.commit()
            async with self.transaction() as transaction:
                await transaction.forget_answers(now)
        except BaseException:
            await self.close()
            raise

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[SqlTransaction]:
        """Open a transaction. One task may have one at a time; a second raises `RuntimeError`."""
        task = asyncio.current_task()
        if task is not None and task is self._holder:
            raise RuntimeError("this task has a transaction open already")
        async with self._turn:
            self._check_open()
            await self._hold.renew()
            self._holder = task
            try:
                async with self._connection() as connection:
                    transaction = SqlTransaction(connection, self._place)
                    try:
                        yield transaction
                        await transaction.flush()
                        with told(self._place):
                            await self._whole(connection.commit())
                    finally:
                        transaction.open = False
            finally:
                self._holder = None

    async def events(self, since: int, limit: int = 500, kinds: Sequence[str] = ()) -> list[Event]:
        """Return committed events with `rev > since`, in order; none can appear below one already returned."""
        async with self._connection(reading=True) as connection:
            with told(self._place):
                found = (await self._whole(connection.execute(events_after(since, limit, kinds)))).all()
        return [read_event(record.rev, record.body) for record in found]

    async def last_rev(self) -> int:
        """Return the rev of the newest event, 0 when there is none."""
        async with self._connection(reading=True) as connection:
            with told(self._place):
                return int((await self._whole(connection.execute(newest_rev()))).scalar_one())

    async def close(self) -> None:
        """Wait for the open transaction, then release connections and locks; well if that is done."""
        async with self._turn:
            self._closed = True
            await self._engine.dispose()
            await self._hold.release()

    @asynccontextmanager
    async def _connection(self, *, reading: bool = False) -> AsyncIterator[AsyncConnection]:
        self._check_open()
        connection = self._engine.connect()
        try:
            with told(self._place):
                await self._whole(_begun(connection, reading=reading))
            yield connection
        finally:
            # A cancelled task, too, must give its connection back with nothing left open.
            if connection.sync_connection is not None:
                with told(self._place):
                    await undivided(connection.close())

    def _whole(self, work: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
        return work if self._engine.dialect.name == "postgresql" else undivided(work)

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("the store is closed")


async def _begun(connection: AsyncConnection, *, reading: bool) -> None:
    await connection.start()
    if reading:
        await connection.execution_options(reading=True)
    await connection.begin()
