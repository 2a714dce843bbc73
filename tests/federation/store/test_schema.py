"""The schema: made, migrated, and refused when it is newer."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

import federation.store.migrations
from atoll.errors import Refused
from atoll.session import Session, Stretch
from atoll.site import Site
from atoll.token import Token, TokenKind
from federation.store.database import open_store
from federation.store.migrations.upgrade import upgrade
from federation.store.schema import REVISIONS, prepare
from federation.store.tables import metadata
from tests.contracts.store.conftest import StoppedClock
from tests.contracts.store.rows import session, site


class Raw:
    """A plain connection to a database, without the store."""

    def __init__(self, url: str) -> None:
        drivers = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}
        parsed = make_url(url)
        self._engine = create_async_engine(parsed.set(drivername=drivers[parsed.drivername]))

    async def __aenter__(self) -> AsyncConnection:
        self._connection = await self._engine.connect()
        return self._connection

    async def __aexit__(self, *_: object) -> None:
        await self._connection.commit()
        await self._connection.close()
        await self._engine.dispose()


def described(connection: Connection) -> dict[str, Any]:
    seen = inspect(connection)
    if connection.dialect.name == "sqlite":
        rows = connection.execute(text("SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'alembic%'"))
        autoincrement = {name for name, sql in rows if sql and "AUTOINCREMENT" in sql}
    else:
        autoincrement = set()
    return {
        table: (
            [
                (c["name"], str(c["type"]), getattr(c["type"], "collation", None), c["nullable"], c["default"])
                for c in columns
            ],
            seen.get_pk_constraint(table)["constrained_columns"],
            sorted((str(i["name"]), tuple(i["column_names"]), i["unique"]) for i in seen.get_indexes(table)),
            table in autoincrement,
        )
        for table in seen.get_table_names()
        for columns in [seen.get_columns(table)]
    }


async def test_migrating_from_nothing_gives_what_create_all_gives(url: str, tmp_path: Path, request: Any) -> None:
    async with Raw(url) as made:
        await made.run_sync(prepare, "here")
        fresh = await made.run_sync(described)
        difference = await made.run_sync(lambda c: compare_metadata(MigrationContext.configure(c), metadata))
        await made.run_sync(lambda c: [c.execute(text(f'DROP TABLE "{table}"')) for table in fresh])
        await made.commit()
        await made.run_sync(upgrade)
        assert await made.run_sync(described) == fresh
    assert difference == []
    assert set(fresh) == {*metadata.tables, "alembic_version"}


def test_every_revision_has_its_file_and_the_last_is_the_head() -> None:
    scripts = ScriptDirectory(str(Path(federation.store.migrations.__file__).parent))
    assert tuple(reversed([script.revision for script in scripts.walk_revisions()])) == REVISIONS
    assert scripts.get_current_head() == REVISIONS[-1]


async def test_the_first_api_token_of_an_older_release_becomes_an_administrators(url: str) -> None:
    store = await open_store(url, StoppedClock())
    async with store.transaction() as tx:
        for key, kind, created in (
            ("join", TokenKind.JOIN, 1.0),
            ("first", TokenKind.API, 2.0),
            ("next", TokenKind.API, 3.0),
        ):
            await tx.insert(Token(id=key, kind=kind, created_at=created))
    await store.close()
    async with Raw(url) as raw:
        for table in ("policies", "budgets", "relays", "meshes", "stream_records"):
            await raw.execute(text(f"DROP TABLE {table}"))
        await raw.execute(text("UPDATE alembic_version SET version_num = '0002'"))
    store = await open_store(url, StoppedClock())
    async with store.transaction() as tx:
        assert {token.id: token.roles for token in await tx.find(Token)} == {
            "join": (),
            "first": ("admin",),
            "next": (),
        }
    await store.close()


async def test_what_a_session_of_an_older_release_has_cost_becomes_a_stretch(url: str) -> None:
    store = await open_store(url, StoppedClock())
    plain = replace(session(), stretches=())
    old = {
        "s-new": plain,
        "s-ended": replace(plain, site="far", group="g", cost=50, on_demand_cost=70, created_at=100.0, ended_at=280.0),
        "s-again": replace(plain, cost=9, created_at=100.0, queued_at=100.0),
    }
    async with store.transaction() as tx:
        for key, row in old.items():
            await tx.insert(replace(row, id=key))
    await store.close()
    async with Raw(url) as raw:
        for table in ("relays", "meshes", "stream_records"):
            await raw.execute(text(f"DROP TABLE {table}"))
        await raw.execute(text("UPDATE alembic_version SET version_num = '0003'"))
    store = await open_store(url, StoppedClock())
    async with store.transaction() as tx:
        found = {row.id: row for row in await tx.find(Session)}
    await store.close()
    assert {key: replace(row, stretches=()) for key, row in found.items()} == {
        key: replace(row, id=key, version=1) for key, row in old.items()
    }
    assert found["s-new"].stretches == ()
    assert found["s-ended"].stretches == (
        Stretch(site="far", group="g", price=1000, started_at=100.0, ended_at=280.0, cost=50, on_demand_cost=70),
    )
    assert [(each.cost, each.price) for each in found["s-again"].stretches] == [(9, 0)]


async def test_an_empty_stamp_is_upgraded_in_place(url: str) -> None:
    async with Raw(url) as raw:
        await raw.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) PRIMARY KEY)"))
    store = await open_store(url, StoppedClock())
    async with store.transaction() as tx:
        await tx.insert(site())
    await store.close()


async def test_a_newer_database_is_refused_and_left_alone(url: str) -> None:
    await (await open_store(url, StoppedClock())).close()
    async with Raw(url) as raw:
        await raw.execute(text("UPDATE alembic_version SET version_num = '9001'"))
    with pytest.raises(Refused, match="was written by a newer Atoll") as caught:
        await open_store(url, StoppedClock())
    assert "install" in caught.value.hint
    async with Raw(url) as raw:
        assert (await raw.execute(text("SELECT version_num FROM alembic_version"))).scalar_one() == "9001"


async def test_a_database_with_other_tables_of_our_names_is_refused(url: str) -> None:
    async with Raw(url) as raw:
        await raw.execute(text("CREATE TABLE sessions (id INTEGER)"))
    with pytest.raises(Refused, match="'sessions' that Atoll did not make"):
        await open_store(url, StoppedClock())


async def test_bodies_of_older_and_newer_releases_can_be_read(url: str) -> None:
    store = await open_store(url, StoppedClock())
    async with store.transaction() as tx:
        kept = await tx.insert(site())
    await store.close()
    async with Raw(url) as raw:
        await raw.execute(text("""UPDATE sites SET body = '{"name": "home", "later": [1], "version": 1}'"""))
    store = await open_store(url, StoppedClock())
    async with store.transaction() as tx:
        assert await tx.get(Site, "home") == Site(name="home", version=kept.version)
    await store.close()
