"""A real agent shell on a virtual machine: link in memory, journal on the simulated disk, simulated runtime."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from agent.core import Machine
from agent.events import Exit
from agent.run import AgentShell
from tests.sim.clocks import SimChance
from tests.sim.hosted import HostedDialer
from tests.sim.loop import Host
from tests.sim.runtime import DiskJournal, SimRuntime
from tunnel import wire
from tunnel.link import Link

if TYPE_CHECKING:
    from tests.sim.machines import VirtualMachine
    from tests.sim.world import World


class WatchedShell(AgentShell):
    """The shell, with I13 watched at its door: after registering, the verdict comes before any placement."""

    def watch(self, violated: Callable[[str], None]) -> None:
        """Tell of each violation."""
        self._violated = violated
        self._welcomed: Link | None = None

    def received(self, link: Link, message: wire.FromAgent | wire.FromControl, /) -> None:
        """A message of the control plane."""
        if isinstance(message, wire.Welcome):
            self._welcomed = link
        elif not isinstance(message, wire.Refuse) and self._welcomed is not link:
            self._violated(f"{type(message).__name__} came before Welcome")
        super().received(link, message)


class MachineNotices:
    """`agent.run.Notices` of a virtual machine."""

    def __init__(self, machine: "VirtualMachine") -> None:
        self._machine = machine

    def check(self) -> tuple[float, str] | None:
        """Return the cloud's notice, once there is one."""
        return self._machine.notice


def agent_process(world: "World", machine: "VirtualMachine", host: Host) -> "asyncio.Task[Exit]":
    """Start an agent process on a machine, as `host`."""
    assert machine.processes is not None
    boot = f"{machine.name} {world.loop.steps}"
    chance = SimChance(f"agent {boot}")
    shell = WatchedShell(
        HostedDialer(host, world.network.dialer(machine.disk.agent)),
        SimRuntime(world.loop, host, machine.processes, machine.disk, chance),
        DiskJournal(machine.disk, machine.journal_crash),
        world.clock,
        chance,
        Machine(version="sim", boot=boot, capacity=machine.slots, born_at=machine.born_at),
        notices=MachineNotices(machine),
    )
    shell.watch(lambda text: world.ledger.violated(world.loop.true_time, "I13", f"{machine.name}: {text}"))
    machine.shell = shell
    return host.spawn(shell.run(), f"agent {machine.name}")
