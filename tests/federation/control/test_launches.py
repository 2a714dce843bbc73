"""Elastic groups: grow, survive the cloud's moods, shrink, and never leave a machine behind."""

from dataclasses import replace

import pytest

from atoll.errors import Conflict
from atoll.group import Pools, Size
from atoll.session import Lifetime
from atoll.slots import Request
from atoll.states import InstanceState
from providers.errors import Capacity, Throttled, Unknown
from providers.port import Intent, MachineState
from tests.fakes.cloud import SMALL
from tests.federation.control.ring import Ring, ring, until

VIRTUAL_TIME = True


async def no_machine(r: Ring) -> bool:
    return not r.cloud.live()


async def test_a_group_grows_for_a_session_and_goes_back_to_zero() -> None:
    async with ring() as r:
        await r.elastic()
        [row] = await r.submit(resources=Request(cpu=3000))
        provisioning = await r.until_state(row.id, "provisioning")
        assert provisioning.instance
        await r.finish(row.id)
        await r.until_state(row.id, "succeeded")
        await until(lambda: no_machine(r), "scaled to zero")

        async def all_gone() -> bool:
            rows = await r.control.instances.list()
            return all(i.state is InstanceState.GONE for i in rows) and all(i.cost >= 0 for i in rows)

        await until(all_gone, "observed as gone")
        assert r.cloud.creates == 1
        why = await r.control.why.group("burst")
        actions = [str(getattr(step, "action", "keep")) for _, _, step in reversed(why.steps)]
        assert [a for a in actions if a != "keep"] == ["launch", "drain", "terminate"]


@pytest.mark.parametrize("after", [False, True])
async def test_a_lost_reply_makes_one_machine(after: bool) -> None:
    async with ring() as r:
        await r.elastic()
        r.cloud.fail = [(Unknown("no answer"), after)]
        [row] = await r.submit(resources=Request(cpu=3000))
        await r.finish(row.id)
        await r.until_state(row.id, "succeeded")
        assert r.cloud.creates == 1
        await until(lambda: no_machine(r), "scaled to zero")


async def test_no_capacity_is_backed_off_and_tried_again() -> None:
    async with ring() as r:
        await r.elastic()
        r.cloud.fail = [(Capacity("none left"), False), (Throttled("slow down", retry_after=0.1), False)]
        [row] = await r.submit(resources=Request(cpu=3000))
        await r.finish(row.id)
        await r.until_state(row.id, "succeeded")
        gone = [i for i in await r.control.instances.list() if i.reason == "NO_CAPACITY"]
        assert len(gone) == 1
        assert r.cloud.creates == 1


async def test_a_reclaimed_machine_interrupts_and_the_session_runs_again() -> None:
    async with ring() as r:
        await r.elastic()
        [row] = await r.submit(resources=Request(cpu=3000))
        first = await r.until_state(row.id, "running")
        [machine] = r.cloud.live()
        r.cloud.take(machine.provider_id)
        r.network.refuse(first.members[0].agent, True)
        r.network.reset(first.members[0].agent)

        async def again() -> bool:
            now = await r.session(row.id)
            return now.attempt == 2 and now.state == "running"

        await until(again, "second attempt")
        done = await r.finish(row.id)
        assert done.interruptions == 1
        await r.until_state(row.id, "succeeded")


async def test_a_boot_that_never_joins_is_ended_with_its_console_kept() -> None:
    async with ring() as r:
        group = await r.elastic(size=Size(max=1))
        r.boots = False
        from dataclasses import replace

        await r.control.groups.apply(replace(group, boot_s=0.3))
        await r.submit(resources=Request(cpu=3000))

        async def ended() -> bool:
            rows = await r.control.instances.list()
            return any(i.reason == "NOT_JOINED" and i.console for i in rows if i.state is InstanceState.GONE)

        await until(ended, "ended")


async def test_a_protected_session_keeps_its_agent_while_others_go() -> None:
    async with ring() as r:
        await r.elastic()
        [long] = await r.submit(resources=Request(cpu=3000), lifetime=Lifetime(protect=True))
        [short] = await r.submit(resources=Request(cpu=3000))
        await r.until_state(long.id, "running")
        await r.finish(short.id)

        async def one_left() -> bool:
            return len(r.cloud.live()) == 1

        await until(one_left, "the other went")
        assert (await r.session(long.id)).state == "running"
        await r.finish(long.id)
        await until(lambda: no_machine(r), "scaled to zero")


async def test_an_agent_that_does_not_acknowledge_is_never_ended() -> None:
    async with ring() as r:
        await r.elastic(idle_s=0.1)
        [row] = await r.submit(resources=Request(cpu=3000))
        running = await r.until_state(row.id, "running")
        r.agents[running.members[0].agent].acknowledges = False
        await r.finish(row.id)

        async def draining() -> bool:
            return (await r.control.agents.get(running.members[0].agent)).state == "draining"

        await until(draining, "draining")
        rounds = r.steps.seen["plan.adopt"]
        assert rounds
        assert len(r.cloud.live()) == 1
        r.agents[running.members[0].agent].acknowledges = True
        r.network.reset(running.members[0].agent)
        await r.agents[running.members[0].agent].dial()
        await until(lambda: no_machine(r), "ended after its word")


async def test_cold_pool_stops_and_starts_again() -> None:
    async with ring() as r:
        await r.elastic(idle_s=0.1, pools=Pools(cold=1))
        [row] = await r.submit(resources=Request(cpu=3000))
        running = await r.until_state(row.id, "running")
        agent = r.agents[running.members[0].agent]
        await r.finish(row.id)

        async def stopped() -> bool:
            return [m.state for m in r.cloud.machines.values()] == ["stopped"]

        await until(stopped, "stopped")
        r.network.reset(running.members[0].agent)
        [again] = await r.submit(resources=Request(cpu=3000))

        async def started() -> bool:
            return [m.state for m in r.cloud.machines.values()] == ["running"]

        await until(started, "started again")
        await agent.dial()
        await r.until_state(again.id, "running")
        assert r.cloud.creates == 1


async def test_a_machine_that_cannot_be_stopped_for_the_cold_pool_is_ended() -> None:
    async with ring() as r:
        r.cloud.stops = False
        await r.elastic(idle_s=0.1, pools=Pools(cold=1))
        [row] = await r.submit(resources=Request(cpu=3000))
        await r.until_state(row.id, "running")
        await r.finish(row.id)
        await until(lambda: no_machine(r), "ended, since it would be paid for and of no use")

        async def gone() -> bool:
            return [(i.state, i.reason) for i in await r.control.instances.list()] == [("gone", "INVALID")]

        await until(gone, "its row says why")


async def test_the_sweep_ends_what_nobody_owns_and_leaves_foreign_machines() -> None:
    async with ring() as r:
        await r.elastic()
        r.boots = False
        mine = Intent(id="i-lost", owner=r.control.installation, shape=SMALL, user_data="")
        other = Intent(id="i-theirs", owner="someone-else", shape=SMALL, user_data="")
        await r.cloud.create(mine)
        await r.cloud.create(other)

        async def only_theirs() -> bool:
            return [m.intent for m in r.cloud.live()] == ["i-theirs"]

        await until(only_theirs, "orphan ended")


async def test_the_sweep_asks_again_for_an_orphan_that_fails_to_end() -> None:
    """As an OpenStack server in error: shown as ending, it holds quota until somebody deletes it."""
    async with ring() as r:
        await r.elastic()
        made = await r.cloud.create(Intent(id="i-lost", owner=r.control.installation, shape=SMALL, user_data=""))
        r.cloud.machines[made.provider_id] = replace(made, state=MachineState.ENDING)

        async def ended() -> bool:
            return r.cloud.live() == []

        await until(ended, "ended for good")


async def test_a_group_with_live_machines_cannot_be_deleted() -> None:
    async with ring() as r:
        await r.elastic()
        [row] = await r.submit(resources=Request(cpu=3000))
        await r.until_state(row.id, "running")
        with pytest.raises(Conflict, match="instance i-"):
            await r.control.groups.delete("burst")
        with pytest.raises(Conflict, match="group burst"):
            await r.control.providers.delete("cloud")
        await r.finish(row.id)


async def test_nothing_is_ended_right_after_a_restart() -> None:
    async with ring() as r:
        await r.elastic(idle_s=0.0)
        [row] = await r.submit(resources=Request(cpu=3000))
        running = await r.until_state(row.id, "running")
        await r.restart()
        assert not r.control.links.settled
        assert len(r.cloud.live()) == 1
        await r.agents[running.members[0].agent].dial()
        await r.finish(row.id)
        await until(lambda: no_machine(r), "ended once settled")
        assert r.control.links.settled
