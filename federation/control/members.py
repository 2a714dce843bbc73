"""What agents report about runs, turned into moves of sessions."""

from dataclasses import replace
from enum import StrEnum

from atoll.errors import Invalid
from atoll.ids import run_id, split_run_id
from atoll.session import Checkpoint, Member, MemberState, Session, SessionType
from atoll.states import PLACED, Reason, SessionState
from federation.control.changes import Change
from federation.control.stretches import settle
from tunnel.wire import RunReport

_S = SessionState
_NOT_ITS_OWN = frozenset({Reason.LEASE_EXPIRED, Reason.NOT_ADOPTED, Reason.AGENT_GONE})
"""Ends that an agent brought about: the signal's exit code says nothing about the program."""


class Verdict(StrEnum):
    """What is to become of a run that an agent reported."""

    KEEP = "keep"
    KILL = "kill"  # it is not (any more) this agent's: end it
    FORGET = "forget"  # its end is stored


def current_runs(row: Session) -> list[tuple[str, Member]]:
    """Return the run ids of the current attempt with their members."""
    return [(run_id(row.id, row.attempt, member.rank), member) for member in row.members]


def holders(row: Session) -> list[tuple[str, Member]]:
    """Return the runs that hold slots: those that have not exited, and those of the next attempt during a move."""
    held = row.moving.to if row.moving else ()
    next_runs = [(run_id(row.id, row.attempt + 1, member.rank), member) for member in held]
    return [(run, member) for run, member in current_runs(row) if member.state is not MemberState.EXITED] + next_runs


async def find(change: Change, agent: str, run: str) -> tuple[Session, Member] | None:
    """Return the session and member that `run` is, if it belongs to `agent` in the current attempt."""
    try:
        key, attempt, rank = split_run_id(run)
    except Invalid:
        return None
    row = await change.tx.get(Session, key)
    if row is None or row.attempt != attempt:
        return None
    member = next((m for m in row.members if m.rank == rank and m.agent == agent), None)
    return (row, member) if member else None


async def ran_on(change: Change, agent: str, run: str) -> bool:
    """Say whether a run is an agent's, or was in an earlier attempt: its output may come from there (S2)."""
    try:
        key, attempt, rank = split_run_id(run)
    except Invalid:
        return False
    row = await change.tx.get(Session, key)
    if row is None:
        return False
    if row.attempt == attempt and row.members:
        return any(member.rank == rank and member.agent == agent for member in row.members)
    return row.earlier.get(f"{attempt}.{rank}") == agent


async def apply(change: Change, agent: str, report: RunReport) -> Verdict:
    """Take in one report; a repeat changes nothing. An agent speaks of its own runs only (S2)."""
    found = await find(change, agent, report.run)
    if found is None:
        return Verdict.FORGET if report.state == MemberState.EXITED else Verdict.KILL
    row, member = found
    if member.state is MemberState.EXITED:
        return Verdict.FORGET if report.state == MemberState.EXITED else Verdict.KILL
    if row.state not in PLACED:
        return Verdict.FORGET if report.state == MemberState.EXITED else Verdict.KILL
    now = _updated(member, report, change.now, row.spec.checkpoint)
    row = replace(row, members=tuple(now if m is member else m for m in row.members))
    if report.state == MemberState.EXITED:
        await _exited(change, row, now, report.message)
        return Verdict.FORGET
    await _alive(change, row)
    return Verdict.KEEP


def _updated(member: Member, report: RunReport, now: float, checkpoint: Checkpoint | None) -> Member:
    state = MemberState(report.state)
    started = member.started_at if member.started_at is not None or state is MemberState.STARTING else now
    if state is not MemberState.EXITED:
        return replace(member, state=state, started_at=started, limits=report.limits, apps=report.apps)
    try:
        reason = Reason(report.reason)
    except ValueError:
        reason = Reason.NONE
    return replace(
        member,
        state=state,
        started_at=started,
        ended_at=now,
        exit_code=None if reason in _NOT_ITS_OWN and report.exit_code else report.exit_code,
        reason=reason,
        limits=report.limits or member.limits,
        out=report.out,
        err=report.err,
        saved=_saved(report, reason, checkpoint),
    )


def _saved(report: RunReport, reason: Reason, checkpoint: Checkpoint | None) -> bool:
    """Say whether a run ended because it was asked for a checkpoint, and has taken one."""
    asked = checkpoint is not None and report.asked and reason not in _NOT_ITS_OWN
    return asked and checkpoint is not None and report.exit_code == checkpoint.exit_code


async def _alive(change: Change, row: Session) -> None:
    """Some member starts or runs: the session is at least starting, and running once all have begun."""
    if row.state is _S.STOPPING:
        await change.session(row, _S.STOPPING, row.reason, row.message, hint=row.hint)
        return
    if any(member.state is MemberState.STARTING for member in row.members):
        to = _S.STARTING if row.state is _S.LOST else row.state
        await change.session(row, to, row.reason, row.message)
        return
    if row.stopping_as:
        await change.session(row, _S.STOPPING, Reason.LINK_BACK, "its agent is back and has been told to stop")
        return
    reason = Reason.LINK_BACK if row.state is _S.LOST else Reason.STARTED
    if row.state is _S.RUNNING:
        reason = row.reason
    where = "its agent is back" if row.state is _S.LOST else f"runs at {row.site}"
    if row.state is _S.RUNNING:
        where = row.message
    started = change.now if row.started_at is None else row.started_at
    await change.session(row, _S.RUNNING, reason, where, started_at=started)


async def _exited(change: Change, row: Session, member: Member, message: str) -> None:
    if all(member.state is MemberState.EXITED for member in row.members):
        await _finished(change, row, message)
        return
    if row.stopping_as:
        await change.session(row, row.state, row.reason, row.message, hint=row.hint)
        return
    if member.exit_code == 0 or (member.saved and row.moving):
        await _alive(change, row)
        return
    if member.saved:
        text = f"member {member.rank} saved its state late: the others are stopped, and all resume together"
        to = _S.LOST if row.state is _S.LOST else _S.STOPPING
        await change.session(row, to, Reason.NOT_MOVED, text, stopping_as=_S.INTERRUPTED)
        return
    end = _S.INTERRUPTED if member.exit_code is None else _S.FAILED
    text = f"member {member.rank} ended with {_code(member.exit_code)}: the others are being stopped"
    to = _S.LOST if row.state is _S.LOST else _S.STOPPING
    await change.session(row, to, Reason.MEMBER_FAILED, text, stopping_as=end, exit_code=member.exit_code)


async def _finished(change: Change, row: Session, message: str) -> None:
    """Every member has ended: give the session its end and its exit code."""
    broken = next((m for m in row.members if m.exit_code is None), None)
    if row.stopping_as in (None, _S.INTERRUPTED) and broken:
        text = message or f"member {broken.rank} ended without an exit code ({broken.reason or 'unknown'})"
        await change.interrupt(row, broken.reason or Reason.AGENT_GONE, text)
        return
    if _goes_on(row):
        await change.resume(row)
        return
    if _preempted(row):
        await change.preempt(row)
        return
    failed = [m.exit_code for m in sorted(row.members, key=lambda m: m.saved) if m.exit_code]
    worst = next(iter(failed), None if broken else 0)
    if row.stopping_as is _S.FAILED and row.exit_code:
        worst = row.exit_code  # the member that failed first: the others only ended because they were told to
    to = row.stopping_as or (_S.SUCCEEDED if worst == 0 else _S.FAILED)
    if to is _S.INTERRUPTED:
        to = _S.FAILED if worst else _S.SUCCEEDED
    reason = row.reason if row.stopping_as else Reason.EXITED
    text = row.message if row.stopping_as else f"ended with {_code(worst)}"
    row = settle(row, change.now, kept=True)
    await change.session(row, to, reason, text, exit_code=worst, price=0, instance="")


def _goes_on(row: Session) -> bool:
    """Say whether a session whose members have all ended has saved its state, to take it up elsewhere.

    Members that ended with 0 beside others that saved were done sooner: all start again from the checkpoint. A
    failed member fails the session, unless the members were stopped only because one had saved.
    """
    if not any(member.saved for member in row.members):
        return False
    clean = all(member.saved or member.exit_code == 0 for member in row.members)
    return row.stopping_as is _S.INTERRUPTED or (row.stopping_as is None and clean)


def _preempted(row: Session) -> bool:
    """Say whether a session was stopped for another one; a batch that ended with 0 all the same is simply done."""
    if row.stopping_as is not _S.INTERRUPTED or row.moving is None:
        return False
    return row.spec.type is not SessionType.BATCH or any(member.exit_code for member in row.members)


async def vanished(change: Change, agent: str, reason: Reason, message: str) -> None:
    """An agent surely runs nothing any more: each of its members ended without an exit code.

    Single sessions go back to the queue at once; of a gang the others are stopped first.
    """
    for row in await change.tx.find(Session, agent=agent, state=sorted(PLACED)):
        for member in row.members:
            if member.agent == agent:
                await vanished_member(change, row, member, reason, message)


async def vanished_member(change: Change, row: Session, member: Member, reason: Reason, message: str) -> None:
    """One member surely runs no more, and nobody knows its exit code."""
    run = run_id(row.id, row.attempt, member.rank)
    await apply(change, member.agent, RunReport(run=run, state="exited", reason=reason, message=message))


def _code(code: int | None) -> str:
    return "no exit code" if code is None else f"exit code {code}"
