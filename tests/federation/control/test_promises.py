"""Offers that promised more than their machines have: at most one launch is wasted on each."""

from dataclasses import replace

from atoll.agent import Agent
from atoll.group import Size
from atoll.host.system import SystemClock
from atoll.instance import Instance
from atoll.slots import GIB, MIB, Gpu, Request, Slots
from federation.control.promises import Promises, least, shortfall
from tests.fakes.cloud import SMALL
from tests.federation.control.ring import Ring, ring, until

VIRTUAL_TIME = True


def less(promised: Slots) -> Slots:
    return replace(promised, memory=promised.memory - 300 * MIB)


async def no_machine(r: Ring) -> bool:
    return not r.cloud.live()


async def held(r: Ring, session: str) -> str:
    row = await r.until_state(session, "held")
    return row.message


async def test_a_machine_that_has_less_is_launched_once() -> None:
    async with ring() as r:
        r.shows = less
        await r.elastic(size=Size(max=3))
        [row] = await r.submit(resources=Request(cpu=1000, memory=8 * GIB))
        message = await held(r, row.id)
        assert "asks 8.0 GiB of memory" in message
        assert "the largest shape 7.7 GiB" in message
        await until(lambda: no_machine(r), "the machine that is of no use to it is ended")
        [another] = await r.submit(resources=Request(cpu=1000, memory=8 * GIB))
        await held(r, another.id)
        assert r.cloud.creates == 1
        events = (await r.control.why.group("burst")).events
        assert any("small promised 4 cpu, 8.0 GiB and has 4 cpu, 7.7 GiB" in event.message for event in events)
        [fits] = await r.submit(resources=Request(cpu=1000, memory=7 * GIB))
        await r.finish(fits.id)
        await r.until_state(fits.id, "succeeded")
        assert r.cloud.creates == 2
        assert (await r.session(row.id)).state == "held"


async def test_agents_on_record_teach_it_again_and_new_settings_are_believed() -> None:
    async with ring() as r:
        r.shows = less
        await r.elastic(idle_s=60.0)
        [row] = await r.submit(resources=Request(cpu=1000, memory=7 * GIB))
        await r.until_state(row.id, "running")
        await r.restart()
        [large] = await r.submit(resources=Request(cpu=1000, memory=8 * GIB))
        await held(r, large.id)
        assert r.cloud.creates == 1
        provider = await r.control.providers.get("cloud")
        r.shows = lambda promised: promised
        await r.control.providers.apply(replace(provider, settings={"image": "another"}))
        await r.until_state(large.id, "running")
        assert r.cloud.creates == 2


GPUS = replace(SMALL, slots=replace(SMALL.slots, gpu=(Gpu("L4", 2000, 24 * GIB),)))
ROW = Instance(id="i-1", provider="cloud", group="burst", site="far", shape=GPUS)


def taught(had: Slots, epoch: int = 1) -> Slots:
    promises = Promises(SystemClock())
    agent = Agent(id="a-1", name="a", site="far", group="burst", instance="i-1", capacity=had, epoch=epoch)
    promises.learn([agent], [ROW])
    elsewhere = replace(GPUS, zone="z2", spot=True)
    [shape, other, foreign] = promises.kept("cloud", [GPUS, elsewhere, replace(GPUS, name="large")])
    assert shape.slots == other.slots, "of every zone and way of paying"
    assert foreign.slots == GPUS.slots
    assert promises.kept("another", [GPUS]) == (GPUS,)
    return shape.slots


def test_what_has_all_is_believed_and_more_is_not() -> None:
    assert taught(GPUS.slots) == GPUS.slots
    assert taught(replace(GPUS.slots, cpu=64000, memory=64 * GIB)) == GPUS.slots


def test_devices_and_disk_count_as_a_machine_first_registered() -> None:
    had = replace(GPUS.slots, gpu=(Gpu("L4", 1000, 24 * GIB),), disk=18 * GIB + 7 * MIB, memory=7 * GIB)
    assert taught(had) == replace(had, disk=18 * GIB)
    assert taught(had, epoch=2) == replace(GPUS.slots, memory=7 * GIB), "a device that failed, a disk that filled"
    assert taught(replace(had, gpu=())).gpu == ()


def test_an_agent_that_has_not_registered_teaches_nothing() -> None:
    assert taught(Slots(), epoch=0) == GPUS.slots


def test_a_shortfall_is_told_but_for_disk() -> None:
    assert shortfall(GPUS, replace(GPUS.slots, disk=0)) == ""
    assert "has 4 cpu, 8.0 GiB, 1 x L4" in shortfall(GPUS, replace(GPUS.slots, gpu=(Gpu("L4", 1000, 24 * GIB),)))


def test_the_least_of_each_kind() -> None:
    left = Slots(1, 9, 3, (Gpu("L4", 2000, 24), Gpu("T4", 1000, 16)))
    assert least(left, Slots(2, 4, 3, (Gpu("L4", 3000, 22),))) == Slots(1, 4, 3, (Gpu("L4", 2000, 22),))
