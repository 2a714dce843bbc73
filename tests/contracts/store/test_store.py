"""What every store promises: each sentence of `Store` and `Transaction` in `federation.ports`."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from atoll.agent import Agent
from atoll.errors import Conflict, Invalid, Unavailable
from atoll.event import Event
from atoll.group import Group, GroupKind
from atoll.instance import Instance
from atoll.plan import Plan
from atoll.session import Moving, Session
from atoll.site import Site
from atoll.states import Reason, SessionState
from atoll.token import Token
from federation.ports import Stale, Store
from federation.store.kinds import KINDS
from tests.contracts.store.conftest import Reopen
from tests.contracts.store.rows import decision, every_kind, session, site, token


def happened(key: str, kind: str = "session") -> Event:
    return Event(kind=kind, key=key, state="queued", at=1.0, name="n", message="grüße", data={"a": "b"})


async def insert(store: Store, *rows: Any) -> None:
    async with store.transaction() as tx:
        for row in rows:
            await tx.insert(row)


async def sites(store: Store) -> list[str]:
    async with store.transaction() as tx:
        return [row.name for row in await tx.find(Site)]


@pytest.mark.parametrize("row", every_kind(), ids=lambda row: type(row).__name__)
async def test_every_kind_comes_back_as_it_was_also_after_a_restart(opened: tuple[Store, Reopen], row: Any) -> None:
    store, reopen = opened
    key = KINDS[type(row)].key_of(row)
    async with store.transaction() as tx:
        kept = await tx.insert(row)
        assert kept == replace(row, version=1)
        assert await tx.get(type(row), key) == kept
    store = await reopen(store)
    async with store.transaction() as tx:
        assert await tx.get(type(row), key) == kept
        assert await tx.find(type(row)) == [kept]


async def test_what_is_not_there_is_none(store: Store) -> None:
    async with store.transaction() as tx:
        assert await tx.get(Session, "s-none") is None
        assert await tx.find(Plan) == []
        await tx.delete(Group, "none")


async def test_a_transaction_tells_what_it_wrote(store: Store) -> None:
    async with store.transaction() as tx:
        assert list(tx.written) == []
        first = await tx.insert(site("here"))
        second = await tx.update(replace(first, price=7))
        await tx.delete(Site, "here")
        with pytest.raises(Stale):
            await tx.update(second)
        assert list(tx.written) == [(Site, "here", first), (Site, "here", second), (Site, "here", None)]


async def test_a_taken_key_is_a_conflict_and_the_transaction_can_go_on(store: Store) -> None:
    await insert(store, site("one"))
    async with store.transaction() as tx:
        with pytest.raises(Conflict, match="'one' exists already"):
            await tx.insert(site("one"))
        await tx.insert(site("two"))
    assert await sites(store) == ["one", "two"]


async def overwrite(store: Store, row: Site) -> None:
    async with store.transaction() as tx:
        await tx.insert(site("beside"))
        await tx.update(row)


async def test_an_update_raises_the_version_and_a_stale_one_writes_nothing(store: Store) -> None:
    await insert(store, site())
    async with store.transaction() as tx:
        first = await tx.get(Site, "home")
    assert first is not None
    async with store.transaction() as tx:
        second = await tx.update(replace(first, price=20))
        assert second.version == 2
        assert await tx.get(Site, "home") == second
    for old in (first, replace(first, version=7), site("absent")):
        with pytest.raises(Stale):
            await overwrite(store, replace(old, price=99))
    async with store.transaction() as tx:
        assert await tx.find(Site) == [second]


async def test_of_many_who_read_the_same_version_one_updates(store: Store) -> None:
    await insert(store, site())
    async with store.transaction() as tx:
        seen = await tx.get(Site, "home")
    assert seen is not None

    async def change(price: int) -> None:
        async with store.transaction() as tx:
            await tx.update(replace(seen, price=price))

    results = await asyncio.gather(*(change(price) for price in range(30)), return_exceptions=True)
    assert sum(result is None for result in results) == 1
    assert sum(isinstance(result, Stale) for result in results) == 29


async def write_everything_and_fail(store: Store) -> None:
    async with store.transaction() as tx:
        await tx.insert(site("new"))
        await tx.delete(Site, "kept")
        await tx.append(happened("s-1"))
        await tx.decide("s-1", decision(), 1.0)
        await tx.remember("k", "f", "a", 1.0)
        await tx.set("name", "value")
        assert await tx.consume("hash", 1.0) is not None
        row = await tx.get(Session, "s-1")
        assert row is not None
        await tx.update(replace(row, members=()))
        raise ZeroDivisionError


async def test_an_error_undoes_everything(opened: tuple[Store, Reopen]) -> None:
    store, reopen = opened
    await insert(store, site("kept"), token(uses=2), session("s-1", "a-1"))
    with pytest.raises(ZeroDivisionError):
        await write_everything_and_fail(store)
    store = await reopen(store)
    assert await sites(store) == ["kept"]
    assert await store.last_rev() == 0
    async with store.transaction() as tx:
        assert await tx.decisions("s-1") == []
        assert await tx.recall("k") is None
        assert await tx.setting("name") is None
        assert len(await tx.find(Session, agent="a-1")) == 1
        left = await tx.get(Token, "hash")
        assert left is not None
        assert left.uses_left == 2


async def test_a_transaction_sees_its_own_writes(store: Store) -> None:
    await insert(store, site("old"))
    async with store.transaction() as tx:
        await tx.insert(site("new", created_at=9.0))
        await tx.delete(Site, "old")
        assert [row.name for row in await tx.find(Site)] == ["new"]
        assert await tx.get(Site, "old") is None
        again = await tx.insert(site("old", created_at=10.0))
        assert again.version == 1
        assert [row.name for row in await tx.find(Site)] == ["new", "old"]
        await tx.decide("s", decision(), 1.0)
        assert len(await tx.decisions("s")) == 1
        await tx.set("a", "1")
        await tx.set("a", "2")
        assert await tx.setting("a") == "2"
        await tx.remember("k", "f", "answer", 1.0)
        assert await tx.recall("k") == ("f", "answer")


async def test_a_cancelled_transaction_is_undone_and_the_store_goes_on(store: Store) -> None:
    reached = asyncio.Event()

    async def stuck() -> None:
        async with store.transaction() as tx:
            await tx.insert(site("lost"))
            reached.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(stuck())
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await insert(store, site("kept"))
    assert await sites(store) == ["kept"]


async def test_cancelling_at_any_moment_leaves_a_whole_store(store: Store) -> None:
    async def write(name: str) -> None:
        async with store.transaction() as tx:
            await tx.insert(site(name))
            await tx.append(happened(name, "site"))

    for turn in range(40):
        task = asyncio.create_task(write(f"n{turn}"))
        for _ in range(turn):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await write("last")
    assert sorted(await sites(store)) == sorted(event.key for event in await store.events(0))
    assert "last" in await sites(store)


async def test_a_task_has_one_transaction_and_none_after_its_end(store: Store) -> None:
    async with store.transaction() as tx:
        with pytest.raises(RuntimeError, match="open already"):
            async with store.transaction():
                pass
    with pytest.raises(RuntimeError, match="has ended"):
        await tx.get(Site, "home")


async def test_a_closed_store_says_so_and_closes_twice(store: Store) -> None:
    await store.close()
    await store.close()
    with pytest.raises(Unavailable, match="closed"):
        await sites(store)
    with pytest.raises(Unavailable, match="closed"):
        await store.events(0)


async def test_rows_come_in_the_order_of_creation_then_key(store: Store) -> None:
    await insert(
        store, site("b", 2.0), site("Z", 2.0), site("a", 2.0), site("a-b", 2.0), site("late", 9.0), site("ab", 1.0)
    )
    assert await sites(store) == ["ab", "Z", "a", "a-b", "b", "late"]
    async with store.transaction() as tx:
        row = await tx.get(Site, "late")
        assert row is not None
        await tx.update(replace(row, created_at=0.0))
        assert [each.name for each in await tx.find(Site, newest=True)] == ["late", "b", "a-b", "a", "Z", "ab"]


async def test_a_listing_can_be_read_page_by_page_in_both_orders(store: Store) -> None:
    await insert(store, *(session(f"s-{n:02}", created_at=float(n // 4)) for n in range(23)))
    async with store.transaction() as tx:
        for newest in (False, True):
            keys: list[str] = []
            while page := await tx.find(
                Session, after=keys[-1] if keys else "", limit=5, newest=newest, state="queued"
            ):
                assert len(page) <= 5
                keys += [row.id for row in page]
            assert keys == sorted((f"s-{n:02}" for n in range(23)), reverse=newest)
        with pytest.raises(Invalid, match="continue after"):
            await tx.find(Session, after="s-gone")


async def test_find_takes_values_sets_of_values_and_all_columns(store: Store) -> None:
    await insert(store, *every_kind())
    by: dict[Any, dict[str, Any]] = {
        Session: {"state": "queued", "project": "default", "name": "n-s-1", "group": "", "agent": "a-2"},
        Agent: {"state": "ready", "site": "home", "group": "local", "instance": "", "name": "n"},
        Instance: {"state": "booting", "group": "g", "provider": "cloud", "agent": ""},
        Group: {"site": "home", "provider": "", "kind": GroupKind.ELASTIC},
        Token: {"kind": "join", "group": "local", "instance": "i-1", "owner": "me"},
    }
    async with store.transaction() as tx:
        for kind, where in by.items():
            for column, value in where.items():
                given: list[tuple[Any, int]] = [(value, 1), (("other", value), 1), ("other", 0), ((), 0)]
                for values, count in given:
                    asked: Any = {column: values}
                    assert len(await tx.find(kind, **asked)) == count, (column, values)
            assert len(await tx.find(kind, **where)) == 1


@pytest.mark.parametrize("kind", [Session, Site, Plan])
async def test_an_unknown_column_is_a_value_error(store: Store, kind: type[Session]) -> None:
    async with store.transaction() as tx:
        with pytest.raises(ValueError, match="colour"):
            await tx.find(kind, colour="red")


async def test_a_session_is_found_by_the_agents_that_hold_slots_for_its_move(store: Store) -> None:
    there = session("s-1", "a-2").members
    await insert(store, session("s-1", "a-1"))
    async with store.transaction() as tx:
        row = (await tx.find(Session, agent="a-1"))[0]
        row = await tx.update(replace(row, moving=Moving(reason=Reason.USER, message="m", to=there)))
        assert [each.moving for each in await tx.find(Session, agent="a-2")] == [row.moving]
    async with store.transaction() as tx:
        assert [each.id for each in await tx.find(Session, agent=["a-1", "a-2"])] == ["s-1"]
        await tx.update(replace(row, moving=None))
        assert await tx.find(Session, agent="a-2") == []


async def test_sessions_are_found_by_the_agents_of_the_current_attempt(store: Store) -> None:
    await insert(store, session("s-1", "a-1", "a-2"), session("s-2", "a-2"), session("s-3"))
    async with store.transaction() as tx:
        assert [row.id for row in await tx.find(Session, agent="a-2")] == ["s-1", "s-2"]
        assert [row.id for row in await tx.find(Session, agent=["a-1", "a-2"])] == ["s-1", "s-2"]
        unread = replace(session("s-1", "a-3", "a-2", "a-2"), version=1)
        moved = await tx.update(unread)
        assert await tx.find(Session, agent="a-1") == []
        assert [row.id for row in await tx.find(Session, agent="a-3")] == ["s-1"]
        await tx.update(replace(moved, members=()))
    async with store.transaction() as tx:
        assert [row.id for row in await tx.find(Session, agent="a-2", state="queued")] == ["s-2"]
        await tx.delete(Session, "s-2")
        await tx.insert(session("s-2"))
        assert await tx.find(Session, agent="a-2") == []


async def test_events_get_their_rev_at_commit_in_order(store: Store) -> None:
    assert await store.last_rev() == 0
    async with store.transaction() as tx:
        await tx.append(happened("s-1"))
        await tx.append(happened("a-1", "agent"))
        assert await store.events(0) == []
    await insert(store, site())
    async with store.transaction() as tx:
        await tx.append(happened("s-2"))
    events = await store.events(0)
    assert [replace(event, rev=0) for event in events] == [happened("s-1"), happened("a-1", "agent"), happened("s-2")]
    revs = [event.rev for event in events]
    assert revs == sorted(set(revs))
    assert await store.last_rev() == revs[-1]
    assert await store.events(revs[0]) == events[1:]
    assert await store.events(0, limit=2) == events[:2]
    assert [event.key for event in await store.events(0, kinds=["agent"])] == ["a-1"]
    assert [event.key for event in await store.events(0, 1, ("session", "agent"))] == ["s-1"]
    assert await store.events(revs[-1]) == []


async def test_a_reader_of_events_misses_none_of_concurrent_writers(store: Store) -> None:
    seen: list[int] = []
    done = asyncio.Event()

    async def read() -> None:
        while not done.is_set() or await store.last_rev() > (seen[-1] if seen else 0):
            seen.extend(event.rev for event in await store.events(seen[-1] if seen else 0))
            await asyncio.sleep(0)

    async def write(number: int) -> None:
        async with store.transaction() as tx:
            await tx.insert(site(f"n{number}"))
            await tx.append(happened(str(number)))
            await tx.append(happened(str(number)))
            if number % 5 == 0:
                raise Conflict("undone")

    reader = asyncio.create_task(read())
    await asyncio.gather(*(write(number) for number in range(40)), return_exceptions=True)
    done.set()
    await reader
    assert seen == [event.rev for event in await store.events(0)]
    assert len(seen) == 64


async def test_the_twenty_newest_decisions_are_kept_and_a_repeat_moves_the_time(store: Store) -> None:
    async with store.transaction() as tx:
        for number in range(25):
            await tx.decide("s-1", decision(number), float(number))
        await tx.decide("s-2", decision(), 3.0)
    async with store.transaction() as tx:
        await tx.decide("s-1", decision(24), 99.0)
        kept = await tx.decisions("s-1")
        assert kept == [(99.0, decision(24)), *((float(n), decision(n)) for n in range(23, 4, -1))]
        await tx.decide("s-1", decision(23), 100.0)
        assert [at for at, _ in await tx.decisions("s-1")][:3] == [100.0, 99.0, 23.0]
        assert await tx.decisions("s-2") == [(3.0, decision())]
        assert await tx.decisions("s-3") == []


async def test_two_hundred_at_once_use_a_token_up_exactly(store: Store) -> None:
    await insert(store, token(uses=3))

    async def join() -> Token | None:
        async with store.transaction() as tx:
            return await tx.consume("hash", 1.0)

    won = [used for used in await asyncio.gather(*(join() for _ in range(200))) if used is not None]
    assert sorted(used.uses_left for used in won) == [0, 1, 2]
    async with store.transaction() as tx:
        left = await tx.get(Token, "hash")
    assert left == replace(token(uses=0), version=4)


async def test_a_token_lapses_and_a_use_makes_older_copies_stale(store: Store) -> None:
    await insert(store, token(uses=2, expires_at=10.0))
    async with store.transaction() as tx:
        read = await tx.get(Token, "hash")
        assert read is not None
        assert await tx.consume("hash", 10.0) is None
        assert await tx.consume("none", 1.0) is None
        used = await tx.consume("hash", 9.9)
        assert used == replace(read, uses_left=1, version=2)
        assert await tx.get(Token, "hash") == used
        assert await tx.find(Token, kind="join") == [used]
    with pytest.raises(Stale):
        async with store.transaction() as tx:
            await tx.update(read)
    async with store.transaction() as tx:
        renewed = await tx.update(replace(used, uses_left=5, expires_at=None))
        assert await tx.consume("hash", 1e12) == replace(renewed, uses_left=4, version=4)


async def answer_again(store: Store) -> None:
    async with store.transaction() as tx:
        await tx.insert(site("second-request"))
        await tx.remember("k", "print", "other", 86400.0)


async def test_answers_are_kept_a_day_at_least_and_never_replaced(store: Store) -> None:
    async with store.transaction() as tx:
        await tx.remember("k", "print", "answer", 0.0)
        assert await tx.recall("other") is None
    with pytest.raises(Conflict):
        await answer_again(store)
    assert await sites(store) == []
    async with store.transaction() as tx:
        assert await tx.recall("k") == ("print", "answer")
        await tx.remember("k", "print2", "later", 86400.0 * 30)
        assert await tx.recall("k") == ("print2", "later")


async def test_settings_are_kept(opened: tuple[Store, Reopen]) -> None:
    store, reopen = opened
    async with store.transaction() as tx:
        assert await tx.setting("installation") is None
        await tx.set("installation", "abc")
    async with store.transaction() as tx:
        await tx.set("installation", "def")
    store = await reopen(store)
    async with store.transaction() as tx:
        assert await tx.setting("installation") == "def"


async def test_states_are_indexed_as_they_change(store: Store) -> None:
    await insert(store, session("s-1"))
    async with store.transaction() as tx:
        [row] = await tx.find(Session, state=SessionState.QUEUED)
        await tx.update(replace(row, state=SessionState.STARTING))
        assert await tx.find(Session, state=SessionState.QUEUED) == []
        assert len(await tx.find(Session, state=[SessionState.STARTING, SessionState.RUNNING])) == 1


async def test_tally_counts_rows_by_an_indexed_column(store: Store) -> None:
    async with store.transaction() as tx:
        assert await tx.tally(Session, "state") == {}
        for name, state in (("a", "queued"), ("b", "queued"), ("c", "running")):
            await tx.insert(session(f"s-{name}", state=SessionState(state)))
        assert await tx.tally(Session, "state") == {"queued": 2, "running": 1}
        with pytest.raises(ValueError, match="colour"):
            await tx.tally(Session, "colour")
