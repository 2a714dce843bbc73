"""Virtual machines: boot, join, run a real agent shell, crash, be reclaimed, end; behind the `sim` driver's port."""

import asyncio
import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from agent.events import Exit
from agent.run import AgentShell
from atoll.errors import AtollError, Unavailable
from atoll.slots import Slots
from providers.port import MachineState
from providers.sim.cloud import Boot, Cloud
from providers.sim.faults import Fault
from tests.sim.ledger import Ledger
from tests.sim.loop import Crash, Host, SimLoop
from tests.sim.runtime import Disk, MachineProcesses
from tunnel.jointoken import JoinToken
from tunnel.memory import MemoryNetwork

_M = MachineState
_TOKEN = re.compile(r"atj_[A-Za-z0-9_=.-]+")


class Surroundings(Protocol):
    """What a machine needs of the world it stands in."""

    loop: SimLoop
    host: Host
    network: MemoryNetwork
    ledger: Ledger
    random: random.Random

    async def join(self, secret: str, name: str) -> str:
        """Ask the control plane to admit an agent; return its id. Raises `AtollError`."""
        ...

    def agent_process(self, machine: "VirtualMachine", host: Host) -> "asyncio.Task[Exit]":
        """Start an agent's process on a machine."""
        ...


class VirtualMachine:
    """One machine. Its clock runs up to 5 % fast or slow; its disk outlives its processes, until it ends."""

    def __init__(self, world: Surroundings, boot: Boot, *, cloud: bool = True) -> None:
        self.name = boot.provider_id
        self.boot = boot
        self.slots: Slots = boot.slots
        self.disk = Disk()
        self.state: MachineState | None = None
        self.message = ""
        self.notice: tuple[float, str] | None = None
        self.agent_host: Host | None = None
        self.agent_up_at = 0.0
        self.born_at = 0.0
        self.shell: AgentShell | None = None
        self.processes: MachineProcesses | None = None
        self.crashes_in_journal = 0
        self._world = world
        self._cloud = cloud
        self._rate = world.random.uniform(0.95, 1.05)
        self._host: Host | None = None

    @property
    def up(self) -> bool:
        """Whether an agent's process is running here."""
        return self.agent_host is not None and not self.agent_host.dead

    @property
    def on(self) -> bool:
        """Whether it boots or runs."""
        return self.state in (_M.PENDING, _M.RUNNING)

    def switch_on(self) -> None:
        """Boot."""
        if self.on:
            return
        world = self._world
        self.state, self.message, self.notice = _M.PENDING, "booting", None
        host = self._host = Host(world.loop, self.name, self._rate)
        self.born_at = host.time(world.loop.true_time)
        self.processes = MachineProcesses(world.loop, host, self.name, self.disk, world.ledger)
        world.ledger.note(world.loop.true_time, f"on {self.name}")
        host.spawn(self._life(), f"machine {self.name}")

    def power_off(self, state: MachineState, message: str) -> None:
        """Everything on it is gone at once."""
        if self.state in (None, state, _M.ENDED):
            return
        world = self._world
        self.kill_agent()
        if self._host:
            self._host.kill()
        if self.processes:
            self.processes.power_off()
        self.state, self.message = state, message
        world.ledger.note(world.loop.true_time, f"{state} {self.name}: {message}")

    def kill_agent(self) -> None:
        """SIGKILL of the agent's process; its runs live on."""
        if self.agent_host and not self.agent_host.dead:
            self.agent_host.kill()
            self._world.host.call(self._world.network.crash_agent, self.disk.agent)
        if self.processes:
            self.processes.runtime = None

    def crash_agent(self, back_after_s: float) -> None:
        """SIGKILL of the agent's process; its machine starts it again."""
        if not self.up or self._host is None:
            return
        self._world.ledger.faults["agent crash"] += 1
        self._world.ledger.note(self._world.loop.true_time, f"the agent of {self.name} dies for {back_after_s:g} s")
        self.kill_agent()
        self._host.call(self._world.loop.call_later, back_after_s, self._run_agent)

    def journal_crash(self) -> None:
        """Called around each journal write: die there if that is to happen."""
        if self.crashes_in_journal and self._world.random.random() < 0.3:
            self.crashes_in_journal -= 1
            self._world.ledger.faults["crash in journal"] += 1
            self.crash_agent(self._world.random.uniform(0.1, 5.0))
            raise Crash

    def reclaim(self, notice_s: float) -> None:
        """Give notice, then take it away."""
        if self._host is None or self.state not in (_M.PENDING, _M.RUNNING):
            return
        self.notice = (notice_s, "the cloud takes this machine back")
        self._later(notice_s, _M.ENDED, "reclaimed by the cloud")

    def order(self, state: MachineState, message: str) -> None:
        """Stop or end it, soon."""
        if self.state is _M.STOPPED:
            self.power_off(state, message)
        else:
            self._later(self._world.random.uniform(0.2, 3.0), state, message)

    def _later(self, delay: float, state: MachineState, message: str) -> None:
        self._world.host.call(self._world.loop.call_later, delay, self.power_off, state, message)

    async def _life(self) -> None:
        await asyncio.sleep(self.boot.boot_s)
        self.state, self.message = _M.RUNNING, ""
        if self.boot.reclaim_after_s is not None:
            delay = max(self.boot.reclaim_after_s - self.boot.notice_s, 0.0)
            asyncio.get_running_loop().call_later(delay, self.reclaim, self.boot.notice_s)
        if not self.boot.joins:
            return
        if self.disk.agent or await self._join():
            self._run_agent()
        # else its boot script failed: as at most clouds, the machine stays up and costs money

    async def _join(self) -> bool:
        """Join with the token in the user data; one that is refused for good ends the boot script."""
        found = _TOKEN.search(self.boot.user_data)
        assert found, "user data holds no join token"
        secret = JoinToken.parse(found.group()).secret
        for _ in range(30):
            try:
                self.disk.agent = await self._world.join(secret, self.name)
                return True
            except Unavailable:
                await asyncio.sleep(2.0)
            except AtollError as error:
                self.message = error.message
                return False
        return False

    def _run_agent(self) -> None:
        if self.state is not _M.RUNNING or self.up:
            return
        host = self.agent_host = Host(self._world.loop, f"agent {self.name}", self._rate)
        self.agent_up_at = self._world.loop.true_time
        self._world.agent_process(self, host).add_done_callback(self._agent_ended)

    def _agent_ended(self, task: "asyncio.Task[Exit]") -> None:
        """The agent ended by itself: a cloud's machine has nothing more to run, so it is off."""
        if not task.cancelled() and task.exception() is None and self._cloud:
            self._world.host.call(self.power_off, _M.ENDED, "powered off from inside")


class MemoryInventory:
    """A cloud's memory in memory: outlives every control plane."""

    def __init__(self) -> None:
        self.cloud = Cloud()
        self.rules: tuple[Fault, ...] = ()

    @contextmanager
    def change(self) -> Iterator[Cloud]:
        """Give the cloud; nobody else runs meanwhile."""
        yield self.cloud

    def faults(self) -> tuple[Fault, ...]:
        """Return the faults of the moment."""
        return self.rules


class VirtualMachines:
    """`providers.sim.cloud.Machines` of virtual machines. `watch` is told of every stop and termination first."""

    def __init__(self, world: Surroundings, watch: Callable[[VirtualMachine], None]) -> None:
        self.machines: dict[str, VirtualMachine] = {}
        self._world = world
        self._watch = watch

    def prepare(self, boot: Boot) -> None:
        """Give a machine its disk."""
        self.machines[boot.provider_id] = VirtualMachine(self._world, boot)

    def switch_on(self, provider_id: str) -> None:
        """Boot."""
        if self.machines[provider_id].state is _M.STOPPED:
            self._world.ledger.faults["cold start"] += 1
        self._world.host.call(self.machines[provider_id].switch_on)

    def look(self, provider_id: str) -> tuple[MachineState, str] | None:
        """Return its state."""
        machine = self.machines[provider_id]
        return None if machine.state is None else (machine.state, machine.message)

    def stop(self, provider_id: str) -> None:
        """Switch off, keep the disk."""
        self._world.ledger.faults["cold stop"] += 1
        self._watch(self.machines[provider_id])
        self._world.host.call(self.machines[provider_id].order, _M.STOPPED, "stopped")

    def terminate(self, provider_id: str) -> None:
        """End."""
        self._watch(self.machines[provider_id])
        self._world.host.call(self.machines[provider_id].order, _M.ENDED, "terminated")

    def reclaim(self, provider_id: str, notice_s: float) -> None:
        """Take back."""
        self._world.host.call(self.machines[provider_id].reclaim, notice_s)

    def discard(self, provider_id: str) -> None:
        """Delete the disk."""
        self.machines[provider_id].disk = Disk(agent=self.machines[provider_id].disk.agent)

    def console(self, provider_id: str) -> str:
        """Return what it said last."""
        return self.machines[provider_id].message
