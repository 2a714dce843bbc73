"""The simulated world: real control plane, real agent shells; simulated clouds, machines, links and disks."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from agent.events import Exit
from atoll.budget import Budget, Do, Period, Stage
from atoll.errors import AtollError, Conflict, Unavailable
from atoll.group import Group, GroupKind, Pools, Provider, ScaleDown, Size
from atoll.instance import Instance
from atoll.plan import Move, Plan
from atoll.session import Session, SessionSpec
from atoll.slots import GIB, Slots
from atoll.states import ENDED, InstanceState, Reason, SessionState
from federation.control.config import ControlConfig
from federation.control.control import Control
from federation.control.steps import Steps
from federation.store.bus import LocalBus
from providers.errors import ProviderError
from providers.port import Intent, MachineState
from providers.prices.book import Book
from providers.sim.cloud import Boot
from providers.sim.driver import Sim
from providers.sim.settings import parse
from tests.fakes.authority import FakeAuthority
from tests.fakes.store import MemoryLogs, MemoryStore
from tests.sim.agents import agent_process
from tests.sim.clocks import SimChance, SimClock
from tests.sim.hosted import Hosted
from tests.sim.ledger import Ledger, Life
from tests.sim.loop import BEGIN, Crash, Host, SimLoop
from tests.sim.machines import MemoryInventory, VirtualMachine, VirtualMachines
from tests.sim.scenario import CHAOS_S, Scenario
from tunnel.jointoken import JoinToken
from tunnel.memory import MemoryNetwork

Answer = TypeVar("Answer")
CAP = 3
BOOT_DEADLINE_S = 90.0
SETTLED_S = 3600.0
"""After the chaos, everything must have come right within this."""


class World:
    """One run. `play` is the whole story; checkers look at it from outside."""

    def __init__(self, loop: SimLoop, seed: int, scenario: Scenario) -> None:
        self.loop = loop
        self.seed = seed
        self.scenario = scenario
        self.random = random.Random(f"world {seed}")
        self._mover = random.Random(f"mover {seed}")
        self._planner = random.Random(f"planner {seed}")
        self.host = Host(loop, "world")
        self.ledger = Ledger()
        self.network = MemoryNetwork(latency=lambda: self.random.uniform(0.0005, 0.08))
        self.clock = SimClock(loop)
        self.store = MemoryStore()
        self.logs = MemoryLogs()
        self.inventories = {name: MemoryInventory() for name in scenario.providers}
        self.halls = {name: VirtualMachines(self, self._about_to_end) for name in scenario.providers}
        self.on_end: Callable[[VirtualMachine], None] = lambda _machine: None
        self.local: VirtualMachine | None = None
        self.control: Control | None = None
        self.control_host: Host | None = None
        self.lives = 0
        self.calm = True
        self.done = False
        self.submitted: dict[str, SessionSpec] = {}
        self.cancelled: set[str] = set()
        self.removed: set[str] = set()
        self.orphaned: set[str] = set()
        self._steps_seen: dict[str, int] = {}
        self._crashes_left = scenario.crashes
        self._joins_to_lose = scenario.lost_joins
        self._asked: set[asyncio.Future[object]] = set()

    # -- the control plane's processes ----------------------------------------------------------------------

    async def start_control(self) -> None:
        """Start a control plane over what the last one left."""
        self.lives += 1
        host = self.control_host = Host(self.loop, f"control {self.lives}", self.random.uniform(0.99, 1.01))
        self.store = self.store.restarted()
        config = ControlConfig(
            authority=FakeAuthority(),
            agent_url="https://control.sim",
            secret_key=b"secret",
            schedule_s=4.0,
            launch_s=4.0,
            watch_s=4.0,
            plan_s=0.0,
        )
        chance = SimChance(f"control {self.seed} {self.lives}")
        steps = Steps(self._step)
        control = host.call(
            lambda: Control(
                self.store, self.logs, LocalBus(), self.clock, chance, self._driver, steps, config, aside=self._aside
            )
        )
        started: asyncio.Future[object] = self.loop.create_future()
        self._asked.add(started)

        async def start() -> None:
            await control.start()
            if not started.done():
                started.set_result(None)

        host.spawn(start(), "control start")
        try:
            await started
        except Unavailable:
            return
        finally:
            self._asked.discard(started)
        if host.dead:  # it died between its start and this moment
            return
        self.control = control
        self.network.listen(lambda _peer: Hosted(host, control.links.accept()))
        self.ledger.note(self.loop.true_time, f"control {self.lives} is up")

    def crash_control(self, why: str) -> None:
        """SIGKILL of the control plane; it is started again some time later."""
        if self.control_host is None or self.control_host.dead:
            return
        self.control_host.kill()
        self.control = None
        self.ledger.note(self.loop.true_time, f"control dies: {why}")
        self.host.call(self._after_crash)

    def _after_crash(self) -> None:
        self.network.crash_control()
        for asked in list(self._asked):
            if not asked.done():
                asked.set_exception(Unavailable("the control plane is down"))
        self.loop.call_later(self.random.choice((0.2, 3.0, 20.0, 60.0)), self._restart)

    def _restart(self) -> None:
        self.host.spawn(self.start_control(), "control restart")

    def _step(self, phase: str, name: str) -> None:
        """Crash before or after a step, rare ones as likely as frequent ones."""
        if self.calm or self._crashes_left <= 0:
            return
        seen = self._steps_seen[name] = self._steps_seen.get(name, 0) + 1
        if self.random.random() < self.scenario.crash_chance / seen**0.5:
            self._crashes_left -= 1
            self.ledger.faults[f"crash {phase} step"] += 1
            self.crash_control(f"{phase} {name}")
            raise Crash

    def _driver(self, provider: Provider) -> Sim:
        inventory, hall = self.inventories[provider.name], self.halls[provider.name]
        return Sim(provider.name, parse(provider.settings), inventory, hall, self.clock)

    # -- clients ------------------------------------------------------------------------------------------

    async def ask(self, call: Callable[[Control], Awaitable[Answer]]) -> Answer:
        """Call the control plane as a client over HTTP would; raise `Unavailable` when it is down or dies on it."""
        control, host = self.control, self.control_host
        if control is None or host is None:
            raise Unavailable("the control plane is down")
        answer: asyncio.Future[Answer] = self.loop.create_future()
        self._asked.add(answer)  # type: ignore[arg-type]

        async def work() -> None:
            try:
                result = await call(control)
            except AtollError as error:
                if not answer.done():
                    answer.set_exception(error)
            else:
                if not answer.done():
                    answer.set_result(result)

        host.spawn(work(), "request")
        try:
            return await answer
        finally:
            self._asked.discard(answer)

    async def insist(self, call: Callable[[Control], Awaitable[Answer]]) -> Answer:
        """Ask again until there is an answer."""
        while True:
            try:
                return await self.ask(call)
            except Unavailable:
                await asyncio.sleep(1.0)

    async def join(self, secret: str, name: str) -> str:
        """Join as a machine does; the answer may get lost."""
        joined = await self.ask(lambda control: control.tokens.join(secret, f"key of {name}", name, {}))
        if self._joins_to_lose and not self.calm:
            self._joins_to_lose -= 1
            self.ledger.faults["lost join reply"] += 1
            raise Unavailable("no answer")
        return joined.agent.id

    def agent_process(self, machine: VirtualMachine, host: Host) -> "asyncio.Task[Exit]":
        """Start an agent's process on a machine."""
        return agent_process(self, machine, host)

    # -- the story ------------------------------------------------------------------------------------------

    @property
    def machines(self) -> list[VirtualMachine]:
        """Every machine there ever was."""
        made = [machine for hall in self.halls.values() for machine in hall.machines.values()]
        return [self.local, *made] if self.local else made

    def known_runs(self, machine: VirtualMachine) -> set[str]:
        """Return the runs that the agent on a machine counts as live."""
        return set(machine.shell.core.live) if machine.shell else set()

    def live_instances(self) -> int:
        """Return how many machines the clouds still have."""
        states = [record.state for inv in self.inventories.values() for record in inv.cloud.machines.values()]
        return sum(state is not MachineState.ENDED for state in states)

    async def play(self) -> None:
        """Set up, let users and faults at it, let it calm down, and wait for the end of everything."""
        await self.start_control()
        await self._set_up()
        await self._set_budget(self.scenario.budget)
        self.calm = False
        for name, rules in self.scenario.cloud_faults.items():
            self.inventories[name].rules = rules
        async with asyncio.TaskGroup() as group:
            for order in self.scenario.orders:
                group.create_task(self._user(order.at, order.spec, order.stop_at))
            group.create_task(self._chaos())
        self.calm = True
        await self._set_budget(None)
        for inventory in self.inventories.values():
            inventory.rules = ()
        await self._until(self._all_ended, "every session ends")
        await self._until(self._logs_are_in, "all output arrives")
        await self._close_groups()
        await self._until(lambda: self.live_instances() == 0, "every instance ends")
        await self._until(self._all_gone, "every instance row is settled")
        self.done = True

    async def _close_groups(self) -> None:
        now = self.scenario.closing == "now"

        async def close(control: Control) -> None:
            for name in self.scenario.providers:
                await control.groups.terminate(name, now=now, by="u")

        await self.insist(close)

    async def _set_budget(self, amount: int | None) -> None:
        """Limit what clouds may cost from now on; None: hardly at all. Without a budget in the story there is none."""
        if self.scenario.budget is None:
            return
        row = Budget(name="all", amount=amount or 10**12, period=Period.TOTAL, stages=(Stage(at=1.0, do=Do.HOLD),))
        self.ledger.faults["budget"] += 1
        await self.insist(lambda control: control.budgets.apply(row, by="u"))

    async def _set_up(self) -> None:
        shapes = {"cheap": ["cpu-2", "cpu-4"], "dear": ["cpu-4", "cpu-8"]}
        for name in self.scenario.providers:
            settings: dict[str, object] = {"shapes": shapes[name], "boot_s": 8.0, "latency_s": 0.2}
            settings["limits"] = self.scenario.limits.get(name, {})
            provider = Provider(name=name, kind="sim", settings=settings)
            await self.insist(lambda control, row=provider: control.providers.apply(row))  # type: ignore[misc]
            elastic = Group(
                name=name,
                site=f"{name}-site",
                kind=GroupKind.ELASTIC,
                provider=name,
                spot=name == "cheap",
                size=Size(min=0, max=CAP),
                pools=Pools(cold=self.scenario.cold[name]),
                scale_down=ScaleDown(idle_s=15.0, cooldown_s=10.0),
                boot_s=BOOT_DEADLINE_S,
                lease_s=300.0,
            )
            await self.insist(lambda control, row=elastic: control.groups.apply(row))  # type: ignore[misc]
        _, secret = await self.insist(lambda control: control.tokens.create_join(site="home", group="home"))
        token = JoinToken(url="https://control.sim", pin=FakeAuthority.pin, secret=secret).text()
        boot = Boot(provider_id="local", user_data=token, slots=Slots(2000, 4 * GIB, 20 * GIB), boot_s=0.1)
        self.local = VirtualMachine(self, boot, cloud=False)
        self.local.switch_on()

    async def _user(self, at: float, spec: SessionSpec, stop_at: float | None) -> None:
        await asyncio.sleep(at)
        key = (f"key of {spec.name}", "fingerprint")
        rows: list[Session] = await self.insist(
            lambda control: control.sessions.submit(spec, project="p", owner="u", idempotency=key)
        )
        self.submitted[rows[0].id] = rows[0].spec
        if stop_at is not None:
            await asyncio.sleep(stop_at - at)
            self.cancelled.add(rows[0].id)
            try:
                await self.insist(lambda control: control.sessions.stop("p", rows[0].id, by="u"))
            except Conflict:
                return

    async def _chaos(self) -> None:
        events: list[tuple[float, str]] = [(at, "kill control") for at in self.scenario.kills]
        events += self.scenario.links
        events += [(at, "crash agent") for at in self.scenario.agents]
        events += self.scenario.more
        events += self.scenario.moves
        events += [
            (self.random.uniform(5.0, CHAOS_S), "crash in journal") for _ in range(self.scenario.journal_crashes)
        ]
        for at, what in sorted(events):
            await asyncio.sleep(max(0.0, BEGIN + at - self.loop.true_time))
            self._strike(what)
        await asyncio.sleep(max(0.0, BEGIN + CHAOS_S - self.loop.true_time))

    def _strike(self, what: str) -> None:
        if what == "kill control":
            if self.control_host and not self.control_host.dead:
                self.ledger.faults["control killed"] += 1
                self.crash_control("killed")
            return
        if what in ("orphan", "move", "preempt"):
            self.host.spawn(self._orphan() if what == "orphan" else self._move(what), what)
            return
        up = [machine for machine in self.machines if machine.up]
        if what in ("remove", "switch off", "leave"):
            # Not the registered one: if that leaves unheard its sessions stay `lost` until a person gives them up.
            up = [machine for machine in self.machines if machine is not self.local and machine.on]
        if not up:
            return
        if what == "mass loss":
            self.ledger.faults[what] += 1
            for machine in up:
                self._link("cut", machine.disk.agent)
            return
        machine = self.random.choice(up)
        agent = machine.disk.agent
        self.ledger.note(self.loop.true_time, f"{what} at {machine.name}")
        if what == "crash agent":
            machine.crash_agent(self.random.choice((0.1, 2.0, 20.0)))
        elif what == "crash in journal":
            machine.crashes_in_journal += 1
        elif what in ("remove", "switch off"):
            self.ledger.faults[f"machine: {what}"] += 1
            self.removed.add(machine.name)
            machine.power_off(MachineState.ENDED if what == "remove" else MachineState.STOPPED, "by someone else")
        elif what == "leave":
            self._leave(machine)
        else:
            self.ledger.faults[f"link {what}"] += 1
            self._link(what, agent)

    def _leave(self, machine: VirtualMachine) -> None:
        """The machine's owner takes its agent out of the installation."""
        shell, host = machine.shell, machine.agent_host
        if shell and host and not host.dead:
            self.ledger.faults["agent left"] += 1
            self.removed.add(machine.name)
            host.call(self.loop.call_soon, shell.leave, "its owner wants it back")

    async def _aside(self, work: Callable[[], Plan]) -> Plan:
        """Plan beside the loop: there are no threads, but all kinds of things happen before the plan is there."""
        made = work()
        await asyncio.sleep(self._planner.choice((0.0, 0.2, 5.0)))
        return made

    async def _move(self, what: str) -> None:
        """Somebody asks for a move of a running session, or the router preempts one."""
        rows = [row for row in self.store.rows(Session) if row.state is SessionState.RUNNING]
        able = [row for row in rows if (row.spec.preemptible if what == "preempt" else row.spec.checkpoint)]
        if not able:
            return
        row = self._mover.choice(able)
        to = self._mover.choice(("", "home", "cheap-site", "dear-site"))

        async def preempt(control: Control) -> None:
            move = Move(session=row.id, attempt=row.attempt, reason=Reason.PREEMPTED, message="for another")
            async with control.changes.commit("session.move") as change:
                await control.moves.begin(change, move)
            control.moves.on_change()

        async def move(control: Control) -> None:
            await control.moves.request("p", row.id, to, by="u")

        try:
            await self.ask(preempt if what == "preempt" else move)
        except AtollError as error:
            self.ledger.note(self.loop.true_time, f"no {what}: {error.message}")
        else:
            self.ledger.faults[what] += 1

    async def _orphan(self) -> None:
        """Somebody else makes a machine with our tag, of which no record tells."""
        name = self.random.choice(self.scenario.providers)
        rows = [row for row in self.store.rows(Provider) if row.name == name]
        if not rows:
            return
        cloud = self._driver(rows[0])
        shape = self.random.choice(await cloud.shapes(Book()))
        self.orphaned.add(name)
        token = JoinToken(url="https://control.sim", pin=FakeAuthority.pin, secret="00" * 32).text()
        number = self.ledger.faults["orphan"]
        owner = self.store._memory.settings["installation"]
        intent = Intent(id=f"i-orphan-{number}", owner=owner, shape=shape, user_data=token)
        try:
            await cloud.create(intent)
        except ProviderError as error:
            self.ledger.note(self.loop.true_time, f"no orphan: {error.message}")
            return
        self.ledger.faults["orphan"] += 1

    def _link(self, what: str, agent: str) -> None:
        pause = self.random.choice((1.0, 6.0, 20.0, 90.0))
        if what == "cut":
            self.network.cut(agent)
            self.loop.call_later(pause, self.network.heal, agent)
        elif what == "reset":
            self.network.reset(agent)
        else:
            self.network.refuse(agent, True)
            self.network.reset(agent)
            self.loop.call_later(pause, self.network.refuse, agent, False)

    def _about_to_end(self, machine: VirtualMachine) -> None:
        self.on_end(machine)

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = self.loop.true_time + SETTLED_S
        while not condition():
            if self.loop.true_time > deadline:
                self.ledger.violated(self.loop.true_time, "L1", f"not within {SETTLED_S:g} s: {what}: {self.story()}")
                return
            await asyncio.sleep(1.0)

    def _all_ended(self) -> bool:
        rows = self.store.rows(Session)
        return len(rows) >= len(self.scenario.orders) and all(row.state in ENDED for row in rows)

    def owes_logs(self, life: Life) -> bool:
        """Say whether all that a run printed must be stored: it ended by itself, on a machine nobody took away."""
        machine = next(machine for machine in self.machines if machine.name == life.machine)
        return life.code is not None and machine.notice is None and machine.name not in self.removed

    def _logs_are_in(self) -> bool:
        kept = self.logs._kept
        lives = [life for life in self.ledger.lives if self.owes_logs(life)]
        return all(len(kept.get((life.run, "out"), b"")) >= len(life.out) for life in lives)

    def _all_gone(self) -> bool:
        return all(row.state is InstanceState.GONE for row in self.store.rows(Instance))

    def story(self) -> str:
        """Return in a few words what is still open, for a person who looks at a failed seed."""
        open_rows = [f"{r.id} {r.state} {r.reason}" for r in self.store.rows(Session) if r.state not in ENDED]
        open_rows += [
            f"{r.id} {r.state} {r.reason}" for r in self.store.rows(Instance) if r.state is not InstanceState.GONE
        ]
        return "; ".join(open_rows) or f"{self.live_instances()} instances live"
