"""Plans are made beside the event loop, and checked again when they become rows: against what is there, and budgets."""

import asyncio
import threading
from collections.abc import Callable

from atoll.group import Pools
from atoll.plan import Plan
from atoll.states import InstanceState, Reason
from tests.federation.control.ring import ring, until
from tests.federation.control.test_round import HOUR, ROUNDS_S, WHOLE, because, budget, unchanged


async def test_a_group_says_which_budget_keeps_it_from_growing_for_as_long_as_that_holds() -> None:
    async with ring() as r:
        await r.elastic()
        await budget(r, 0.001, name="all")
        [row] = await r.submit(lifetime=HOUR)
        await because(r, row, Reason.BUDGET)
        await asyncio.sleep(ROUNDS_S)
        why = await r.control.why.group("burst")
        assert why.reason == Reason.BUDGET
        assert why.message.startswith("small/z1/on-demand at 0.1000 USD an hour is not made: budget all has no")
        assert "this needs about 0.10" in why.message
        assert "raise the budget to go on sooner" in why.message
        assert sum(step.reason is Reason.BUDGET for _, _, step in why.steps) <= 2, "told once, not in every round"
        [(_, _, step), *_] = (await r.control.why.session("default", row.id)).steps
        assert step.reason is Reason.BUDGET
        await r.control.budgets.delete("all", by="ada")
        await r.until_state(row.id, "running")

        async def steady() -> bool:
            return (await r.control.why.group("burst")).reason != Reason.BUDGET

        await until(steady, "the group grows again")


async def test_a_stopped_machine_is_not_started_beyond_a_budget() -> None:
    async with ring() as r:
        await r.elastic(pools=Pools(cold=1))
        [first] = await r.submit()
        [member] = (await r.finish(first.id)).members

        async def stopped() -> bool:
            return [row.state for row in await r.control.instances.list()] == [InstanceState.STOPPED]

        await until(stopped, "kept as a cold one")
        r.network.reset(member.agent)
        await budget(r, 0.001, name="all")
        [row] = await r.submit(lifetime=HOUR)
        await because(r, row, Reason.BUDGET)
        await unchanged(r, row, state="held")
        assert await stopped()
        assert (await r.control.why.group("burst")).reason == Reason.BUDGET
        await r.control.budgets.delete("all", by="ada")

        async def started() -> bool:
            return [m.state for m in r.cloud.machines.values()] == ["running"]

        await until(started, "started again")
        await r.agents[member.agent].dial()
        await r.until_state(row.id, "running")


async def test_what_changes_while_a_plan_is_made_is_seen_before_it_is_carried_out() -> None:
    planning, go_on, plans = asyncio.Event(), asyncio.Event(), []

    async def aside(work: Callable[[], Plan]) -> Plan:
        plans.append(work())
        planning.set()
        await go_on.wait()
        return plans[-1]

    async with ring(aside=aside) as r:
        await r.elastic()
        [gone] = await r.submit(resources=WHOLE)
        await planning.wait()
        await r.control.sessions.stop("default", gone.id, by="me")
        [stays] = await r.submit(resources=WHOLE)
        go_on.set()
        assert {step.sessions for step in plans[0].steps} == {(gone.id,)}
        await r.until_state(stays.id, "running")
        assert len(await r.control.instances.list()) == 1
        assert (await r.session(gone.id)).state == "cancelled"


async def test_the_loop_goes_on_while_a_plan_is_made() -> None:
    threads: list[bool] = []

    async def aside(work: Callable[[], Plan]) -> Plan:
        def look() -> Plan:
            threads.append(threading.current_thread() is threading.main_thread())
            return work()

        return await asyncio.to_thread(look)

    async with ring(aside=aside) as r:
        await r.elastic()
        await asyncio.sleep(ROUNDS_S)
        assert threads == [], "where nothing is to be launched, a plan is short"
        [row] = await r.submit()
        await r.until_state(row.id, "running")
        assert threads
        assert not any(threads)
