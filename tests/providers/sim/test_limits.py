"""Limits of a pretend account: told, counted over its machines, and kept to."""

from dataclasses import replace

import pytest

from atoll.host.system import SystemClock
from providers.errors import Quota
from providers.port import Intent, Machine, MachineState
from providers.prices.book import Book
from providers.sim.cloud import Boot
from providers.sim.driver import Sim
from providers.sim.settings import parse
from tests.sim.machines import MemoryInventory


class Hall:
    """Machines that run from the moment they are switched on."""

    def __init__(self) -> None:
        self.states: dict[str, MachineState] = {}

    def prepare(self, boot: Boot) -> None:
        self.states[boot.provider_id] = MachineState.PENDING

    def switch_on(self, provider_id: str) -> None:
        self.states[provider_id] = MachineState.RUNNING

    def look(self, provider_id: str) -> tuple[MachineState, str] | None:
        return self.states[provider_id], ""

    def stop(self, provider_id: str) -> None:
        self.states[provider_id] = MachineState.STOPPED

    def terminate(self, provider_id: str) -> None:
        self.states[provider_id] = MachineState.ENDED

    def reclaim(self, provider_id: str, notice_s: float) -> None:
        self.terminate(provider_id)

    def discard(self, provider_id: str) -> None:
        return

    def console(self, provider_id: str) -> str:
        return ""


def account(**limits: int) -> Sim:
    settings = parse({"shapes": ["cpu-2", "cpu-4"], "limits": limits})
    return Sim("pretend", settings, MemoryInventory(), Hall(), SystemClock())


async def make(sim: Sim, name: str, shape: str = "cpu-2") -> Machine:
    wanted = next(each for each in await sim.shapes(Book()) if each.name == shape and not each.spot)
    return await sim.create(Intent(id=name, owner="me", shape=wanted, user_data=""))


async def test_limits_are_told_with_what_is_used() -> None:
    sim = account(cpu=6, instances=9)
    await make(sim, "i-1", "cpu-4")
    assert {(each.name, each.counts, each.limit, each.used) for each in await sim.quota()} == {
        ("cpu", "cpu", 6, 4), ("instances", "instances", 9, 1),
    }  # fmt: skip
    assert await account().quota() == []


async def test_more_than_the_limit_is_refused_by_its_name_until_a_machine_has_ended() -> None:
    sim = account(cpu=6)
    first = await make(sim, "i-1", "cpu-4")
    with pytest.raises(Quota, match="4 of 6 cpu") as refused:
        await make(sim, "i-2", "cpu-4")
    assert refused.value.name == "cpu"
    await make(sim, "i-3", "cpu-2")
    assert await make(sim, "i-1", "cpu-4") == replace(first, state=MachineState.RUNNING), "what exists is no more"
    await sim.terminate(first.provider_id)
    await make(sim, "i-2", "cpu-4")


async def test_a_stopped_machine_keeps_its_share() -> None:
    sim = account(instances=1)
    machine = await make(sim, "i-1")
    await sim.stop(machine.provider_id)
    with pytest.raises(Quota):
        await make(sim, "i-2")
