"""The agent's core: events in, commands out, told as short stories."""

import pytest

from agent import events as ev
from agent.core import Core, Machine
from agent.devices import Device
from agent.entry import Entry, Terms
from agent.events import Command, Event
from atoll.session import Lifetime, SessionSpec
from atoll.slots import Gpu, Slots
from tunnel import wire

RUN, OTHER = "s-7k2m9q4x1c.1.0", "s-aaaaaaaaaa.1.0"
SPEC = SessionSpec(command=("true",), lifetime=Lifetime(grace=5.0))


class Story:
    """A core with a hand on its clock."""

    def __init__(self, entries: tuple[Entry, ...] = (), terms: Terms = Terms(), **machine: object) -> None:  # noqa: B008
        self.core = Core(Machine("1", "boot", Slots(cpu=2000), **machine))  # type: ignore[arg-type]
        self.now = 100.0
        self.said: list[Command] = []
        self.tell(ev.Restored(entries, terms))

    def tell(self, event: Event, at: float | None = None) -> list[Command]:
        self.now = self.now if at is None else at
        self.said = self.core.handle(event, self.now)
        return self.said

    def hear(self, message: wire.FromControl, at: float | None = None) -> list[Command]:
        return self.tell(ev.Received(message), at)

    def link(self, **welcome: object) -> "Story":
        self.tell(ev.Linked())
        self.hear(wire.Welcome(protocol=1, epoch=1, **{"kill": [], "forget": [], **welcome}))  # type: ignore[arg-type]
        return self

    def start(self, run: str = RUN, epoch: int = 1, lease_s: float = 0.0, slots: Slots = Slots()) -> list[Command]:
        return self.hear(wire.Start(run=run, epoch=epoch, spec=SPEC, slots=slots, env={}, lease_s=lease_s))

    def running(self, run: str = RUN, lease_s: float = 0.0) -> "Story":
        self.start(run, lease_s=lease_s)
        self.tell(ev.RuntimeStarted(run))
        return self

    def of(self, kind: type) -> list[Command]:
        return [command for command in self.said if isinstance(command, kind)]

    @property
    def reports(self) -> list[wire.RunReport]:
        return [c.message.report for c in self.said if isinstance(c, ev.Send) and isinstance(c.message, wire.Report)]

    @property
    def kinds(self) -> list[type]:
        return [type(command) for command in self.said]


def test_a_start_is_journaled_before_it_is_spawned() -> None:
    story = Story().link()
    story.start()
    assert story.kinds == [ev.JournalPut, ev.Spawn, ev.Send]
    assert [report.state for report in story.reports] == ["starting"]


def test_a_repeated_start_is_answered_and_starts_nothing() -> None:
    story = Story().link().running()
    story.start(epoch=7)
    assert story.kinds == [ev.Send]
    assert story.reports[0].state == "running"


def test_a_start_repeated_to_the_next_process_of_the_agent_starts_nothing() -> None:
    story = Story((Entry(run=RUN, epoch=1),))
    assert story.said == [ev.Adopt((RUN,))]
    story.link().start()
    assert not story.of(ev.Spawn)
    ended = Story((Entry(run=RUN, epoch=1, exited=True, exit_code=3),)).link()
    ended.start()
    assert ended.kinds == [ev.Send]
    assert (ended.reports[0].state, ended.reports[0].exit_code) == ("exited", 3)


def test_the_story_of_a_run_ends_in_the_journal_before_it_is_told() -> None:
    story = Story().link().running()
    story.tell(ev.RuntimeExited(RUN, 7, out=10, err=2))
    assert story.kinds == [ev.JournalPut, ev.Send]
    report = story.reports[0]
    assert (report.state, report.exit_code, report.reason, report.out, report.err) == ("exited", 7, "EXITED", 10, 2)
    assert not story.tell(ev.RuntimeExited(RUN, 0))


def test_hello_lists_every_run_that_is_not_forgotten() -> None:
    story = Story().link().running().running(OTHER)
    story.tell(ev.RuntimeExited(RUN, 0))
    story.tell(ev.Unlinked())
    assert not story.tell(ev.RuntimeExited(OTHER, 5)) or not story.of(ev.Send)
    story.tell(ev.Linked())
    hello = story.said[0]
    assert isinstance(hello, ev.Send)
    assert isinstance(hello.message, wire.Hello)
    assert [(run.run, run.state, run.exit_code) for run in hello.message.runs] == [
        (RUN, "exited", 0),
        (OTHER, "exited", 5),
    ]
    story.hear(wire.Welcome(protocol=1, epoch=2, kill=[], forget=[RUN, OTHER]))
    assert story.of(ev.Drop) == [ev.Drop(RUN), ev.Drop(OTHER)]
    story.tell(ev.Linked())
    assert isinstance(story.said[0], ev.Send)
    assert story.said[0].message.runs == []  # type: ignore[union-attr]


def test_a_welcome_repeats_the_reports() -> None:
    story = Story().link().running()
    story.link()
    assert [report.run for report in story.reports] == [RUN]


def test_nothing_is_reported_before_the_welcome() -> None:
    story = Story((Entry(run=RUN, epoch=1),))
    story.tell(ev.Linked())
    story.tell(ev.RuntimeStarted(RUN))
    assert not story.of(ev.Send)


def test_a_verdict_of_kill_ends_the_run_and_says_why() -> None:
    story = Story().link().running()
    story.link(kill=[RUN, "s-unknown000.1.0"])
    assert story.of(ev.Kill) == [ev.Kill(RUN)]
    story.tell(ev.RuntimeExited(RUN, 137))
    assert story.reports[0].reason == "NOT_ADOPTED"


def test_a_live_run_is_never_forgotten() -> None:
    story = Story().link().running()
    story.hear(wire.Forget(runs=[RUN]))
    assert story.said == []
    assert story.core.live == [RUN]


def test_a_forgotten_run_does_not_start_again() -> None:
    story = Story().link().running()
    story.tell(ev.RuntimeExited(RUN, 0))
    story.hear(wire.Forget(runs=[RUN]))
    story.start()
    assert not story.of(ev.Spawn)
    assert story.reports[0].reason == "NOT_ADOPTED"


def test_stop_terminates_and_kills_after_the_grace() -> None:
    story = Story().link().running()
    story.hear(wire.Stop(run=RUN, grace=3.0))
    assert story.said == [ev.Terminate(RUN)]
    assert story.core.next_deadline() == 103.0
    assert story.tell(ev.Tick(), 102.9) == []
    assert story.tell(ev.Tick(), 103.0) == [ev.Kill(RUN)]
    assert story.tell(ev.Tick(), 104.0) == []


def test_a_second_stop_may_shorten_the_grace_but_not_stretch_it() -> None:
    story = Story().link().running()
    story.hear(wire.Stop(run=RUN, grace=30.0))
    assert story.hear(wire.Stop(run=RUN, grace=60.0)) == []
    assert story.core.next_deadline() == 130.0
    story.hear(wire.Stop(run=RUN, grace=0.0))
    assert story.of(ev.Kill) == [ev.Kill(RUN)]


def test_a_stop_before_the_process_exists_reaches_it_later() -> None:
    story = Story().link()
    story.start()
    story.hear(wire.Stop(run=RUN, grace=3.0))
    story.tell(ev.RuntimeStarted(RUN))
    assert story.of(ev.Terminate) == [ev.Terminate(RUN)]


def test_a_stop_of_an_unknown_run_is_answered_and_its_late_start_refused() -> None:
    story = Story().link()
    story.hear(wire.Stop(run=RUN, grace=3.0))
    assert (story.reports[0].state, story.reports[0].reason) == ("exited", "NOT_ADOPTED")
    story.start()
    assert not story.of(ev.Spawn)


def test_a_failed_start_is_an_end() -> None:
    story = Story().link()
    story.start()
    story.tell(ev.StartFailed(RUN, "no such workdir"))
    report = story.reports[0]
    assert (report.state, report.exit_code, report.reason) == ("exited", None, "START_FAILED")
    assert report.message == "no such workdir"


def test_a_cordon_is_acknowledged_with_everything_that_runs() -> None:
    story = Story().link().running()
    story.hear(wire.Cordon(epoch=5, cordoned=True))
    assert story.said == [ev.Send(wire.CordonAck(epoch=5, runs=[RUN]))]


@pytest.mark.parametrize(("epoch", "starts"), [(4, False), (5, True), (6, True)])
def test_a_start_decided_before_the_cordon_is_refused(epoch: int, starts: bool) -> None:
    story = Story().link()
    story.hear(wire.Cordon(epoch=5, cordoned=True))
    story.start(epoch=epoch)
    assert bool(story.of(ev.Spawn)) is starts
    if not starts:
        assert story.reports[0].reason == "NOT_ADOPTED"
        assert story.core.live == []


def test_an_uncordon_opens_again_and_an_older_cordon_counts_no_more() -> None:
    story = Story().link()
    story.hear(wire.Cordon(epoch=5, cordoned=True))
    story.hear(wire.Cordon(epoch=6, cordoned=False))
    assert story.hear(wire.Cordon(epoch=5, cordoned=True)) == []
    story.start(epoch=4)
    assert story.of(ev.Spawn)


def test_an_exclusive_run_ends_before_its_lease_by_the_last_answered_message() -> None:
    story = Story().link().running(lease_s=100.0)
    story.tell(ev.Contact(110.0), 120.0)
    story.tell(ev.Unlinked())
    assert story.core.next_deadline() == pytest.approx(110.0 + 90.0 - 5.0)
    assert story.tell(ev.Tick(), 194.9) == []
    story.tell(ev.Tick(), 195.0)
    assert story.kinds == [ev.JournalPut, ev.Terminate]
    assert story.tell(ev.Tick(), 200.0) == [ev.Kill(RUN)]
    story.tell(ev.RuntimeExited(RUN, 137), 200.1)
    story.link()
    assert (story.reports[0].reason, story.reports[0].exit_code) == ("LEASE_EXPIRED", 137)


def test_contact_keeps_an_exclusive_run_and_is_journaled_in_steps() -> None:
    story = Story().link().running(lease_s=100.0)
    assert story.tell(ev.Contact(104.0), 105.0) == []
    assert story.tell(ev.Contact(106.0), 106.5) == [
        ev.Keep(RUN, 196.0),
        ev.JournalPut(Entry(run=RUN, epoch=1, grace=5.0, lease_s=100.0, contact=106.0)),
    ]
    assert story.tell(ev.Tick(), 190.9) == []


def test_the_runtime_knows_when_a_lease_is_over_should_the_agent_not_be_there() -> None:
    story = Story().link()
    story.tell(ev.Contact(100.0), 100.0)
    [spawn] = [command for command in story.start(lease_s=100.0) if isinstance(command, ev.Spawn)]
    assert spawn.until == pytest.approx(190.0)
    story.tell(ev.RuntimeStarted(RUN))
    story.tell(ev.Contact(104.0), 105.0)
    assert story.tell(ev.Unlinked()) == [ev.Keep(RUN, 194.0)]


def test_a_lease_goes_on_over_a_restart_of_the_agent() -> None:
    story = Story((Entry(run=RUN, epoch=1, grace=0.0, lease_s=100.0, contact=50.0),))
    story.tell(ev.RuntimeStarted(RUN))
    assert story.core.next_deadline() == 140.0
    story.tell(ev.Tick(), 140.0)
    assert story.of(ev.Kill) == [ev.Kill(RUN)]


@pytest.mark.parametrize(
    ("code", "at", "reason"),
    [(137, 140.0, "LEASE_EXPIRED"), (137, 139.0, "EXITED"), (1, 150.0, "EXITED"), (None, 150.0, "AGENT_GONE")],
)
def test_a_run_that_its_supervisor_ended_with_its_lease_says_so(code: int | None, at: float, reason: str) -> None:
    story = Story((Entry(run=RUN, epoch=1, grace=0.0, lease_s=100.0, contact=50.0),))
    story.tell(ev.RuntimeExited(RUN, code), at)
    story.link()
    assert [report.reason for report in story.reports] == [reason]


def test_a_decision_to_end_a_run_survives_a_restart() -> None:
    story = Story((Entry(run=RUN, epoch=1, ending="LEASE_EXPIRED", message="silent"),))
    assert set(story.said) >= {ev.Adopt((RUN,)), ev.Kill(RUN)}
    story.tell(ev.RuntimeStarted(RUN))
    assert story.of(ev.Kill) == [ev.Kill(RUN)]
    story.tell(ev.RuntimeExited(RUN, 137))
    story.link()
    assert (story.reports[0].reason, story.reports[0].message) == ("LEASE_EXPIRED", "silent")


def test_without_a_lease_a_run_outlives_any_silence() -> None:
    story = Story().link().running()
    story.tell(ev.Unlinked())
    assert story.core.next_deadline() is None
    assert story.tell(ev.Tick(), 1e9) == []


def test_an_idle_launched_machine_ends_itself_when_nobody_hears_it() -> None:
    story = Story().link(lease_s=600.0)
    assert story.of(ev.JournalTerms) == [ev.JournalTerms(Terms(lease_s=600.0))]
    story.tell(ev.Unlinked())
    assert story.core.next_deadline() == 700.0
    story.tell(ev.Tick(), 700.0)
    ends = story.of(ev.Exit)
    assert [(end.reason, end.poweroff) for end in ends if isinstance(end, ev.Exit)] == [("LEASE_EXPIRED", True)]
    assert isinstance(story.said[0], ev.Send)
    assert isinstance(story.said[0].message, wire.Leave)


def test_a_busy_launched_machine_waits_for_its_runs() -> None:
    story = Story().link(lease_s=600.0).running()
    story.tell(ev.Unlinked())
    assert story.tell(ev.Tick(), 5000.0) == []
    story.tell(ev.RuntimeExited(RUN, 0), 5000.0)
    assert story.core.next_deadline() == 5600.0


def test_the_terms_hold_for_the_next_process_that_never_connects() -> None:
    story = Story(terms=Terms(lease_s=600.0))
    assert story.core.next_deadline() == 700.0


def test_a_machine_on_no_terms_is_nobodys_to_end() -> None:
    assert Story().core.lives_until(100.0) is None
    assert Story().link().core.lives_until(100.0) is None


def test_the_dead_mans_time_follows_contact_work_and_the_longest_life() -> None:
    story = Story(born_at=50.0).link(lease_s=600.0, max_life_s=5000.0)
    assert story.core.lives_until(150.0) == 700.0, "nothing was heard since"
    story.tell(ev.Contact(200.0), 210.0)
    assert story.core.lives_until(210.0) == 800.0
    story.running()
    story.tell(ev.Unlinked())
    assert story.core.lives_until(3000.0) == 3600.0, "work is worth a lease, always"
    assert story.core.lives_until(4900.0) == 5050.0, "up to the longest life"
    story.tell(ev.RuntimeExited(RUN, 0), 3000.0)
    assert story.core.lives_until(3100.0) == 3600.0
    assert story.core.next_deadline() == 3600.0, "the agent's own end by the same rule"


def test_the_dead_mans_time_is_known_to_an_agent_that_never_connects() -> None:
    story = Story(terms=Terms(lease_s=600.0))
    assert story.core.lives_until(130.0) == 700.0


def test_the_longest_life_ends_runs_and_machine() -> None:
    story = Story(born_at=40.0).link(max_life_s=1000.0).running()
    story.tell(ev.Tick(), 1040.0)
    assert story.of(ev.Terminate) == [ev.Terminate(RUN)]
    assert not story.of(ev.Exit)
    story.tell(ev.Tick(), 1045.0)
    assert story.of(ev.Kill)
    story.tell(ev.RuntimeExited(RUN, 137))
    assert [type(command) for command in story.said] == [ev.JournalPut, ev.Send, ev.Send, ev.Exit]
    assert story.core.runs[RUN].entry.ending == "AGENT_GONE", "the session is to run again elsewhere"
    assert isinstance(story.said[2], ev.Send)
    assert isinstance(story.said[2].message, wire.Leave), "told only once nothing runs any more"


@pytest.mark.parametrize("told", [wire.Leave(reason="drained"), wire.Refuse(code="GONE", message="no", final=True)])
def test_told_to_leave_the_agent_stops_all_and_exits_once(told: wire.FromControl) -> None:
    story = Story().link().running()
    story.hear(told)
    assert story.of(ev.Terminate) == [ev.Terminate(RUN)]
    story.start(OTHER)
    assert not story.of(ev.Spawn)
    story.tell(ev.RuntimeExited(RUN, 143))
    assert len(story.of(ev.Exit)) == 1
    assert not story.tell(ev.Tick(), 1e6)


def test_a_refusal_that_is_not_final_changes_nothing() -> None:
    story = Story().link().running()
    assert story.hear(wire.Refuse(code="BUSY", message="later")) == []


def test_its_owner_takes_it_out() -> None:
    story = Story().link()
    story.tell(ev.LeaveAsked("bye"))
    assert story.said == [ev.Send(wire.Leave(reason="bye")), ev.Exit("LEFT", "bye")]


def test_a_notice_is_told_now_or_at_the_next_registration() -> None:
    story = Story()
    assert story.tell(ev.NoticeSeen(30.0, "spot")) == []
    story.now = 110.0
    story.link()
    assert ev.Send(wire.Notice(in_s=20.0, message="spot")) in story.said


def test_gpus_are_given_exclusively_and_come_back() -> None:
    gpus = (Device("GPU-0", "L4", 24), Device("GPU-1", "L4", 24))
    story = Story(gpus=gpus).link()
    one = Slots(gpu=(Gpu("L4", 1000, 24),))
    seen = []
    for run in (RUN, OTHER):
        story.start(run, slots=one)
        seen += [command.gpus for command in story.said if isinstance(command, ev.Spawn)]
    assert seen == [("GPU-0",), ("GPU-1",)]
    story.start("s-third00000.1.0", slots=one)
    assert not story.of(ev.Spawn)
    assert "too few free GPUs" in story.reports[0].message
    story.tell(ev.RuntimeExited(RUN, 0))
    story.start("s-fourth0000.1.0", slots=one)
    assert [command.gpus for command in story.said if isinstance(command, ev.Spawn)] == [("GPU-0",)]


def checkpoint(asked_at: float = 7.0, run: str = RUN) -> wire.Checkpoint:
    return wire.Checkpoint(run=run, signal="USR1", asked_at=asked_at)


def refusals(story: Story) -> list[tuple[str, float]]:
    found = [c.message for c in story.said if isinstance(c, ev.Send)]
    return [(m.message, m.asked_at) for m in found if isinstance(m, wire.NoCheckpoint)]


def test_a_checkpoint_is_journaled_then_signalled_and_told_with_the_end() -> None:
    story = Story().link().running()
    story.hear(checkpoint())
    assert story.kinds == [ev.JournalPut, ev.Signal]
    assert story.said[1] == ev.Signal(RUN, "USR1")
    story.tell(ev.RuntimeExited(RUN, 85))
    assert (story.reports[0].exit_code, story.reports[0].asked) == (85, True)


def test_a_repeated_request_signals_once_and_a_new_one_again() -> None:
    story = Story().link().running()
    story.hear(checkpoint(7.0))
    assert story.hear(checkpoint(7.0)) == []
    story.link()
    assert not story.hear(checkpoint(7.0))
    story.hear(checkpoint(8.0))
    assert story.of(ev.Signal)


def test_a_request_outlives_the_agents_process_without_a_second_signal() -> None:
    story = Story((Entry(run=RUN, epoch=1, asked_at=7.0),))
    story.tell(ev.RuntimeStarted(RUN))
    story.link()
    assert story.hear(checkpoint(7.0)) == []
    story.tell(ev.RuntimeExited(RUN, 85))
    assert story.reports[0].asked
    told = Story((Entry(run=RUN, epoch=1, asked_at=7.0, exited=True, exit_code=85),)).link()
    assert told.reports[0].asked


def test_a_run_that_ignores_the_request_is_not_ended() -> None:
    story = Story().link().running()
    story.hear(checkpoint())
    assert story.core.next_deadline() is None
    story.tell(ev.Tick(), story.now + 1e6)
    assert story.said == []


def test_a_signal_that_was_not_sent_counts_as_not_asked() -> None:
    story = Story().link().running()
    story.hear(checkpoint())
    story.tell(ev.SignalRefused(RUN, "does not handle USR1"))
    assert refusals(story) == [("does not handle USR1", 7.0)]
    assert isinstance(story.said[0], ev.JournalPut)
    story.tell(ev.RuntimeExited(RUN, 85))
    assert not story.reports[0].asked


def test_a_run_that_is_not_running_is_not_asked() -> None:
    story = Story().link()
    story.hear(checkpoint())
    assert refusals(story) == [("this agent does not know the run", 7.0)]
    story.start()
    story.hear(checkpoint())
    assert refusals(story) == [("its process has yet to start", 7.0)]
    story.tell(ev.RuntimeStarted(RUN))
    story.hear(wire.Stop(run=RUN, grace=5.0))
    story.hear(checkpoint())
    assert refusals(story) == [("it is being stopped", 7.0)]
    story.tell(ev.RuntimeExited(RUN, 143))
    story.hear(checkpoint())
    assert (story.reports[0].state, story.reports[0].asked) == ("exited", False)


def test_a_stop_after_a_request_ends_the_run() -> None:
    story = Story().link().running()
    story.hear(checkpoint())
    story.hear(wire.Stop(run=RUN, grace=5.0))
    assert story.of(ev.Terminate)
    story.tell(ev.Tick(), story.now + 5.0)
    assert story.of(ev.Kill)
