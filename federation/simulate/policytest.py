"""`atoll policy test`: a history or a trace replayed under a policy and, to compare, under the one in force."""

import argparse
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

from atoll import duration, money
from atoll.cli.output import note, show, table
from atoll.client.synchronous import Client
from atoll.errors import Invalid
from atoll.host.system import SystemClock
from atoll.judge import Judge
from atoll.policy import ACTIVE
from federation.simulate import history, setups, traces
from federation.simulate.model import Job, Options, Outcome, Run
from federation.simulate.policies import Course, asked_of, course, installed, replayed

Replay: TypeAlias = Callable[[Sequence[Job]], Outcome]
SESSIONS = 1_000_000
"""So many sessions of a history are read at most."""
SHOWN = 20
"""How many jobs that would have fared otherwise are shown."""
SLACK_S, SLACK_COST = 60.0, 0.01
"""Waits that differ by less, and costs that differ by a smaller part, count as the same."""


@dataclass(frozen=True, slots=True)
class Tried:
    """One policy's replay: what came of it, and what it says against jobs: `denied` and `held`, with why, by job."""

    name: str
    outcome: Outcome
    denied: dict[str, str]
    held: dict[str, str]
    errors: dict[str, str]


def test(args: argparse.Namespace) -> int:
    """Run `atoll policy test`; `args` are those of `atoll.cli.policies`."""
    asks = args.replay or args.compare or not args.setup
    connection = Client(project=args.project or "", patience=5.0) if asks else None
    jobs = _jobs(args, connection)
    setup = setups.of_file(args.setup) if args.setup else setups.of_installation(_needed(connection))
    there = installed(connection) if connection else []
    tested = course(str(args.file), there)
    courses = [course(ACTIVE, there), tested] if args.compare else [tested]
    tried = [tried_of(one, jobs, partial(replayed, one, setup=setup)) for one in courses]
    if args.output == "table":
        print(table_of(tried, len(jobs)), end="")
        if args.compare:
            print("\n" + differences(*tried), end="")
        for each in tried:
            for rule, why in each.errors.items():
                note(f"does not apply: {rule}: {why}")
    else:
        show([values(each) for each in tried], args.output)
    return 0


def tried_of(one: Course, jobs: Sequence[Job], replay: Replay) -> Tried:
    """Replay the jobs that a policy does not deny at once; what they cost shows what rules about cost would say."""
    expected_s = Options().expected_s
    judge = Judge(one.active.policies)
    denied: dict[str, str] = {}
    held: dict[str, str] = {}
    for job in jobs:
        if said := judge.session(asked_of(job, expected_s), cost_known=False):
            (held if said.role else denied)[job.id] = _why(said.role, said.reason)
    outcome = replay(one.jobs([job for job in jobs if job.id not in denied]))
    spent = {run.job: run.spent for run in outcome.runs}
    for job in jobs:
        if job.id in spent:
            facts = replace(asked_of(job, expected_s), cost=spent[job.id] / money.PER_UNIT)
            if said := judge.session(facts):
                (held if said.role else denied)[job.id] = _why(said.role, said.reason)
    return Tried(one.name, outcome, denied, held, dict(judge.errors))


def table_of(tried: Sequence[Tried], count: int) -> str:
    """Return what came of each policy, as people read it."""
    columns: Mapping[str, Callable[[Any], str]] = {
        "POLICY": lambda t: t.name,
        "COST": lambda t: _money(t.outcome.cost),
        "CLOUD": lambda t: _money(t.outcome.cloud),
        "P50 WAIT": lambda t: duration.rough(t.outcome.wait(0.5)),
        "P95 WAIT": lambda t: duration.rough(t.outcome.wait(0.95)),
        "DENIED": lambda t: str(len(t.denied)),
        "FOR APPROVAL": lambda t: str(len(t.held)),
        "NEVER RAN": lambda t: str(t.outcome.unplaced),
    }  # fmt: skip
    text = f"{count} jobs\n" + table(tried, columns)
    for each in tried:
        for what, found in (("denied", each.denied), ("for approval", each.held)):
            for why, times in sorted(Counter(found.values()).items()):
                text += f"{each.name}: {times} {what}: {why}\n"
    return text


def differences(live: Tried, tested: Tried) -> str:
    """Return what would have been otherwise under the tested policy: how many jobs, and the most changed of them."""
    there = {run.job: run for run in tested.outcome.runs}
    found: Counter[str] = Counter()
    rows: list[tuple[float, Run, Run, str]] = []
    for run in live.outcome.runs:
        other = there.get(run.job)
        if other is None:
            found["denied" if run.job in tested.denied else "left out"] += 1
            continue
        kinds = _changes(run, other)
        found.update(kinds)
        if kinds:
            much = abs(other.spent - run.spent) / money.PER_UNIT + abs(other.waited_s - run.waited_s) / money.HOUR
            rows.append((much, run, other, ", ".join(kinds)))
    found["for approval"] += len(tested.held.keys() - live.held.keys())
    found["admitted now"] += len(live.denied.keys() & there.keys())
    told = [f"{count} {kind}" for kind, count in sorted(found.items()) if count]
    text = f"under {tested.name} instead of {live.name}: {', '.join(told) or 'nothing differs'}\n"
    rows.sort(key=lambda row: (-row[0], row[1].job))
    columns: Mapping[str, Callable[[Any], str]] = {
        "JOB": lambda r: r[1].job,
        "WHAT": lambda r: r[3],
        "WAIT": lambda r: f"{duration.rough(r[1].waited_s)} -> {duration.rough(r[2].waited_s)}",
        "COST": lambda r: f"{_money(r[1].spent)} -> {_money(r[2].spent)}",
        "SITES": lambda r: f"{'+'.join(r[1].sites) or '-'} -> {'+'.join(r[2].sites) or '-'}",
    }  # fmt: skip
    return text + (table(rows[:SHOWN], columns) if rows else "")


def values(tried: Tried) -> dict[str, object]:
    """Return one policy's replay as plain values; money in units, times in seconds."""
    outcome = tried.outcome
    return {
        "policy": tried.name,
        "cost": outcome.cost / money.PER_UNIT,
        "cloud": outcome.cloud / money.PER_UNIT,
        "owned": outcome.owned / money.PER_UNIT,
        "wait_p50_s": outcome.wait(0.5),
        "wait_p95_s": outcome.wait(0.95),
        "unplaced": outcome.unplaced,
        "denied": tried.denied,
        "for_approval": tried.held,
        "errors": tried.errors,
    }


def _changes(before: Run, after: Run) -> list[str]:
    kinds = []
    if abs(after.waited_s - before.waited_s) > SLACK_S:
        kinds.append("wait longer" if after.waited_s > before.waited_s else "wait less")
    if abs(after.spent - before.spent) > SLACK_COST * max(before.spent, 1):
        kinds.append("cost more" if after.spent > before.spent else "cost less")
    if after.sites != before.sites:
        kinds.append("run elsewhere")
    return kinds


def _jobs(args: argparse.Namespace, connection: Client | None) -> Sequence[Job]:
    if args.trace:
        return traces.read(args.trace)
    now = SystemClock().now()
    since = now - duration.parse(args.replay)
    found = history.of_sessions(_needed(connection).sessions(limit=SESSIONS), since=since, now=now)
    for line in history.told(found):
        note(line)
    if not found.jobs:
        raise Invalid("nothing ran here in this time", hint="take a longer --replay, or a --trace")
    return found.jobs


def _needed(connection: Client | None) -> Client:
    if connection is None:
        raise Invalid("a control plane is needed for this", hint="give --trace and --setup, or log in")
    return connection


def _why(role: str, reason: str) -> str:
    return f"{role}{': ' if role and reason else ''}{reason}"


def _money(amount: int) -> str:
    return f"{amount / money.PER_UNIT:,.2f}"
