"""`atoll simulate`: reads trace, setup and policies, replays, prints tables or JSON, and writes the report."""

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property

from atoll import duration
from atoll.cli.output import note, show, table
from atoll.client.synchronous import Client
from atoll.errors import Invalid, Unavailable
from atoll.host.system import SystemClock
from atoll.policy import Policy
from atoll.session import Checkpoint
from federation.simulate import history, report, setups, traces
from federation.simulate.model import Job, Options, Outcome, Setup
from federation.simulate.policies import PARAMETERS, Course, changed, course, installed, replayed
from federation.simulate.report import Report, Result

SESSIONS = 1_000_000
"""So many sessions of a history are read at most."""
_DAY = 86400.0
_QUIET_S = 2.0
"""Progress is told after this long, and then this often."""


def simulate(args: argparse.Namespace) -> int:
    """Run `atoll simulate`; `args` are those of `atoll.cli.simulate`."""
    if args.print_setup:
        print(setups.EXAMPLE.read_text(encoding="utf-8"), end="")
        return 0
    return _Simulation(args).run()


class _Simulation:
    """One call of the command."""

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._notes: list[str] = []

    def run(self) -> int:
        """Do what was asked and return the exit code."""
        args = self._args
        jobs = self._jobs()
        courses = [course(word, self._installed, args.set) for word in (args.policy, *args.compare)]
        sweep = self._sweep(courses[0])
        setup = self._setup()
        if args.save:
            args.save.write_text("".join(json.dumps(traces.dump(job)) + "\n" for job in jobs), encoding="utf-8")
        options = self._options()
        results = [Result(name=one.name, outcome=self._replay(one, jobs, setup, options)) for one in courses]
        swept = [
            Result(name=f"{courses[0].name}:{setting}", swept=setting.partition("=")[2],
                   outcome=self._replay(changed(courses[0], [setting]), jobs, setup, options))
            for setting in sweep
        ]  # fmt: skip
        self._tell(self._report(jobs, results, swept, options))
        return 0

    # -- input ------------------------------------------------------------------------------------

    @cached_property
    def _client(self) -> Client:
        return Client(project=self._args.project or "", patience=5.0)

    def _jobs(self) -> Sequence[Job]:
        args = self._args
        if args.trace:
            jobs = traces.read(args.trace, cluster=args.cluster)
        elif args.history:
            now = SystemClock().now()
            found = history.of_sessions(
                self._client.sessions(limit=SESSIONS), since=now - duration.parse(args.history), now=now
            )
            self._notes += history.told(found)
            jobs = list(found.jobs)
        else:
            raise Invalid(
                "there is nothing to replay", hint="name a --trace, or --history 7d for this installation's own"
            )
        jobs = traces.window(jobs, days=args.days, skip_days=args.skip_days)
        if not jobs:
            raise Invalid("there is no job in this time", hint="see --days and --skip-days, or a longer --history")
        if args.checkpoints is not None:
            jobs = _with_checkpoints(jobs, args.checkpoints, args.seed)
        return jobs

    def _setup(self) -> Setup:
        if self._args.setup:
            return setups.of_file(self._args.setup)
        try:
            found = setups.of_installation(self._client)
        except (Unavailable, Invalid) as error:
            if self._args.history:
                raise
            self._notes.append(f"run on the built-in example of a setup: {error.message}. --setup FILE gives another")
            return setups.of_file(setups.EXAMPLE)
        self._notes.append("run on this installation's own sites, groups and prices, as they are now")
        return found

    @cached_property
    def _installed(self) -> Sequence[Policy]:
        """All policies of the installation, none without one."""
        try:
            return installed(self._client)
        except Unavailable:
            return ()

    def _sweep(self, one: Course) -> list[str]:
        if not self._args.sweep:
            return []
        key, _, values = self._args.sweep.partition("=")
        settings = [f"{key}={value}" for value in values.split(",") if value]
        if not settings:
            raise Invalid(f"--sweep {self._args.sweep!r} has no values", hint="write it like wait_value=0.1,1,10")
        changed(one, settings)  # raises for what cannot be set
        self._notes.append(f"{key}: {PARAMETERS[key]}")
        return settings

    def _options(self) -> Options:
        args = self._args
        return Options(
            tick_s=duration.parse(args.tick),
            expected_s=max(1.0, duration.parse(args.expected)),
            clairvoyant=args.clairvoyant,
            interruptions=not args.no_interruptions,
            idle_s=duration.parse(args.idle) if args.idle else None,
            seed=args.seed,
        )

    # -- output -----------------------------------------------------------------------------------

    def _replay(self, one: Course, jobs: Sequence[Job], setup: Setup, options: Options) -> Outcome:
        progress = _Progress(one.name, jobs)
        outcome = replayed(one, jobs, setup, options=options, progress=progress)
        progress.end()
        return outcome

    def _report(self, jobs: Sequence[Job], results: list[Result], swept: list[Result], options: Options) -> Report:
        args = self._args
        what = (
            f"history of {args.history}"
            if args.history
            else args.trace.name + (f", {args.cluster}" * bool(args.cluster))
        )
        span = (jobs[-1].at - jobs[0].at) / _DAY
        told = (
            "its true run time" if options.clairvoyant else f"{duration.text(options.expected_s)} where it says nothing"
        )
        about = f"{len(jobs):,} jobs submitted in {span:.1f} days; expected run time of a job: {told}"
        return Report(
            title=f"Simulation of {what}",
            about=f"{about}; seed {options.seed}",
            results=results,
            sweep=swept,
            parameter=args.sweep.partition("=")[0] if args.sweep else "",
            max_wait_s=duration.parse(args.max_wait) if args.max_wait else None,
            notes=[*self._notes, *_ABOUT],
        )

    def _tell(self, told: Report) -> None:
        args = self._args
        if args.report:
            args.report.write_text(report.html(told), encoding="utf-8")
            note(f"report: {args.report}")
        if args.output == "table":
            print(f"{told.title}: {told.about}")
            print(table_of(report.columns(told)))
            for result in told.results:
                print(f"{result.name}\n{table_of(report.site_columns(result))}" if len(told.results) > 1
                      else table_of(report.site_columns(result)))  # fmt: skip
            for line in self._notes:
                note(line)
        else:
            show(report.values(told), args.output)


_ABOUT = (
    "Each job runs for as long as the trace says; the router is told only what it is expected to take. Sessions start "
    "as soon as they are placed: copying data is not counted.",
    "Decisions are those of the real router and planner, on a virtual clock. A launched machine costs from its launch, "
    "boots for as long as its shape says, and is to be had but where the setup says that there is no capacity.",
    "A machine of a spot shape is taken away by chance, as often as its shape or the policy says; a session without a "
    "checkpoint then begins anew.",
)


class _Progress:
    """Tells a person at a terminal how far a replay is."""

    def __init__(self, name: str, jobs: Sequence[Job]) -> None:
        self._name = name
        self._count = len(jobs)
        self._told = time.monotonic()
        self._shown = False

    def __call__(self, _now: float, done: int) -> None:
        """Note how many jobs are done."""
        if not sys.stderr.isatty() or time.monotonic() - self._told < _QUIET_S:
            return
        self._told, self._shown = time.monotonic(), True
        sys.stderr.write(f"\r{self._name}: {done:,} of {self._count:,} jobs\x1b[K")
        sys.stderr.flush()

    def end(self) -> None:
        """Clear the line."""
        if self._shown:
            sys.stderr.write("\r\x1b[K")


def table_of(columns: dict[str, list[str]]) -> str:
    """Return columns as a table for the terminal."""
    rows = list(range(len(next(iter(columns.values()), []))))
    picks: dict[str, Callable[[int], str]] = {name: cells.__getitem__ for name, cells in columns.items()}
    return table(rows, picks)


def _with_checkpoints(jobs: Sequence[Job], part: float, seed: int) -> list[Job]:
    if not 0 <= part <= 1:
        raise Invalid(f"--checkpoints is {part:g}", hint="a part of the jobs, 0 to 1")
    return [
        replace(job, checkpoint=Checkpoint() if random.Random(f"{seed}/{job.id}").random() < part else None)  # noqa: S311
        for job in jobs
    ]
