"""The agent's decisions: events in, commands out. Pure: no clock, socket, file, process or randomness.

A run goes `starting → running → exited` and stays until `Forget`. Its journal record is written before
its process starts, so a run id starts once, ever; whoever asks again is answered with what is known.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from agent import devices, events
from agent.entry import Entry, Terms
from agent.events import Command, Event
from atoll.session import MemberState
from atoll.slots import Slots
from atoll.states import Reason
from tunnel import wire

DRIFT = 0.05
"""Most that two clocks may differ in rate: a lease of L seconds is kept for L × (1 − 2·DRIFT)."""
LEAVE_GRACE_S = 10.0
"""Longest grace of a run when the whole agent ends."""
CONTACT_STEPS = 20
"""An exclusive run's last contact is made durable each time this part of its lease has passed."""
GHOSTS = 4096
"""Ids of forgotten and never known runs that are remembered, so that a late `Start` cannot revive them."""

_KILLED = 137
"""The exit code of what KILL ended: 128 + 9."""
_LAPSED = "the control plane was not heard for the length of the lease"
_STARTING, _RUNNING, _EXITED = MemberState.STARTING, MemberState.RUNNING, MemberState.EXITED


@dataclass(frozen=True, slots=True)
class Machine:
    """What an agent says about itself: `boot` tells two processes of one agent apart.

    `born_at` is the monotonic time the machine's life is counted from, for `Welcome.max_life_s`.
    """

    version: str
    boot: str
    capacity: Slots
    facts: Mapping[str, str] = field(default_factory=dict)
    gpus: tuple[devices.Device, ...] = ()
    born_at: float = 0.0


@dataclass(slots=True)
class Run:
    """One run in memory: its record, and what this process of the agent observed of it."""

    entry: Entry
    state: MemberState
    limits: str = ""
    apps: dict[str, int] = field(default_factory=dict)
    terminated: bool = False
    kill_at: float | None = None
    killed: bool = False

    @property
    def live(self) -> bool:
        """Whether a process of it may exist."""
        return self.state is not _EXITED

    def report(self) -> wire.RunReport:
        """Return what is told about it."""
        entry = self.entry
        return wire.RunReport(
            run=entry.run,
            state=self.state.value,
            exit_code=entry.exit_code,
            reason=entry.reason or entry.ending,
            message=entry.message,
            limits=self.limits,
            apps=self.apps,
            out=entry.out,
            err=entry.err,
            asked=entry.asked_at > 0.0,
        )


class Core:
    """The state of one agent. `handle` is the only way to change it."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.runs: dict[str, Run] = {}
        self.terms = Terms()
        self.registered = False
        self.cordoned = False
        self.cordon_epoch = 0
        self.leaving: events.Exit | None = None
        self._farewell = False
        self.contact: float | None = None
        self._began: float | None = None
        self._idle_since = 0.0
        self._hello_at: float | None = None
        self._ghosts: dict[str, None] = {}
        self._exited = False
        self._looked = 0.0
        self._notice: tuple[float, str] | None = None
        self._commands: list[Command] = []

    @property
    def live(self) -> list[str]:
        """Runs whose processes may exist, in id order."""
        return sorted(run for run, state in self.runs.items() if state.live)

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take one event at monotonic time `now` and return what is to be done, in order."""
        if self._began is None:
            self._began = self._idle_since = now
        self._commands = []
        self._EVENTS[type(event)](self, event, now)
        self._look_at_deadlines(now)
        self._end_when_empty()
        return self._commands

    def next_deadline(self) -> float | None:
        """Return the monotonic time at which a `Tick` is needed at the latest; None: never."""
        times = [time for run in self.runs.values() if run.live for time in self._deadlines(run)]
        if self.leaving is None:
            times += [time for time, _why in self._ends_of_machine()]
        if self.registered:
            leases = [run.entry.lease_s for run in self.runs.values() if run.live and run.entry.lease_s]
            times += [self._looked + lease / CONTACT_STEPS for lease in leases]
        return min(times, default=None)

    # Events.

    def _restored(self, event: events.Restored, now: float) -> None:
        self.terms = event.terms
        for entry in event.entries:
            self.runs[entry.run] = Run(entry, _EXITED if entry.exited else _STARTING)
            if entry.ending:
                self._kill_by(self.runs[entry.run], now)
        if self.live:
            self._do(events.Adopt(tuple(self.live)))

    def _linked(self, _event: events.Linked, now: float) -> None:
        self.registered = False
        self._hello_at = now
        machine = self.machine
        hello = wire.Hello(
            protocol=wire.PROTOCOL,
            version=machine.version,
            boot=machine.boot,
            capacity=machine.capacity,
            facts=dict(machine.facts),
            runs=[self.runs[run].report() for run in sorted(self.runs)],
            padding=wire.PADDING,
        )
        self._do(events.Send(hello))

    def _unlinked(self, _event: events.Unlinked, _now: float) -> None:
        self.registered = False
        self._hello_at = None
        for run in self.runs.values():
            self._keep(run)

    def _contact_made(self, event: events.Contact, _now: float) -> None:
        if self.contact is None or event.at > self.contact:
            self.contact = event.at
        for run in self.runs.values():
            lease = run.entry.lease_s
            if run.live and lease and self.contact > run.entry.contact + lease / CONTACT_STEPS:
                self._keep(run)  # first: a crash between the two must not leave a journal that trusts in more time
                self._record(run, contact=self.contact)

    def _received(self, event: events.Received, now: float) -> None:
        self._MESSAGES[type(event.message)](self, event.message, now)

    def _runtime_started(self, event: events.RuntimeStarted, _now: float) -> None:
        run = self.runs.get(event.run)
        if run is None or not run.live:
            return
        run.state = _RUNNING
        run.limits = event.limits
        run.apps = dict(event.apps)
        # What was asked before the process existed did not reach it.
        if run.killed:
            self._do(events.Kill(event.run))
        elif run.terminated:
            self._do(events.Terminate(event.run))
        self._report(run)

    def _runtime_exited(self, event: events.RuntimeExited, now: float) -> None:
        run = self.runs.get(event.run)
        if run is None or not run.live:
            return
        reason = run.entry.ending or (Reason.EXITED if event.exit_code is not None else Reason.AGENT_GONE)
        message = run.entry.message or event.message
        if not run.entry.ending and self._lapsed(run, event.exit_code, now):
            reason, message = Reason.LEASE_EXPIRED, _LAPSED
        self._close(
            run, now, exit_code=event.exit_code, reason=str(reason), message=message, out=event.out, err=event.err
        )

    def _start_failed(self, event: events.StartFailed, now: float) -> None:
        run = self.runs.get(event.run)
        if run is not None and run.live:
            self._close(run, now, reason=str(Reason.START_FAILED), message=event.message)

    def _signal_refused(self, event: events.SignalRefused, _now: float) -> None:
        run = self.runs.get(event.run)
        if run is not None and run.live:
            asked_at = run.entry.asked_at
            self._record(run, asked_at=0.0)
            self._refuse_checkpoint(event.run, asked_at, event.message)

    def _notice_seen(self, event: events.NoticeSeen, now: float) -> None:
        self._notice = (now + event.in_s, event.message)
        self._send_notice(now)

    def _leave_asked(self, event: events.LeaveAsked, now: float) -> None:
        self._leave(events.Exit("LEFT", event.reason), now, farewell=True)

    def _tick(self, _event: events.Tick, now: float) -> None:
        """Deadlines are looked at after every event."""
        self._looked = now

    # Messages.

    def _welcome(self, message: wire.Welcome, now: float) -> None:
        self.registered = True
        if self._hello_at is not None:
            self._contact_made(events.Contact(self._hello_at), now)
        terms = Terms(lease_s=message.lease_s, max_life_s=message.max_life_s)
        if terms != self.terms:
            self.terms = terms
            self._do(events.JournalTerms(terms))
        self._forget(message.forget)
        for run in message.kill:
            state = self.runs.get(run)
            if state is not None and state.live:
                self._end(state, Reason.NOT_ADOPTED, "the control plane no longer counts this run as this agent's", now)
                self._kill(state)
        for state in self.runs.values():
            self._report(state)
        self._send_notice(now)

    def _start(self, message: wire.Start, now: float) -> None:
        known = self.runs.get(message.run)
        if known is not None:
            self._report(known)
            return
        refusal = self._refusal(message)
        held = devices.pick(self.machine.gpus, self._held(), message.slots)
        if not refusal and held is None:
            refusal = "this machine has too few free GPUs of that model"
        entry = Entry(
            run=message.run,
            epoch=message.epoch,
            grace=message.spec.lifetime.grace,
            lease_s=message.lease_s,
            contact=self._proof(now) if message.lease_s else 0.0,
            gpus=held.gpus if held else (),
            gpu_milli=held.milli if held else 1000,
            blind=message.spec.blind,
        )
        run = self.runs[message.run] = Run(entry, _STARTING)
        if refusal:
            self._close(run, now, reason=str(Reason.NOT_ADOPTED), message=refusal)
            return
        self._do(events.JournalPut(entry))
        until = self._lease_end(run)
        self._do(events.Spawn(message.run, message.spec, message.slots, message.env, entry.gpus, until))
        self._report(run)

    def _refusal(self, message: wire.Start) -> str:
        """Return why a new run may not start here, or "". A refused run never had a process."""
        if message.run in self._ghosts:
            return "this run was over before it was asked to start"
        if self.leaving is not None:
            return "this agent is ending"
        if self.cordoned and message.epoch < self.cordon_epoch:
            return "this agent takes no new session: it is being drained"
        return ""

    def _stop(self, message: wire.Stop, now: float) -> None:
        run = self.runs.get(message.run)
        if run is None:
            self._haunt(message.run)
            unknown = wire.RunReport(
                run=message.run,
                state=_EXITED.value,
                reason=str(Reason.NOT_ADOPTED),
                message="this agent does not know the run",
            )
            self._do(events.Send(wire.Report(report=unknown)))
        elif run.live:
            self._terminate(run, now + max(0.0, message.grace))
        else:
            self._report(run)

    def _checkpoint(self, message: wire.Checkpoint, _now: float) -> None:
        """Pass a request for a checkpoint on, at most once: journaled first, so that no restart repeats it.

        The run is never ended for it: one that does not exit in its time runs on here, and the control plane,
        whose clock the time is counted by, gives the move up.
        """
        run = self.runs.get(message.run)
        if run is None:
            self._refuse_checkpoint(message.run, message.asked_at, "this agent does not know the run")
        elif not run.live:
            self._report(run)
        elif run.entry.asked_at == message.asked_at:
            return
        elif run.state is _STARTING or run.terminated:
            why = "it is being stopped" if run.terminated else "its process has yet to start"
            self._refuse_checkpoint(message.run, message.asked_at, why)
        else:
            self._record(run, asked_at=message.asked_at)
            self._do(events.Signal(message.run, message.signal))

    def _refuse_checkpoint(self, run: str, asked_at: float, why: str) -> None:
        if self.registered:
            self._do(events.Send(wire.NoCheckpoint(run=run, asked_at=asked_at, message=why)))

    def _forget_message(self, message: wire.Forget, _now: float) -> None:
        self._forget(message.runs)

    def _cordon(self, message: wire.Cordon, _now: float) -> None:
        if message.epoch < self.cordon_epoch:
            return
        self.cordon_epoch = message.epoch
        self.cordoned = message.cordoned
        if message.cordoned:
            self._do(events.Send(wire.CordonAck(epoch=message.epoch, runs=self.live)))

    def _told_to_leave(self, message: wire.Leave, now: float) -> None:
        self._leave(events.Exit("TOLD_TO_LEAVE", message.reason or "the control plane ended this agent"), now)

    def _refuse(self, message: wire.Refuse, now: float) -> None:
        if message.final:
            self._leave(events.Exit(message.code, message.message), now)

    def _not_for_core(self, _message: wire.Message, _now: float) -> None:
        """Log acks and certificates are the shell's business."""

    # Ending runs.

    def _terminate(self, run: Run, kill_at: float) -> None:
        if run.kill_at is None or kill_at < run.kill_at:
            run.kill_at = kill_at
        if not run.terminated:
            run.terminated = True
            self._do(events.Terminate(run.entry.run))

    def _kill(self, run: Run) -> None:
        run.kill_at = None
        run.terminated = run.killed = True
        self._do(events.Kill(run.entry.run))

    def _kill_by(self, run: Run, at: float) -> None:
        if run.live and not run.killed:
            self._terminate(run, at)

    def _end(self, run: Run, reason: Reason, message: str, _now: float) -> None:
        """Write down that the agent itself ends this run, and why: a restart must not forget it."""
        if not run.entry.ending:
            self._record(run, ending=str(reason), message=message)

    def _close(self, run: Run, now: float, **end: Any) -> None:
        run.state = _EXITED
        self._record(run, exited=True, **end)
        self._report(run)
        if not self.live:
            self._idle_since = now

    def _leave(self, end: events.Exit, now: float, *, farewell: bool = False) -> None:
        """Stop all runs, then exit; with `farewell` the control plane is told so, once nothing runs any more (I8)."""
        if self.leaving is None:
            self.leaving = end
            self._farewell = farewell
            for run in self.runs.values():
                if run.live:
                    self._end(run, Reason.AGENT_GONE, end.message, now)
                    self._terminate(run, now + min(run.entry.grace, LEAVE_GRACE_S))

    def _forget(self, runs: list[str]) -> None:
        for run in runs:
            state = self.runs.get(run)
            if state is not None and not state.live:
                del self.runs[run]
                self._haunt(run)
                self._do(events.Drop(run))

    # Deadlines.

    def _proof(self, now: float) -> float:
        """Return the latest time by which the control plane surely heard this agent; without any, now."""
        return now if self.contact is None else self.contact

    def _lease_end(self, run: Run) -> float | None:
        if not run.entry.lease_s:
            return None
        heard = run.entry.contact if self.contact is None else max(run.entry.contact, self.contact)
        return heard + run.entry.lease_s * (1 - 2 * DRIFT)

    def _keep(self, run: Run) -> None:
        """Let an exclusive run live to the end of its lease, should this process not be there to end it (I8)."""
        until = self._lease_end(run)
        if run.live and until is not None:
            self._do(events.Keep(run.entry.run, until))

    def _lapsed(self, run: Run, exit_code: int | None, now: float) -> bool:
        """Say whether the run was killed at the end of its lease by its supervisor: this process did not do it."""
        end = self._lease_end(run)
        return exit_code == _KILLED and end is not None and now >= end

    def _lease_grace(self, run: Run) -> float:
        return min(run.entry.grace, run.entry.lease_s * DRIFT)

    def _deadlines(self, run: Run) -> list[float]:
        times = [] if run.kill_at is None else [run.kill_at]
        lease_end = self._lease_end(run)
        if lease_end is not None and not run.killed:
            times.append(lease_end if run.terminated else lease_end - self._lease_grace(run))
        return times

    def _ends_of_machine(self) -> list[tuple[float, str]]:
        """Return when a launched machine ends itself if nothing happens, each time with its reason code."""
        ends = []
        if self.terms.max_life_s:
            ends.append((self.machine.born_at + self.terms.max_life_s, "MAX_LIFE"))
        if self.terms.lease_s and not self.live and self._began is not None:
            ends.append((self._quiet_since() + self.terms.lease_s, "LEASE_EXPIRED"))
        return ends

    def _quiet_since(self) -> float:
        """Return when the machine was last of use: heard by the control plane, or at work."""
        heard = self.contact if self.contact is not None else self._began
        return max(heard or 0.0, self._idle_since)

    def lives_until(self, now: float) -> float | None:
        """Return the monotonic time until which a launched machine should live if this agent says no more.

        By the rules of its own end, as if its work ended now. None: not launched, or not yet on any terms.
        """
        if not self.terms.lease_s:
            return None
        leased = (now if self.live else self._quiet_since()) + self.terms.lease_s
        return min(leased, self.machine.born_at + self.terms.max_life_s) if self.terms.max_life_s else leased

    def _look_at_deadlines(self, now: float) -> None:
        for run in self.runs.values():
            if run.live:
                self._look_at_lease(run, now)
                if run.kill_at is not None and now >= run.kill_at:
                    self._kill(run)
        if self.leaving is None:
            for time, reason in self._ends_of_machine():
                if now >= time:
                    message = f"this machine ends itself: {_MACHINE_ENDS[reason]}"
                    self._leave(events.Exit(reason, message, poweroff=True), now, farewell=True)
                    return

    def _look_at_lease(self, run: Run, now: float) -> None:
        end = self._lease_end(run)
        if end is None or run.killed or now < end - self._lease_grace(run):
            return
        self._end(run, Reason.LEASE_EXPIRED, _LAPSED, now)
        self._terminate(run, end)

    def _end_when_empty(self) -> None:
        if self.leaving is not None and not self.live and not self._exited:
            self._exited = True
            if self._farewell:
                self._do(events.Send(wire.Leave(reason=self.leaving.message)))
            self._do(self.leaving)

    # Small parts.

    def _do(self, command: Command) -> None:
        self._commands.append(command)

    def _report(self, run: Run) -> None:
        if self.registered:
            self._do(events.Send(wire.Report(report=run.report())))

    def _send_notice(self, now: float) -> None:
        if self._notice is not None and self.registered:
            at, message = self._notice
            self._do(events.Send(wire.Notice(in_s=max(0.0, at - now), message=message)))

    def _record(self, run: Run, **changes: Any) -> None:
        run.entry = msgspec.structs.replace(run.entry, **changes)
        self._do(events.JournalPut(run.entry))

    def _haunt(self, run: str) -> None:
        self._ghosts[run] = None
        if len(self._ghosts) > GHOSTS:
            del self._ghosts[next(iter(self._ghosts))]

    def _held(self) -> list[devices.Held]:
        return [devices.Held(run.entry.gpus, run.entry.gpu_milli) for run in self.runs.values() if run.live]

    _EVENTS: Mapping[type, Callable[..., None]] = {
        events.Restored: _restored,
        events.Linked: _linked,
        events.Unlinked: _unlinked,
        events.Contact: _contact_made,
        events.Received: _received,
        events.RuntimeStarted: _runtime_started,
        events.RuntimeExited: _runtime_exited,
        events.StartFailed: _start_failed,
        events.SignalRefused: _signal_refused,
        events.NoticeSeen: _notice_seen,
        events.LeaveAsked: _leave_asked,
        events.Tick: _tick,
    }
    _MESSAGES: Mapping[type, Callable[..., None]] = {
        wire.Welcome: _welcome,
        wire.Start: _start,
        wire.Stop: _stop,
        wire.Checkpoint: _checkpoint,
        wire.Forget: _forget_message,
        wire.Cordon: _cordon,
        wire.Leave: _told_to_leave,
        wire.Refuse: _refuse,
        wire.LogAck: _not_for_core,
        wire.Certificate: _not_for_core,
    }


_MACHINE_ENDS = {
    "MAX_LIFE": "its longest life is over",
    "LEASE_EXPIRED": "nothing runs here and the control plane was not heard for the length of its lease",
}
