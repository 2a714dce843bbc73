"""The store in SQL where things go wrong: second owners, full disks, dead servers, wrong passwords."""

import asyncio
import os
import socket
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from atoll.errors import AtollError, Invalid, Refused, Unavailable
from atoll.event import Event
from atoll.site import Site
from atoll.token import Token
from federation.ports import Store
from federation.store.database import open_store
from tests.contracts.store.conftest import StoppedClock
from tests.contracts.store.rows import session, site, token
from tests.federation.store.test_logs import files_end_at
from tests.postgres import PostgresServer


async def add(store: Store, name: str) -> None:
    async with store.transaction() as tx:
        await tx.insert(site(name))
        await tx.append(Event(kind="site", key=name, state="created", at=1.0))


async def names(store: Store) -> list[str]:
    async with store.transaction() as tx:
        return [row.name for row in await tx.find(Site)]


async def test_a_second_control_plane_is_refused_and_the_first_works_on(url: str) -> None:
    store = await open_store(url, StoppedClock())
    with pytest.raises(Refused, match=f"another control plane .*{os.getpid()}.* already uses") as caught:
        await open_store(url, StoppedClock())
    assert "atoll down" in caught.value.hint
    await add(store, "one")
    await store.close()
    again = await open_store(url, StoppedClock())
    assert await names(again) == ["one"]
    await again.close()


async def test_a_killed_control_plane_leaves_every_acknowledged_write_and_no_lock(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/atoll.db"
    script = textwrap.dedent("""
        import asyncio, sys
        from federation.store.database import open_store
        from tests.contracts.store.conftest import StoppedClock
        from tests.contracts.store.rows import site

        async def main():
            store = await open_store(sys.argv[1], StoppedClock())
            for number in range(100000):
                async with store.transaction() as tx:
                    await tx.insert(site(f"n{number}"))
                print(number, flush=True)
        asyncio.run(main())
    """)
    process = subprocess.Popen([sys.executable, "-c", script, url], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    last = [int(process.stdout.readline()) for _ in range(20)][-1]
    process.kill()
    last = max([last, *(int(line) for line in process.stdout if line.endswith("\n"))])
    process.stdout.close()
    process.wait(timeout=30)
    store = await open_store(url, StoppedClock())
    assert last + 1 <= len(await names(store)) <= last + 2
    await store.close()


async def test_an_open_store_in_sqlite_loads_no_alembic_and_no_asyncpg(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import asyncio, sys
        from federation.store.database import open_store
        from federation.store.bus import LocalBus
        from federation.store.logs import FileLogs
        from tests.contracts.store.conftest import StoppedClock

        async def main():
            store = await open_store(sys.argv[1], StoppedClock())
            await store.close()
        asyncio.run(main())
        print(sorted({"alembic", "asyncpg", "mako", "cryptography"} & set(sys.modules)))
    """)
    argv = [sys.executable, "-c", script, f"sqlite:///{tmp_path}/atoll.db"]
    done = await asyncio.to_thread(subprocess.run, argv, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


async def test_a_full_disk_loses_nothing_and_later_writes_go_on(tmp_path: Path) -> None:
    store = await open_store(f"sqlite:///{tmp_path}/atoll.db", StoppedClock())
    await add(store, "kept")
    with files_end_at(max(file.stat().st_size for file in tmp_path.iterdir()) + 5000):
        for turn in range(3):
            with pytest.raises(AtollError, match="disk") as caught:
                await flood(store, turn)
            assert caught.value.hint
        assert await names(store) == ["kept"]
    await add(store, "later")
    assert await names(store) == ["kept", "later"]
    assert [event.key for event in await store.events(0)] == ["kept", "later"]
    await store.close()


async def flood(store: Store, turn: int) -> None:
    async with store.transaction() as tx:
        for number in range(400):
            await tx.insert(session(f"s-{turn}-{number}"))


async def test_a_transaction_whose_write_failed_commits_nothing_even_if_that_is_caught(tmp_path: Path) -> None:
    store = await open_store(f"sqlite:///{tmp_path}/atoll.db", StoppedClock())
    size = max(file.stat().st_size for file in tmp_path.iterdir())
    with files_end_at(size + 5000), pytest.raises(RuntimeError, match="has ended"):
        await flood_and_go_on(store)
    assert await names(store) == []
    await store.close()


async def flood_and_go_on(store: Store) -> None:
    async with store.transaction() as tx:
        await tx.insert(site("first"))
        try:
            for number in range(100_000):
                await tx.insert(session(f"s-{number}"))
        except AtollError:
            await tx.insert(site("after the fault"))


async def test_the_database_is_for_its_owner_alone_and_one_under_all_its_names(tmp_path: Path) -> None:
    store = await open_store(f"sqlite:///{tmp_path}/home/atoll.db", StoppedClock())
    await add(store, "one")
    assert all(file.stat().st_mode & 0o077 == 0 for file in [tmp_path / "home", *(tmp_path / "home").iterdir()])
    (tmp_path / "alias").symlink_to(tmp_path / "home" / "atoll.db")
    with pytest.raises(Refused, match="another control plane"):
        await open_store(f"sqlite:///{tmp_path}/alias", StoppedClock())
    await store.close()


async def test_a_database_at_its_size_limit_says_full(tmp_path: Path) -> None:
    store = await open_store(f"sqlite:///{tmp_path}/atoll.db", StoppedClock())
    await add(store, "kept")
    async with store.transaction() as tx:
        await tx._connection.exec_driver_sql("PRAGMA max_page_count = 1")  # type: ignore[attr-defined]
    with pytest.raises(Unavailable, match="is full") as caught:
        await flood(store, 0)
    assert caught.value.reason == "DISK_FULL"
    assert await names(store) == ["kept"]
    await store.close()


@pytest.mark.parametrize(
    ("what", "said"),
    [("not a database", "is not a database"), ("directory", "cannot be"), ("under a file", "cannot be written")],
)
async def test_a_path_that_cannot_hold_a_database_is_said(tmp_path: Path, what: str, said: str) -> None:
    path = tmp_path / "atoll.db"
    if what == "not a database":
        path.write_bytes(b"hello, I am a text of some length" * 100)
    elif what == "directory":
        path.mkdir()
    else:
        path.write_text("")
        path = path / "atoll.db"
    with pytest.raises(Refused, match=said) as caught:
        await open_store(f"sqlite:///{path}", StoppedClock())
    assert str(tmp_path) in caught.value.message
    assert caught.value.hint


async def test_a_read_only_directory_is_said(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        home = Path("/proc/sys")  # read-only or without files to make, for root too
    else:
        home = tmp_path / "home"
        home.mkdir(mode=0o500)
    with pytest.raises(AtollError, match="cannot be") as caught:
        await open_store(f"sqlite:///{home}/atoll.db", StoppedClock())
    assert caught.value.hint


@pytest.mark.parametrize("url", ["mysql://h/d", "sqlite://", "sqlite:///:memory:", "what", ""])
async def test_other_urls_are_invalid_and_not_repeated(url: str) -> None:
    with pytest.raises(Invalid) as caught:
        await open_store(url, StoppedClock())
    assert "sqlite:///path" in caught.value.hint


@pytest.fixture
def intruder(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """Another program on the same database file."""
    connection = sqlite3.connect(tmp_path / "atoll.db", isolation_level=None)
    yield connection
    connection.close()


async def test_a_short_lock_by_another_program_is_waited_for(tmp_path: Path, intruder: sqlite3.Connection) -> None:
    store = await open_store(f"sqlite:///{tmp_path}/atoll.db", StoppedClock())
    intruder.execute("BEGIN IMMEDIATE")
    writing = asyncio.create_task(add(store, "one"))
    await asyncio.sleep(0.2)
    assert not writing.done()
    intruder.execute("ROLLBACK")
    await writing
    assert await names(store) == ["one"]
    await store.close()


async def test_a_wrong_password_or_database_is_said_without_the_password(postgres_server: PostgresServer) -> None:
    where = f"127.0.0.1:{postgres_server.port}"
    postgres_server.sql("CREATE ROLE locked LOGIN PASSWORD 'right'")
    for url, said in [
        (f"postgresql://locked:secret@{where}/postgres", "refuses this user or password"),
        (f"postgresql://atoll:secret@{where}/absent", "there is no database"),
    ]:
        with pytest.raises(Refused, match=said) as caught:
            await open_store(url, StoppedClock())
        assert "secret" not in caught.value.message + caught.value.hint


async def test_a_server_that_does_not_answer_is_unavailable() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"postgresql://atoll:secret@127.0.0.1:{closed.getsockname()[1]}/atoll"
        with pytest.raises(Unavailable, match="cannot be reached") as caught:
            await open_store(url, StoppedClock())
    assert "secret" not in caught.value.message
    assert caught.value.hint


async def test_a_read_only_user_is_refused(postgres_server: PostgresServer) -> None:
    url = postgres_server.new_database()
    postgres_server.sql("DROP ROLE IF EXISTS guest")
    postgres_server.sql("CREATE ROLE guest LOGIN")
    with pytest.raises(Refused, match="may not write") as caught:
        await open_store(url.replace("atoll@", "guest@"), StoppedClock())
    assert caught.value.hint


async def test_a_restarted_server_is_found_again_and_the_hold_with_it(postgres_server: PostgresServer) -> None:
    url = postgres_server.new_database()
    store = await open_store(url, StoppedClock())
    await add(store, "before")
    assert await store.last_rev() == 1
    postgres_server.stop()
    for _ in range(2):
        with pytest.raises(Unavailable) as caught:
            await add(store, "lost")
        assert caught.value.hint
    with pytest.raises(Unavailable):
        await store.events(0)
    postgres_server.start()
    await add(store, "after")
    assert await names(store) == ["before", "after"] or await names(store) == ["after", "before"]
    assert [event.key for event in await store.events(0)] == ["before", "after"]
    with pytest.raises(Refused, match="another control plane"):
        await open_store(url, StoppedClock())
    await store.close()


async def test_a_server_that_dies_within_a_transaction_is_unavailable(postgres_server: PostgresServer) -> None:
    store = await open_store(postgres_server.new_database(), StoppedClock())
    with pytest.raises(Unavailable):
        await kill_within(store, postgres_server)
    postgres_server.start()
    assert await names(store) == []
    await store.close()


async def kill_within(store: Store, server: PostgresServer) -> None:
    async with store.transaction() as tx:
        await tx.insert(site("lost"))
        server.stop()
        await tx.insert(site("lost too"))


async def test_transactions_of_two_processes_keep_revs_and_tokens_true(postgres_server: PostgresServer) -> None:
    """What holds when, one day, several control planes share a server: tried with the hold left out."""
    url = postgres_server.new_database()
    first = await open_store(url, StoppedClock())
    second = await open_second(url)
    async with first.transaction() as tx:
        await tx.insert(token(uses=10))
    seen: list[int] = []
    writing = True

    async def read() -> None:
        while writing:
            seen.extend(event.rev for event in await first.events(seen[-1] if seen else 0))

    async def join(store: Store, number: int) -> Token | None:
        async with store.transaction() as tx:
            await tx.append(Event(kind="token", key=str(number), state="used", at=1.0))
            used = await tx.consume("hash", 1.0)
            if used is not None:
                await tx.append(Event(kind="agent", key=str(number), state="joined", at=1.0))
            return used

    reader = asyncio.create_task(read())
    results = await asyncio.gather(*(join((first, second)[number % 2], number) for number in range(60)))
    writing = False
    await reader
    assert sum(used is not None for used in results) == 10
    seen.extend(event.rev for event in await first.events(seen[-1]))
    assert seen == [event.rev for event in await first.events(0)]
    assert len(seen) == 70
    await first.close()
    await second.close()


async def open_second(url: str) -> Store:
    from sqlalchemy import make_url

    from federation.store.database import SqlStore, _postgres

    class NoHold:
        async def renew(self) -> None:
            pass

        async def release(self) -> None:
            pass

    store = _postgres(make_url(url))
    return SqlStore(store._engine, NoHold(), store._place)
