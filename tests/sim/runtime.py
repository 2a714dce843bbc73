"""A simulated runtime: runs that print and end on virtual time, and live on when their agent's process dies."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from agent.entry import Entry, Terms
from agent.events import RuntimeExited, RuntimeStarted
from agent.runtime.port import Guest, Observer
from atoll.clock import Chance
from atoll.session import SessionSpec
from atoll.slots import Slots
from tests.sim.ledger import Ledger, Life
from tests.sim.loop import Host, SimLoop

LINES = 10
TERM_CODE, KILL_CODE, SAVED_CODE = 143, 137, 85
SAVES_IN_S = 2.0
"""What a run takes to save its state."""


def command(seconds: float, code: int, *, stubborn: bool = False, at_signal: str = "") -> tuple[str, ...]:
    """Return the command of a run that ends after `seconds` with `code`; a stubborn one ignores TERM.

    `at_signal`: asked for a checkpoint it `saves` its state and exits, or is `heedless`; without, it has no handler.
    """
    return ("sim", f"{seconds:g}", str(code), "stubborn" if stubborn else "obedient", at_signal)


def line(run: str, number: int) -> bytes:
    """Return what a run prints as its line `number`."""
    return f"{run} says {number}\n".encode() * 20


@dataclass(slots=True)
class Process:
    """One run's process tree. It belongs to the machine, not to the agent's process."""

    life: Life
    obedient: bool
    at_signal: str = ""
    exit_code: int | None = None
    until: float | None = None
    over: bool = False
    timers: list[asyncio.TimerHandle] = field(default_factory=list)


@dataclass(slots=True)
class Disk:
    """What a machine keeps through crashes and reboots: the agent's identity, its journal, its runs' output."""

    agent: str = ""
    entries: dict[str, Entry] = field(default_factory=dict)
    terms: Terms = field(default_factory=Terms)
    processes: dict[str, Process] = field(default_factory=dict)


class DiskJournal:
    """`agent.journal.Journal` on a simulated disk. `crash` is called before and after each write and may raise."""

    def __init__(self, disk: Disk, crash: Callable[[], None]) -> None:
        self._disk = disk
        self._crash = crash

    def load(self) -> tuple[list[Entry], Terms]:
        """Return everything kept."""
        return [self._disk.entries[run] for run in sorted(self._disk.entries)], self._disk.terms

    def put(self, entry: Entry) -> None:
        """Keep a record."""
        self._crash()
        self._disk.entries[entry.run] = entry
        self._crash()

    def drop(self, run: str) -> None:
        """Remove a record."""
        self._disk.entries.pop(run, None)

    def put_terms(self, terms: Terms) -> None:
        """Keep the terms."""
        self._disk.terms = terms


class MachineProcesses:
    """All processes of one machine, whichever agent process started them. They run as the machine's host."""

    def __init__(self, loop: SimLoop, host: Host, machine: str, disk: Disk, ledger: Ledger) -> None:
        self._loop = loop
        self._host = host
        self._machine = machine
        self._disk = disk
        self._ledger = ledger
        self.runtime: SimRuntime | None = None

    def start(self, run: str, spec: SessionSpec) -> None:
        """Start a run's process tree."""
        _, seconds, code, manner, at_signal = spec.command
        life = Life(
            run=run,
            machine=self._machine,
            began=self._loop.true_time,
            protected=spec.lifetime.protect,
            cpu=spec.resources.cpu,
            memory=spec.resources.memory,
        )
        process = self._disk.processes[run] = Process(life, manner == "obedient", at_signal)
        self._ledger.began(life)
        span = float(seconds)
        for number in range(LINES):
            self._later(process, span * number / LINES, self._print, process, number)
        self._later(process, span, self._end, process, int(code))

    def ask(self, run: str) -> str:
        """Ask a run for a checkpoint; return why it cannot be asked."""
        process = self._disk.processes.get(run)
        if process is None or process.over or not process.at_signal:
            return "it has no handler"
        if process.at_signal == "saves":
            self._later(process, SAVES_IN_S, self._end, process, SAVED_CODE)
        return ""

    def keep(self, run: str, until: float) -> None:
        """Let a run live until then by the machine's clock, and no longer, as its shim does."""
        process = self._disk.processes.get(run)
        if process and not process.over:
            process.until = until
            self._later(process, max(0.0, until - self._host.time(self._loop.true_time)), self._lapse, process, until)

    def _lapse(self, process: Process, until: float) -> None:
        if process.until == until:
            self._end(process, KILL_CODE)

    def signal(self, run: str, code: int) -> None:
        """TERM (143) or KILL (137) a run's tree."""
        process = self._disk.processes.get(run)
        if process and not process.over and (process.obedient or code == KILL_CODE):
            self._later(process, 0.01, self._end, process, code)

    def power_off(self) -> None:
        """Everything on the machine is gone at once."""
        for process in self._disk.processes.values():
            self._stop_timers(process)
            if not process.over:
                process.over = True
                self._ledger.ended(process.life, self._loop.true_time, None)

    def _print(self, process: Process, number: int) -> None:
        process.life.out += line(process.life.run, number)
        if self.runtime:
            self.runtime.grew(process)

    def _end(self, process: Process, code: int) -> None:
        if process.over:
            return
        self._stop_timers(process)
        process.over, process.exit_code = True, code
        self._ledger.ended(process.life, self._loop.true_time, code)
        if self.runtime:
            self.runtime.ended(process)

    def _later(self, process: Process, delay: float, function: Callable[..., None], *args: object) -> None:
        process.timers.append(self._host.call(self._loop.call_later, delay, function, *args))

    def _stop_timers(self, process: Process) -> None:
        for timer in process.timers:
            timer.cancel()
        process.timers.clear()


class SimRuntime:
    """`agent.runtime.port.Runtime` of one agent process (`host`) over its machine's processes."""

    def __init__(self, loop: SimLoop, host: Host, machine: MachineProcesses, disk: Disk, chance: Chance) -> None:
        self._loop = loop
        self._host = host
        self._machine = machine
        self._disk = disk
        self._chance = chance
        self._observer: Observer | None = None
        self._told: dict[str, bool] = {}

    def attach(self, observer: Observer) -> None:
        """Tell `observer` what happens from now on."""
        self._observer = observer
        self._machine.runtime = self

    def spawn(
        self,
        run: str,
        spec: SessionSpec,
        slots: Slots,
        env: Mapping[str, str],
        gpus: Sequence[str] = (),
        until: float | None = None,
    ) -> None:
        """Start a run; it is observed a moment later."""
        self._machine.start(run, spec)
        if until is not None:
            self._machine.keep(run, until)
        self._soon(self._started, run)

    def keep(self, run: str, until: float) -> None:
        """Put off its end."""
        self._machine.keep(run, until)

    def adopt(self, runs: Sequence[str]) -> None:
        """Take over what an earlier process started."""
        for run in runs:
            self._soon(self._adopted, run)

    def signal(self, run: str, name: str) -> str:
        """USR1."""
        return self._machine.ask(run)

    def terminate(self, run: str) -> None:
        """TERM."""
        self._machine.signal(run, TERM_CODE)

    def kill(self, run: str) -> None:
        """KILL."""
        self._machine.signal(run, KILL_CODE)

    def read_log(self, run: str, channel: str, offset: int, limit: int) -> bytes:
        """Return output."""
        return self._out(run, channel)[offset : offset + limit]

    def log_size(self, run: str, channel: str) -> int:
        """Return how much output there is."""
        return len(self._out(run, channel))

    def log_base(self, run: str, channel: str) -> int:
        """Nothing is ever freed here."""
        return 0

    def free_log(self, run: str, channel: str, below: int) -> None:
        """Nothing to do: memory is patient."""

    def listens(self, run: str, port: int) -> bool:
        """No simulated run listens."""
        return False

    async def connect(self, run: str, port: int, make: Callable[[], asyncio.Protocol]) -> None:
        """Nothing listens."""
        raise ConnectionRefusedError("nothing listens there")

    async def enter(
        self, run: str, argv: Sequence[str], env: Mapping[str, str], descriptors: Sequence[int], *, tty: bool
    ) -> Guest:
        """Nobody enters a simulated run."""
        raise ProcessLookupError(0, "nobody enters a simulated run")

    def forget(self, run: str) -> None:
        """Remove a run's output."""
        self._disk.processes.pop(run, None)

    def grew(self, process: Process) -> None:
        """A process printed."""
        self._as_agent(self._grown, process.life.run)

    def ended(self, process: Process) -> None:
        """A process ended."""
        if self._told.get(process.life.run):
            self._as_agent(self._exited, process.life.run)

    def _as_agent(self, function: Callable[[str], None], run: str) -> None:
        if not self._host.dead:
            self._host.call(self._loop.call_soon, function, run)

    def _soon(self, function: Callable[[str], None], run: str) -> None:
        self._loop.call_later(self._chance.uniform(0.0, 0.05), function, run)

    def _started(self, run: str) -> None:
        process = self._disk.processes.get(run)
        if self._observer and process:
            self._observer.observed(RuntimeStarted(run, "enforced", {}))
            self._told[run] = True
            self._grown(run)
            if process.over:
                self._exited(run)

    def _adopted(self, run: str) -> None:
        process = self._disk.processes.get(run)
        if process:
            self._started(run)
        elif self._observer:
            self._observer.observed(RuntimeExited(run, None, message="no process of it was found"))

    def _grown(self, run: str) -> None:
        if self._observer and run in self._disk.processes:
            self._observer.grown(run, "out", self.log_size(run, "out"))

    def _exited(self, run: str) -> None:
        process = self._disk.processes.get(run)
        if process and self._observer and self._told.get(run):
            self._told[run] = False
            self._grown(run)
            size = self.log_size(run, "out")
            code = process.exit_code
            self._observer.observed(RuntimeExited(run, code, out=size, message="" if code is not None else "cut off"))

    def _out(self, run: str, channel: str) -> bytes:
        process = self._disk.processes.get(run)
        return process.life.out if process and channel == "out" else b""
