"""Policies for a replay: a name or a file, with single rules changed (`default:wait_value=2`); beside it, projects'."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from atoll.client.synchronous import Client
from atoll.document.rules import policy as policy_document
from atoll.errors import Invalid
from atoll.judge import Judge
from atoll.money import HOUR, PER_UNIT
from atoll.policy import ACTIVE, Asked, Homecoming, Policy
from atoll.suggest import hint
from federation.control import rulings
from federation.control.rulings import Active
from federation.routing.homecoming import Homing
from federation.routing.rules import PLAIN, Rules
from federation.simulate.home import Home
from federation.simulate.model import Job, Options, Outcome, Setup
from federation.simulate.places import demand_of
from federation.simulate.run import Progress, simulate

PARAMETERS: Mapping[str, str] = {
    "wait_value": "the worth of an hour's waiting, in units of money",
    "patience": "seconds that a session may wait in all for cheaper slots than it could have at once",
    "scarcity": "0 ranks by cost alone, 1 adds in full what others would lose",
    "rework": "seconds of work that an interruption costs a session without checkpoints",
    "spot_interruptions": "how often an hour a spot machine goes away, where its shape does not say",
    "homecoming": "1: sessions that take checkpoints come home from the cloud; 0: they stay",
}
"""What `--set` and `--sweep` change."""

_FIELDS: Mapping[str, Callable[[Rules, float], Rules]] = {
    "wait_value": lambda rules, value: replace(rules, wait_value=round(value * PER_UNIT / HOUR)),
    "patience": lambda rules, value: replace(rules, patience_s=value),
    "scarcity": lambda rules, value: replace(rules, scarcity=value),
    "rework": lambda rules, value: replace(rules, rework_s=value),
    "spot_interruptions": lambda rules, value: replace(rules, spot_interruptions=value),
}

_PLAIN = Homecoming()
_NONE = Active([])
_OPTIONS = Options()


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What one replay goes by: the router's rules, whom policies deny, and whether sessions come home.

    `active` are the installation's policy and those of projects, as the control plane has them in force.
    """

    name: str
    rules: Rules = PLAIN
    active: Active = _NONE
    homecoming: Homecoming = _PLAIN

    def gate(self, expected_s: float) -> Callable[[Job], str] | None:
        """Return what says why the policy denies a job, empty where it does not; what it would approve is let through.

        `expected_s` is the run time of a job that says nothing itself.
        """
        if not any(policy.deny for policy in self.active.policies):
            return None
        judge = Judge([replace(policy, approve=()) for policy in self.active.policies])

        def deny(job: Job) -> str:
            said = judge.session(asked_of(job, expected_s), cost_known=False)
            return said.reason if said else ""

        return deny

    @property
    def homing(self) -> Homing | None:
        """How sessions come home, None where they do not."""
        return Homing(max_moves=self.homecoming.max_moves) if self.homecoming.enabled else None

    def jobs(self, jobs: Sequence[Job]) -> Sequence[Job]:
        """Return the jobs with the longest wait that policies set, where they have none of their own."""
        if all(policy.max_wait is None for policy in self.active.policies):
            return jobs
        longest = self.active.longest_wait
        return [replace(job, max_wait_s=longest(job.project)) if job.max_wait_s is None else job for job in jobs]


def course(word: str, installed: Sequence[Policy] = (), settings: Sequence[str] = ()) -> Course:
    """Return the course of `NAME|FILE[:key=value,…]` with `settings` on top; `installed` are all of the installation.

    What is named stands in for the installation's policy, or for that of its project, and those of (other) projects
    hold beside it; a file may have several. The name `default` means no policy where the installation has none. Raise
    `Invalid` for anything else unknown.
    """
    name, _, changes = word.partition(":")
    is_file = name.endswith((".yaml", ".yml"))
    named = _read(Path(name)) if is_file else [policy for policy in installed if policy.name == name]
    if not named and (is_file or name != ACTIVE):
        raise Invalid(f"there is no policy {name!r}", hint="name a YAML file, or `default` for the router's own rules")
    found = of_policies(word, named, installed)
    return changed(found, [*settings, *(change for change in changes.split(",") if change)])


def of_policies(name: str, named: Sequence[Policy], installed: Sequence[Policy] = ()) -> Course:
    """Return the course of the `named` policies, and of those `installed` in whose place none of them stands."""
    own = [policy for policy in named if not policy.project]
    if len(own) > 1:
        raise Invalid(f"{name} has {len(own)} policies of the installation", hint="all but one need a `project`")
    projects = {policy.name: policy for policy in (*installed, *named) if policy.project}
    live = [policy for policy in installed if not policy.project and policy.name == ACTIVE]
    active = Active([*(own or live), *(projects[key] for key in sorted(projects))])
    return Course(name=name, rules=active.rules, active=active, homecoming=active.homecoming)


def replayed(
    one: Course, jobs: Sequence[Job], setup: Setup, *, options: Options = _OPTIONS, progress: Progress | None = None
) -> Outcome:
    """Return what comes of jobs by a course: whom it denies is left out, and sessions come home where it says so."""
    home = Home(one.homing) if one.homing else None
    return simulate(
        one.jobs(jobs),
        setup,
        rules=one.rules,
        options=options,
        home=home.bring if home else None,
        way=home.make_way if home and one.homecoming.exchange else None,
        deny=one.gate(options.expected_s),
        progress=progress,
    )


def changed(one: Course, settings: Iterable[str]) -> Course:
    """Return a course with single parameters set, as `key=value` says."""
    for setting in settings:
        key, mark, text = setting.partition("=")
        if key not in PARAMETERS or not mark:
            advice = hint(key, PARAMETERS, f"parameters: {', '.join(PARAMETERS)}")
            raise Invalid(f"{setting!r} sets nothing that a replay knows", hint=advice)
        value = _number(text, setting)
        if key == "homecoming":
            one = replace(one, homecoming=replace(one.homecoming, enabled=value > 0))
        else:
            rules = _FIELDS[key](one.rules, value)
            one = replace(one, rules=replace(rules, version=f"{rules.version}/{setting}"))
    return one


def installed(there: Client) -> list[Policy]:
    """Return all policies of an installation."""
    return [policy_document(view.spec) for view in there.policies()]


def _read(path: Path) -> list[Policy]:
    import yaml

    try:
        found = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError):
        raise Invalid(f"{path} is not YAML", hint="see docs/policies.md for the form of a policy") from None
    return [policy_document(each if each is not None else {}) for each in found or [None]]


def _number(text: str, setting: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise Invalid(f"{setting!r} has no number", hint="write it like wait_value=0.5") from None
    if not 0 <= value < 1e9:
        raise Invalid(f"{setting!r} is out of range", hint="0 or more")
    return value


def asked_of(job: Job, expected_s: float) -> Asked:
    """Return a job as expressions see it; `expected_s` is the run time of one that says nothing itself."""
    return rulings.asked_of(demand_of(job, expected_s))
