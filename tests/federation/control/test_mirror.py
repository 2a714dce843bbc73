"""The rows in memory are those of the store, whatever was committed and wherever it failed."""

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.agent import Agent
from atoll.group import Group, Provider
from atoll.host.system import SystemClock
from atoll.instance import Instance, Shape
from atoll.session import Member, Moving, Session, SessionSpec
from atoll.site import Site
from atoll.slots import Slots
from atoll.states import AgentState, InstanceState, Reason, SessionState
from federation.control.changes import Changes
from federation.control.mirror import Mirror
from federation.control.steps import Steps
from federation.store.bus import LocalBus
from tests.fakes.store import MemoryStore

AGENTS = ("a-1", "a-2", "a-3")


def changes(store: MemoryStore) -> Changes:
    return Changes(store, LocalBus(), SystemClock(), Steps(None))


async def fresh(store: MemoryStore) -> Mirror:
    mirror = Mirror()
    async with store.transaction() as tx:
        await mirror.load(tx)
    return mirror


def rows(mirror: Mirror) -> list[object]:
    tables = (mirror.sessions, mirror.agents, mirror.groups, mirror.instances, mirror.providers, mirror.sites)
    return [dict(table) for table in tables]


def session(key: str, state: SessionState, on: tuple[str, ...], to: tuple[str, ...]) -> Session:
    def members(agents: tuple[str, ...]) -> tuple[Member, ...]:
        return tuple(Member(rank=n, agent=agent, slots=Slots(1000)) for n, agent in enumerate(agents))

    moving = Moving(reason=Reason.HOMECOMING, message="", to=members(to)) if to else None
    return Session(
        id=key,
        name=key,
        project="p",
        owner="o",
        spec=SessionSpec(command=("true",)),
        state=state,
        members=members(on),
        moving=moving,
    )


placements = st.lists(st.sampled_from(AGENTS), max_size=2, unique=True).map(tuple)
writes = st.one_of(
    st.builds(session, st.sampled_from(["s-1", "s-2"]), st.sampled_from(SessionState), placements, placements),
    st.builds(
        Agent,
        id=st.sampled_from(AGENTS),
        name=st.just("n"),
        site=st.just("here"),
        group=st.just("g"),
        state=st.sampled_from(AgentState),
    ),
    st.builds(
        Instance,
        id=st.sampled_from(["i-1", "i-2"]),
        provider=st.just("sim"),
        group=st.just("g"),
        site=st.just("here"),
        shape=st.just(Shape(provider="sim", name="m", zone="z", slots=Slots(1000), price=1)),
        state=st.sampled_from(InstanceState),
    ),
    st.builds(Group, name=st.sampled_from(["g", "h"]), site=st.just("here")),
    st.builds(Provider, name=st.sampled_from(["sim", "aws"]), kind=st.just("sim")),
    st.builds(Site, name=st.sampled_from(["here", "there"]), price=st.integers(0, 9)),
)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.lists(writes, max_size=3), st.sampled_from(["commit", "fail", "delete"])), max_size=12))
def test_the_mirror_is_what_the_store_would_tell(history: list[tuple[list[object], str]]) -> None:
    async def play() -> None:
        store = MemoryStore()
        kept = changes(store)
        mirror = await kept.rows()
        for wrote, end in history:
            mirror.take_changed()
            before = {agent: mirror.on_agent(agent) for agent in AGENTS}
            try:
                await write(kept, wrote, end)
            except RuntimeError:
                assert end == "fail"
            true = await fresh(store)
            assert rows(await kept.rows()) == rows(true)
            for agent in AGENTS:
                here = sorted(mirror.on_agent(agent), key=lambda row: row.id)
                assert here == sorted(true.on_agent(agent), key=lambda row: row.id)
            moved = {agent for agent in AGENTS if before[agent] != mirror.on_agent(agent)}
            assert moved <= mirror.take_changed()

    asyncio.run(play())


async def write(kept: Changes, wrote: list[object], end: str) -> None:
    async with kept.commit("test") as change:
        for row in wrote:
            kind, key = type(row), getattr(row, "id", None) or row.name  # type: ignore[attr-defined]
            have = await change.tx.get(kind, key)  # type: ignore[type-var]
            if end == "delete":
                await change.tx.delete(kind, key)  # type: ignore[type-var]
            elif have is None:
                await change.tx.insert(row)  # type: ignore[type-var]
            else:
                await change.tx.update(replace(row, version=have.version))  # type: ignore[type-var,attr-defined]
        if end == "fail":
            raise RuntimeError("the caller's own error")


async def test_a_commit_of_unknown_outcome_is_read_again() -> None:
    store = MemoryStore()
    kept = changes(store)
    mirror = await kept.rows()

    async def cut(moment: str) -> None:
        if moment.startswith("after:"):
            raise OSError("the answer of the commit was lost")

    store.on_commit = cut
    with pytest.raises(OSError, match="lost"):
        await write(kept, [Site(name="here")], "commit")
    store.on_commit = None
    assert not mirror.loaded
    assert list((await kept.rows()).sites) == ["here"]


async def test_an_error_before_the_commit_costs_no_reading() -> None:
    kept = changes(MemoryStore())
    mirror = await kept.rows()
    with pytest.raises(RuntimeError):
        await write(kept, [Site(name="here")], "fail")
    assert mirror.loaded
