"""Limits of accounts: told by the cloud or learned from its refusals, respected, shown."""

from dataclasses import replace

from atoll.group import Size
from atoll.slots import Request, Slots
from atoll.states import Reason
from providers.errors import Quota
from providers.port import Limit
from tests.fakes.cloud import SMALL
from tests.federation.control.ring import Ring, ring, until

VIRTUAL_TIME = True

VCPUS = Limit(name="vcpus", limit=4, used=0, counts="cpu")
LARGE = replace(SMALL, name="large", slots=Slots(cpu=8000, memory=SMALL.slots.memory), price=900_000)


async def quota_noted(r: Ring) -> bool:
    plans = await r.control.groups.plans("burst")
    return any(note.reason is Reason.QUOTA for plan in plans for note in plan.notes)


async def test_a_told_limit_is_never_exceeded_and_is_noted() -> None:
    async with ring() as r:
        r.cloud.limits = [VCPUS]
        await r.elastic(size=Size(max=3))
        rows = await r.submit(count=3, resources=Request(cpu=3000))
        await until(lambda: quota_noted(r), "a plan says why it does not grow")
        for row in rows:
            await r.finish(row.id)
            await r.until_state(row.id, "succeeded")
            assert len(r.cloud.live()) <= 1
        assert not [i for i in await r.control.instances.list() if i.reason == "QUOTA"], "it was never refused"


async def test_what_others_use_of_the_account_counts() -> None:
    async with ring() as r:
        r.cloud.limits = [replace(VCPUS, limit=8, used=6)]
        await r.elastic()
        [row] = await r.submit(resources=Request(cpu=3000))
        await until(lambda: quota_noted(r), "no room beside the others")
        assert r.cloud.creates == 0
        [told] = [d for _, d in (await r.control.why.session("default", row.id)).decisions][:1]
        assert told.rejected[0].reason is Reason.QUOTA
        [(ceiling, left)] = (await r.control.health.look("cloud")).limits
        assert (ceiling.committed, ceiling.limit, ceiling.learned, left) == (6, 8, False, 0.0)


async def test_a_refusal_teaches_the_limit_for_its_shapes_only() -> None:
    async with ring() as r:
        r.cloud.offered = [SMALL, LARGE]
        r.cloud.fail = [(Quota("no more of these", name="family-s"), False)]
        await r.elastic(size=Size(max=3))
        [row] = await r.submit(resources=Request(cpu=3000))
        await r.until_state(row.id, "running")
        [machine] = await r.control.instances.list(states=["joined"])
        assert machine.shape.name == "large", "another shape serves it"
        [(ceiling, left)] = (await r.control.health.look("cloud")).limits
        assert (ceiling.name, ceiling.limit, ceiling.shapes, ceiling.learned) == ("family-s", 0, ("small",), True)
        assert 0 < left <= r.config.learned_s
        assert (await r.control.health.look("cloud")).pauses == (), "a quota pauses no call"
        await r.finish(row.id)


async def test_what_was_learned_is_forgotten_after_a_while() -> None:
    r = Ring(config=replace(Ring().config, learned_s=0.3))
    await r.start()
    try:
        r.cloud.fail = [(Quota("no more"), False)]
        await r.elastic()
        [row] = await r.submit(resources=Request(cpu=3000))
        await until(lambda: quota_noted(r), "it waits for the limit")
        await r.finish(row.id)
        assert r.cloud.creates == 1
        assert (await r.control.health.look("cloud")).limits == ()
    finally:
        await r.close()


async def test_the_learned_limit_is_what_is_live_and_gives_way_as_that_ends() -> None:
    async with ring() as r:
        await r.elastic(size=Size(max=3))
        [first] = await r.submit(resources=Request(cpu=3000))
        await r.until_state(first.id, "running")
        r.cloud.fail = [(Quota("no more"), False)]
        [second] = await r.submit(resources=Request(cpu=3000))
        await until(lambda: quota_noted(r), "the second waits")
        [(ceiling, _)] = (await r.control.health.look("cloud")).limits
        assert (ceiling.limit, ceiling.committed) == (1, 1)
        await r.finish(first.id)
        await r.finish(second.id)
        await r.until_state(second.id, "succeeded")
