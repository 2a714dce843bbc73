"""Machines on their way and stopped ones in the router's index, through the whole control plane and by the clock."""

from dataclasses import replace

import pytest

from atoll.group import Group
from atoll.instance import Instance
from atoll.offer import Decision, OfferKind, Outcome
from atoll.session import Session
from atoll.slots import Request
from atoll.states import InstanceState, Reason
from federation.control.seating import _start_s
from tests.fakes.cloud import SMALL
from tests.federation.control.ring import Ring, ring, until

VIRTUAL_TIME = True

HALF = Request(cpu=SMALL.slots.cpu // 2)


async def joins(r: Ring, row: Session) -> Decision:
    """The first decision for a session that is to be served by an instance on its way."""

    async def told() -> Decision | None:
        async with r.store.transaction() as tx:
            found = [decision for _, decision in await tx.decisions(row.id)]
        return next((d for d in found if d.taken and d.taken[0].kind is OfferKind.PENDING), None)

    return await until(told, f"{row.name} joins a machine")


async def test_a_session_joins_the_machine_that_is_made_for_another_and_says_so() -> None:
    async with ring() as r:
        r.boots = False
        await r.elastic()
        [first] = await r.submit(resources=HALF)
        waits = await r.until_state(first.id, "provisioning")
        [second] = await r.submit(resources=HALF)
        decision = await joins(r, second)
        assert (decision.outcome, decision.reason) == (Outcome.LAUNCH, Reason.WAITING_FOR_INSTANCE)
        assert decision.message.startswith(f"joins instance {waits.instance} of group burst, there in about ")
        assert (await r.until_state(second.id, "provisioning")).instance == waits.instance, "as the planner did"
        [third] = await r.submit(resources=HALF)
        other = await r.until_state(third.id, "provisioning")
        assert other.instance != waits.instance, "there is no room for it"
        assert len(await r.control.instances.list()) == 2


@pytest.mark.parametrize(
    ("state", "now", "left"),
    [
        (InstanceState.BOOTING, 1000.0, 60.0),
        (InstanceState.BOOTING, 1045.0, 15.0),
        (InstanceState.BOOTING, 1080.0, 40.0),  # late: half as long again
        (InstanceState.BOOTING, 1550.0, 50.0),  # given up then
        (InstanceState.BOOTING, 1700.0, 0.0),
        (InstanceState.STARTING, 1045.0, 55.0),  # counted from when it was started
    ],
)
def test_the_time_until_a_machine_is_there(state: InstanceState, now: float, left: float) -> None:
    row = Instance(
        id="i-1",
        provider="sim",
        group="burst",
        site="sim",
        shape=replace(SMALL, start_s=60.0),
        state=state,
        created_at=1000.0,
        since=1040.0,
    )
    assert _start_s(row, Group(name="burst", site="sim", boot_s=600.0), now) == left
