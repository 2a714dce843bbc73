"""Closing a group: drained or ended at once, and nothing comes back before it is resized."""

import pytest

from atoll.errors import Conflict, Invalid
from atoll.group import Pools, Size
from atoll.instance import Instance
from atoll.session import Lifetime, Retry
from atoll.slots import Request
from atoll.states import InstanceState
from atoll.token import Token
from tests.federation.control.ring import Ring, ring, until

VIRTUAL_TIME = True


async def no_machine(r: Ring) -> bool:
    return not r.cloud.live()


async def all_gone(r: Ring) -> bool:
    return all(row.state is InstanceState.GONE for row in await r.control.instances.list())


async def test_now_ends_every_machine_whatever_runs_there() -> None:
    async with ring() as r:
        await r.elastic(size=Size(max=3))
        [long] = await r.submit(resources=Request(cpu=3000), lifetime=Lifetime(protect=True))
        [once] = await r.submit(resources=Request(cpu=3000), retry=Retry(max=0))
        await r.until_state(long.id, "running")
        await r.until_state(once.id, "running")
        group = await r.control.groups.terminate("burst", now=True, by="ada")
        assert group.size == Size(min=0, max=0)
        await until(lambda: no_machine(r), "the cloud has none")
        await until(lambda: all_gone(r), "observed as gone")
        waiting = await r.until_state(long.id, "queued")
        failed = await r.until_state(once.id, "failed")
        assert waiting.interruptions == 1
        events = (await r.control.why.session("default", long.id)).events
        assert any("group burst was terminated by ada" in event.message for event in events)
        assert failed.reason == "RETRIES_EXHAUSTED"
        rounds = r.steps.seen.get("launch.create", 0)
        assert {row.reason for row in await r.control.instances.list()} == {"USER"}
        await r.control.groups.resize("burst", least=None, most=1, by="ada")
        await r.finish(long.id)
        await r.until_state(long.id, "succeeded")
        assert r.steps.seen["launch.create"] == rounds + 1, "nothing came back before the group was resized"


@pytest.mark.parametrize("now", [True, False])
async def test_machines_that_are_still_coming_end_at_once(now: bool) -> None:
    async with ring() as r:
        await r.elastic(size=Size(max=3))
        r.boots = False
        rows = await r.submit(count=2, resources=Request(cpu=3000))

        async def made() -> bool:
            return len(r.cloud.live()) == 2

        await until(made, "two machines boot")
        await r.control.groups.terminate("burst", now=now, by="ada")
        async with r.store.transaction() as tx:
            for instance in await tx.find(Instance):
                assert await tx.find(Token, instance=instance.id) == [], "it can join no more"
        await until(lambda: no_machine(r), "the cloud has none")
        await until(lambda: all_gone(r), "observed as gone")
        for row in rows:
            assert (await r.session(row.id)).state in ("queued", "provisioning")


async def test_now_ends_cold_machines_too() -> None:
    async with ring() as r:
        await r.elastic(idle_s=0.1, pools=Pools(cold=1))
        [row] = await r.submit(resources=Request(cpu=3000))
        await r.finish(row.id)

        async def cold() -> bool:
            return [i.state for i in await r.control.instances.list()] == [InstanceState.STOPPED]

        await until(cold, "one is cold")
        await r.control.groups.terminate("burst", now=True, by="ada")
        await until(lambda: no_machine(r), "the cloud has none")


async def test_without_now_sessions_run_to_their_end_and_cold_machines_go() -> None:
    async with ring() as r:
        await r.elastic(idle_s=0.1, pools=Pools(cold=1))
        [row] = await r.submit(resources=Request(cpu=3000))
        await r.until_state(row.id, "running")
        await r.control.groups.terminate("burst", now=False, by="ada")
        [more] = await r.submit(resources=Request(cpu=500))

        async def draining() -> bool:
            agents = await r.control.agents.list()
            return [agent.state for agent in agents] == ["draining"]

        await until(draining, "the agent drains")
        assert (await r.session(row.id)).state == "running"
        await r.finish(row.id)
        done = await r.until_state(row.id, "succeeded")
        assert done.interruptions == 0
        await until(lambda: no_machine(r), "the machine went, and was not kept cold")
        assert (await r.session(more.id)).state == "queued"


async def test_a_fixed_group_is_not_ended_by_us() -> None:
    async with ring() as r:
        await r.agent()
        with pytest.raises(Conflict, match="has no provider"):
            await r.control.groups.terminate("hall", now=True, by="ada")
        with pytest.raises(Conflict, match="has no provider"):
            await r.control.groups.resize("hall", least=0, most=1, by="ada")


async def test_bounds_must_make_sense() -> None:
    async with ring() as r:
        await r.elastic(size=Size(min=1, max=3))
        with pytest.raises(Invalid, match=r"4\.\.3"):
            await r.control.groups.resize("burst", least=4, most=None, by="ada")
        assert (await r.control.groups.resize("burst", least=None, most=5, by="ada")).size == Size(min=1, max=5)


async def test_deleting_names_what_is_in_the_way_and_the_way_out() -> None:
    async with ring() as r:
        await r.elastic()
        [row] = await r.submit(resources=Request(cpu=3000))
        await r.until_state(row.id, "running")
        with pytest.raises(Conflict, match="instance i-") as refused:
            await r.control.groups.delete("burst")
        assert "atoll group terminate burst" in refused.value.hint
        with pytest.raises(Conflict, match="group burst") as refused:
            await r.control.providers.delete("cloud")
        assert "atoll group terminate" in refused.value.hint
        await r.control.groups.terminate("burst", now=True, by="ada")
        await until(lambda: all_gone(r), "gone")
        await r.control.groups.delete("burst")
        await r.control.providers.delete("cloud")
