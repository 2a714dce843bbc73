"""The core under any order of events: what must hold of an agent whatever happens to it."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from agent import events as ev
from agent.core import DRIFT, Core, Machine
from agent.entry import Entry, Terms
from atoll.session import Lifetime, SessionSpec
from atoll.slots import Slots
from tunnel import wire

RUNS = st.sampled_from([f"s-{letter * 10}.{attempt}.0" for letter in "ab" for attempt in (1, 2)])
SPEC = SessionSpec(command=("true",), lifetime=Lifetime(grace=5.0))


class Agent(RuleBasedStateMachine):
    """A core between a control plane, a runtime and a journal that are modelled as sets."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.journal: dict[str, Entry] = {}
        self.terms = Terms()
        self.spawned: list[str] = []
        self.processes: set[str] = set()
        self.doomed: set[str] = set()
        self.dropped: set[str] = set()
        self.signalled: set[tuple[str, float]] = set()
        self.heard_at: dict[str, float] = {}
        self.linked = False
        self.over = False
        self.core: Core
        self.begin()

    def begin(self) -> None:
        self.core = Core(Machine("1", "boot", Slots()))
        self.linked = False
        self.over = False
        self.tell(ev.Restored(tuple(self.journal.values()), self.terms))
        for run in sorted(self.processes):
            self.tell(ev.RuntimeStarted(run))
        for run, entry in sorted(self.journal.items()):
            if not entry.exited and run not in self.processes:
                self.tell(ev.RuntimeExited(run, None, message="no trace"))

    def tell(self, event: ev.Event) -> None:
        for command in self.core.handle(event, self.now):
            match command:
                case ev.JournalPut(entry):
                    self.journal[entry.run] = entry
                case ev.JournalTerms(terms):
                    self.terms = terms
                case ev.Spawn(run):
                    assert run in self.journal, "spawned without a record"
                    assert run not in self.spawned, "started twice"
                    self.spawned.append(run)
                    self.processes.add(run)
                case ev.Signal(run):
                    asked_at = self.journal[run].asked_at
                    assert asked_at, "signalled without a record"
                    assert (run, asked_at) not in self.signalled, "signalled twice for one request"
                    assert run in self.processes, "signalled what does not run"
                    self.signalled.add((run, asked_at))
                case ev.Kill(run):
                    self.doomed.add(run)
                case ev.Drop(run):
                    assert run not in self.processes, "dropped while a process lives"
                    self.journal.pop(run, None)
                    self.dropped.add(run)
                case ev.Send(wire.Hello() as hello):
                    assert {report.run for report in hello.runs} == set(self.journal), "Hello hides a run (I13)"
                case ev.Send(wire.Report(report)) if report.asked:
                    assert any(run == report.run for run, _ in self.signalled), "told as asked, and never was"
                case ev.Send(wire.CordonAck() as ack):
                    assert set(ack.runs) >= self.processes, "a cordon's answer hides a run (I4)"
                case ev.Exit():
                    assert not self.processes, "ended with processes alive (I14)"
                    assert not self.over, "ended twice"
                    self.over = True

    @rule(run=RUNS, epoch=st.integers(1, 5), lease_s=st.sampled_from([0.0, 60.0]))
    def start(self, run: str, epoch: int, lease_s: float) -> None:
        if self.linked:
            before = len(self.spawned)
            self.tell(ev.Received(wire.Start(run=run, epoch=epoch, spec=SPEC, slots=Slots(), env={}, lease_s=lease_s)))
            if len(self.spawned) > before:
                assert not (self.core.cordoned and epoch < self.core.cordon_epoch)
                assert self.core.leaving is None

    @rule(run=RUNS)
    def process_started(self, run: str) -> None:
        if run in self.processes:
            self.tell(ev.RuntimeStarted(run))

    @rule(run=RUNS, code=st.sampled_from([0, 1, 143]))
    def process_exited(self, run: str, code: int) -> None:
        if run in self.processes:
            self.processes.discard(run)
            self.doomed.discard(run)
            self.tell(ev.RuntimeExited(run, code))

    @rule()
    def kills_take_effect(self) -> None:
        for run in sorted(self.doomed & self.processes):
            self.processes.discard(run)
            self.tell(ev.RuntimeExited(run, 137))
        self.doomed.clear()

    @rule(run=RUNS, grace=st.sampled_from([0.0, 10.0]))
    def stop(self, run: str, grace: float) -> None:
        if self.linked:
            self.tell(ev.Received(wire.Stop(run=run, grace=grace)))

    @rule(run=RUNS, asked_at=st.sampled_from([1.0, 2.0, 3.0]), handles=st.booleans())
    def checkpoint(self, run: str, asked_at: float, handles: bool) -> None:
        if not self.linked:
            return
        doomed, before = set(self.doomed), len(self.signalled)
        self.tell(ev.Received(wire.Checkpoint(run=run, signal="USR1", asked_at=asked_at)))
        assert self.doomed == doomed, "a request for a checkpoint ended something"
        if len(self.signalled) > before and not handles:
            self.signalled.discard((run, asked_at))
            self.tell(ev.SignalRefused(run, "does not handle it"))
            assert not self.journal[run].asked_at

    @rule(runs=st.lists(RUNS, unique=True))
    def forget(self, runs: list[str]) -> None:
        if self.linked:
            self.tell(ev.Received(wire.Forget(runs=runs)))

    @rule(epoch=st.integers(1, 5), cordoned=st.booleans())
    def cordon(self, epoch: int, cordoned: bool) -> None:
        if self.linked:
            self.tell(ev.Received(wire.Cordon(epoch=epoch, cordoned=cordoned)))

    @rule(kill=st.lists(RUNS, unique=True), forget=st.lists(RUNS, unique=True), lease_s=st.sampled_from([0.0, 90.0]))
    def register(self, kill: list[str], forget: list[str], lease_s: float) -> None:
        self.tell(ev.Unlinked())
        self.tell(ev.Linked())
        self.linked = True
        self.tell(ev.Received(wire.Welcome(protocol=1, epoch=1, kill=kill, forget=forget, lease_s=lease_s)))

    @rule()
    def lose_the_link(self) -> None:
        self.linked = False
        self.tell(ev.Unlinked())

    @rule(seconds=st.sampled_from([0.5, 7.0, 30.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        """Tick exactly at each deadline on the way, as the shell does."""
        end = self.now + seconds
        for _ in range(100):
            deadline = self.core.next_deadline()
            if deadline is None or deadline > end:
                break
            self.now = max(self.now, deadline)
            self.tell(ev.Tick())
        self.now = end

    @rule()
    def contact(self) -> None:
        if self.linked and self.core.registered:
            self.tell(ev.Contact(self.now))

    @rule()
    def agent_is_killed_and_starts_again(self) -> None:
        self.begin()

    @rule()
    def told_to_leave(self) -> None:
        if self.linked:
            self.tell(ev.Received(wire.Leave()))

    @invariant()
    def every_process_is_known(self) -> None:
        assert self.processes <= set(self.core.live)

    @invariant()
    def no_exclusive_run_outlives_its_lease_without_being_killed(self) -> None:
        for run in self.processes - self.doomed:
            entry = self.journal[run]
            if entry.lease_s:
                heard = max(entry.contact, self.core.contact or 0.0)
                assert self.now < heard + entry.lease_s * (1 - 2 * DRIFT) + 1e-6 or self._just_passed(run)

    def _just_passed(self, run: str) -> bool:
        """Time has moved to the deadline itself: the tick of this very moment is still to come."""
        deadline = self.core.next_deadline()
        return deadline is not None and deadline >= self.now - 1e-6


TestAgent = Agent.TestCase
TestAgent.settings = settings(max_examples=150, stateful_step_count=40)
