"""Rulings: what policies and plug-ins say, in the forms of the router and of waiting sessions."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from atoll import money
from atoll.group import Group
from atoll.instance import Shape
from atoll.judge import Judge
from atoll.offer import WAIT_VALUE, Demand, OfferKind
from atoll.policy import ACTIVE, INFINITE, Asked, Homecoming, Offered, Policy, asked
from atoll.session import Session
from atoll.site import Site
from atoll.slots import GIB
from atoll.states import Reason
from autoscaler.demand import Terms
from federation.routing.rules import PLAIN, Candidate, Rules, Ruling

log = structlog.get_logger("control")

ENTRY_POINTS = "atoll.policies"
"""Entry-point group of rules that other distributions bring: each a `() -> Plugin`."""
_COSTS_KEPT = 10_000

_FIELDS = {
    "cpu": "request", "memory": "request", "gpu": "request", "gpu_models": "request", "hours": "expected_s",
    "labels": "tags",
}  # fmt: skip
"""The field of a demand that a session's field in expressions comes from, where it has another name."""


class Plugin(Protocol):
    """Rules in Python: they may depend on the candidate, and on the demand's fields that `reads` names, only."""

    @property
    def reads(self) -> tuple[str, ...]:
        """Which fields of a demand its rulings depend on."""
        ...

    def judge(self, demand: Demand, candidate: Candidate) -> Ruling:
        """Say whether the candidate is denied, and how its cost is changed for ranking."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Why a session may not go on now. `message` says nothing that changes by itself: numbers are in the hint."""

    reason: Reason
    message: str
    hint: str = ""


class Active:
    """The policies in force, compiled: the installation's first, then those of projects."""

    def __init__(self, policies: Sequence[Policy], plugins: Sequence[tuple[str, Plugin]] = ()) -> None:
        self.policies = tuple(policies)
        self.judge = Judge(self.policies)
        self._plugins = tuple(plugins)
        self._costs: dict[str, int] = {}
        own = next((policy for policy in self.policies if not policy.project), Policy(name=ACTIVE))
        self.homecoming = own.homecoming or Homecoming()
        self.rules = self._rules(own)

    @property
    def errors(self) -> dict[str, str]:
        """The last error of each rule or plug-in that did not apply for one."""
        return self.judge.errors

    def admit(self, row: Session, cost: int | None = None) -> Held | None:
        """Return why a session may not go on, None when it may; `cost` is its expected total in micro-units.

        Asked without a cost before routing, rules about it are left to when it is known: one that was held for its
        cost stays held at that cost.
        """
        if cost is None:
            cost = self._costs.get(row.id)
        said = self.ruling(row, cost)
        if said is None:
            self._costs.pop(row.id, None)
        elif cost is not None:
            if len(self._costs) >= _COSTS_KEPT:
                self._costs.clear()
            self._costs[row.id] = cost
        return said

    def ruling(self, row: Session, cost: int | None = None) -> Held | None:
        """Return what `admit` does, of a session that nothing is remembered of."""
        facts = asked(row.spec, row.project, row.owner, cost)
        said = self.judge.session(facts, approved_by=row.approved_by, cost_known=cost is not None)
        if said is None:
            return None
        if not said.role:
            return Held(
                reason=Reason.POLICY,
                message=f"denied by policy {said.policy}: {said.reason}",
                hint=f"change the session, or see `atoll policy show {said.policy}`",
            )
        why = f": {said.reason}" if said.reason else ""
        return Held(
            reason=Reason.APPROVAL,
            message=f"needs the approval of a {said.role}, by policy {said.policy}{why}",
            hint=f"somebody with that role says: atoll approve {row.name} --as {said.role}",
        )

    def max_wait(self, row: Session) -> float | None:
        """Return how long a session may wait: as it says itself, else its project's policy, else the installation's."""
        own = row.spec.lifetime.max_wait
        return self.longest_wait(row.project) if own is None else own

    def longest_wait(self, project: str) -> float | None:
        """Return how long a project's sessions may wait that say nothing themselves."""
        mine = [policy for policy in self.policies if policy.project in ("", project)]
        return next((policy.max_wait for policy in reversed(mine) if policy.max_wait is not None), None)

    def _rules(self, own: Policy) -> Rules:
        if not self.policies and not self._plugins:
            return PLAIN
        named = sorted({_FIELDS.get(name, name) for name in self.judge.reads})
        extra = [name for _, plugin in self._plugins for name in plugin.reads]
        judges = self.judge.judges_offers or bool(self._plugins)
        told = repr((self.policies, [name for name, _ in self._plugins])).encode()
        return Rules(
            version=hashlib.sha256(told).hexdigest()[:16],
            wait_value=WAIT_VALUE if own.wait_value is None else round(own.wait_value / money.HOUR),
            scarcity=PLAIN.scarcity if own.scarcity is None else own.scarcity,
            shares=dict(own.shares),
            reads=tuple(dict.fromkeys([*named, *extra])),
            judge=self._judge() if judges else None,
        )

    def _judge(self) -> Callable[[Demand, Candidate], Ruling]:
        last: list[tuple[Demand, Asked]] = []

        def judge(demand: Demand, candidate: Candidate) -> Ruling:
            known = last[0] if last else None
            if known is None or known[0] is not demand:  # read once: plans are made beside the event loop
                known = (demand, asked_of(demand))
                last[:] = [known]
            denied, factor, extra = self.judge.offer(known[1], _offered(candidate))
            for name, plugin in self._plugins:
                if denied:
                    break
                ruling = self._ask(name, plugin, demand, candidate)
                denied, factor, extra = ruling.denied, factor * ruling.factor, extra + ruling.extra
            return Ruling(denied=denied, factor=factor, extra=extra)

        return judge

    def _ask(self, name: str, plugin: Plugin, demand: Demand, candidate: Candidate) -> Ruling:
        try:
            ruling = plugin.judge(demand, candidate)
            if ruling.factor > 0 and ruling.extra >= 0:
                return ruling
            why = f"ruled factor {ruling.factor!r}, extra {ruling.extra!r}"
        except Exception as error:  # noqa: BLE001 - others' code: it must not stop routing
            why = f"{type(error).__name__}: {error}"
        if self.errors.get(f"plug-in {name}") != why:
            log.warning("policy plug-in failed", plugin=name, error=why)
        self.errors[f"plug-in {name}"] = why
        return _NOTHING


_NOTHING = Ruling()


def active(policies: Sequence[Policy], plugins: Sequence[tuple[str, Plugin]] = ()) -> Active:
    """Return the policies in force among all: the installation's `default`, and those of projects by name."""
    own = [policy for policy in policies if not policy.project and policy.name == ACTIVE]
    projects = sorted((policy for policy in policies if policy.project), key=lambda policy: policy.name)
    return Active([*own, *projects], plugins)


def denies(rules: Rules, regions: Mapping[str, str]) -> Callable[[Demand, Group, Shape], bool] | None:
    """Return what says whether a launch for a demand is denied, as the planner asks; None where none can be.

    `regions` are sites' labels of that name.
    """
    judge = rules.judge
    if judge is None:
        return None

    def denied(demand: Demand, group: Group, shape: Shape) -> bool:
        taken = shape.slots.take(demand.request)
        share = taken.share_of(shape.slots) if taken else 1.0
        candidate = Candidate(
            kind=OfferKind.LAUNCH,
            site=group.site,
            group=group.name,
            provider=group.provider,
            region=regions.get(group.site, ""),
            shape=shape.name,
            price=round(share * (shape.price or 0)),
            spot=shape.spot,
            owned=False,
            start_s=shape.start_s,
        )
        return bool(judge(demand, candidate).denied)

    return denied


def terms_of(rules: Rules, sites: Iterable[Site]) -> Terms:
    """Return what rules and sites say to the planner."""
    labels, egress = {}, {}
    for site in sites:
        labels[site.name] = site.labels
        if site.egress:
            egress[site.name] = site.egress
    return Terms(
        labels=labels,
        egress=egress,
        rework_s=rules.rework_s,
        spot_interruptions=rules.spot_interruptions,
        wait_value=rules.wait_value,
        reads=rules.reads,
        denied=denies(rules, {name: of.get("region", "") for name, of in labels.items()}),
    )


def plugins() -> tuple[list[tuple[str, Plugin]], dict[str, str]]:
    """Return the plug-ins that are installed, by name, and why others could not be loaded: those are left out."""
    from importlib.metadata import entry_points  # here: it reads the disk, and only a start needs it

    good: list[tuple[str, Plugin]] = []
    bad: dict[str, str] = {}
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda point: point.name):
        try:
            plugin: Plugin = point.load()()
            unknown = [name for name in plugin.reads if name not in Demand.__dataclass_fields__]
            if unknown or not callable(plugin.judge):
                bad[point.name] = (
                    f"reads {', '.join(unknown)}, which demands do not have" if unknown else "cannot judge"
                )
            else:
                good.append((point.name, plugin))
        except Exception as error:  # noqa: BLE001 - others' code: it must not stop the control plane
            bad[point.name] = f"{type(error).__name__}: {error}"
    for name, why in bad.items():
        log.warning("policy plug-in left out", plugin=name, error=why)
    return good, bad


def asked_of(demand: Demand) -> Asked:
    """Return a demand as expressions see it."""
    request = demand.request
    return Asked(
        type=demand.type,
        project=demand.project,
        owner=demand.owner,
        cpu=request.cpu / 1000,
        memory=request.memory / GIB,
        gpu=request.gpu.milli / 1000,
        gpu_models=request.gpu.models,
        nodes=demand.nodes,
        hours=demand.expected_s / money.HOUR,
        priority=demand.priority,
        max_price=INFINITE if demand.max_price is None else demand.max_price / money.PER_UNIT,
        spot=demand.spot,
        preemptible=demand.preemptible,
        checkpoint=demand.checkpoint,
        protect=demand.protect,
        labels=demand.tags,
        sites=demand.sites,
        groups=demand.groups,
        near=demand.near,
    )


def _offered(candidate: Candidate) -> Offered:
    return Offered(
        kind=str(candidate.kind),
        site=candidate.site,
        group=candidate.group,
        provider=candidate.provider,
        region=candidate.region,
        shape=candidate.shape,
        price=candidate.price / money.PER_UNIT,
        spot=candidate.spot,
        owned=candidate.owned,
        start=candidate.start_s,
    )
