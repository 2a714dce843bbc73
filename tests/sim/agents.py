"""STAND-IN until agent.run lands."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from agent import events
from agent.core import Core, Machine
from agent.logpump import LogPump
from tests.sim.hosted import HostedDialer
from tests.sim.loop import Host
from tests.sim.runtime import DiskJournal, SimRuntime
from tests.sim.clocks import SimChance
from tunnel import wire
from tunnel.backoff import Backoff
from tunnel.link import Link, Side

if TYPE_CHECKING:
    from tests.sim.machines import VirtualMachine
    from tests.sim.world import World


class MiniShell:
    def __init__(self, world, machine, host, runtime, journal, chance):
        self.world, self.machine, self.host, self.runtime, self.journal = world, machine, host, runtime, journal
        self.loop = world.loop
        self.backoff = Backoff(chance)
        self.link = None
        self.core = Core(Machine("1", host.name + str(self.loop.steps), machine.slots, {}, (), self.loop.time()))
        self.pump = LogPump()
        self.over = asyncio.Event()
        self.down = asyncio.Event()
        self.exit = None
        self.noticed = False

    async def run(self):
        dialer = HostedDialer(self.host, self.world.network.dialer(self.machine.disk.agent))
        self.runtime.attach(self)
        entries, terms = self.journal.load()
        self.event(events.Restored(tuple(entries), terms))
        ticker = asyncio.ensure_future(self.tick())
        linker = asyncio.ensure_future(self.keep(dialer))
        await self.over.wait()
        await asyncio.sleep(0.5)
        ticker.cancel(); linker.cancel()
        if self.link: self.link.close("exit")
        await asyncio.sleep(0.5)

    async def keep(self, dialer):
        while True:
            self.down.clear()
            try:
                await dialer.dial(lambda: Link(self, side=Side.AGENT))
                await self.down.wait()
            except (OSError, TimeoutError):
                pass
            await asyncio.sleep(self.backoff.next())

    async def tick(self):
        while True:
            await asyncio.sleep(0.5)
            if self.machine.notice and not self.noticed and self.core.registered:
                self.noticed = True
                self.event(events.NoticeSeen(*self.machine.notice))
            self.event(events.Tick())
            self.send_logs()

    def event(self, event):
        for command in self.core.handle(event, self.loop.time()):
            match command:
                case events.Send(message): 
                    if self.link: self.link.send(message)
                case events.Adopt(runs): self.runtime.adopt(runs)
                case events.JournalPut(entry): self.journal.put(entry)
                case events.JournalTerms(terms): self.journal.put_terms(terms)
                case events.Spawn(run, spec, slots, env, gpus): self.runtime.spawn(run, spec, slots, env, gpus)
                case events.Terminate(run): self.runtime.terminate(run)
                case events.Kill(run): self.runtime.kill(run)
                case events.Drop(run): self.journal.drop(run); self.runtime.forget(run); self.pump.forget(run)
                case events.Exit(): self.exit = command; self.over.set()

    def send_logs(self):
        if self.link and self.core.registered:
            self.pump.send(lambda p: self.runtime.read_log(p.run, p.channel, p.offset, p.limit),
                lambda p, d: self.link.send(wire.Log(run=p.run, channel=p.channel, offset=p.offset, data=d)))

    def observed(self, event): self.event(event); self.send_logs()
    def grown(self, run, channel, size): self.pump.grown(run, channel, size); self.send_logs()
    def linked(self, link): self.link = link; self.pump.restart(); self.event(events.Linked())
    def received(self, link, message):
        if link is not self.link: return
        if isinstance(message, wire.LogAck): self.pump.acked(message.run, message.channel, message.offset)
        if isinstance(message, wire.Welcome):
            for run in self.core.runs:
                self.pump.grown(run, "out", self.runtime.log_size(run, "out"))
        self.event(events.Received(message)); self.send_logs()
    def stream_opened(self, link, opening): return None
    def lost(self, link, reason):
        if link is self.link: self.link = None; self.event(events.Unlinked()); self.down.set()


def agent_process(world: "World", machine: "VirtualMachine", host: Host) -> Callable[[], "asyncio.Task[None]"]:
    def begin():
        chance = SimChance(f"agent {machine.name} {world.loop.steps}")
        runtime = SimRuntime(world.loop, host, machine.processes, machine.disk, chance)
        shell = host.call(MiniShell, world, machine, host, runtime, DiskJournal(machine.disk, machine.journal_crash), chance)
        machine.shell = shell
        return host.spawn(shell.run(), f"agent {machine.name}")
    return begin
