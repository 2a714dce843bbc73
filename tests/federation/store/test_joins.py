"""A join token is good once, however many use it at once: the use case over each kind of database (S1)."""

import asyncio
from collections.abc import Sequence

import pytest

from atoll.agent import Agent
from atoll.clock import Clock
from atoll.errors import Unauthorized
from atoll.host.system import SystemChance, SystemClock
from federation.control.changes import Changes
from federation.control.steps import Steps
from federation.control.tokens import Joined, Tokens
from federation.ports import Store
from federation.store.bus import LocalBus
from federation.store.database import open_store
from tests.federation.control.ring import CONFIG

ASKERS = 1000


def use_cases(store: Store, count: int) -> list[Tokens]:
    """As of so many control planes on one database: no lock in a process orders their commits."""
    clock: Clock = SystemClock()
    return [
        Tokens(Changes(store, LocalBus(), clock, Steps()), CONFIG, SystemChance(), lambda: None) for _ in range(count)
    ]


async def all_join(planes: Sequence[Tokens], secret: str) -> list[Joined | BaseException]:
    joins = [
        planes[number % len(planes)].join(secret, f"key {number}", f"host-{number}", {}) for number in range(ASKERS)
    ]
    return await asyncio.gather(*joins, return_exceptions=True)


@pytest.mark.parametrize(("planes", "uses"), [(1, 1), (4, 7)])
async def test_of_a_thousand_at_once_as_many_join_as_the_token_has_uses(url: str, planes: int, uses: int) -> None:
    store = await open_store(url, SystemClock())
    try:
        tokens = use_cases(store, planes)
        _, secret = await tokens[0].create_join(site="here", group="hall", uses=uses)
        answers = await all_join(tokens, secret)
        joined = [answer for answer in answers if isinstance(answer, Joined)]
        refused = [answer for answer in answers if not isinstance(answer, Joined)]
        assert len(joined) == uses
        assert len(refused) == ASKERS - uses
        assert {(type(error), str(error)) for error in refused} == {
            (Unauthorized, "this join token is not valid: it is unknown, expired, or already used")
        }
        async with store.transaction() as tx:
            agents = await tx.find(Agent)
        assert {row.id for row in agents} == {answer.agent.id for answer in joined}
        [row] = await tokens[0].list()
        assert row.uses_left == 0
    finally:
        await store.close()
