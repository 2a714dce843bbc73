"""What policies say, once read: of a session before it is routed, and of each offer for it."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from atoll import money
from atoll.expression import Expression, Unevaluable
from atoll.policy import Asked, Offered, Policy, condition, granted, preference, reads_cost, reads_offer

MAX_FACTOR = 1000.0
"""By how much preferences together make an offer dearer or cheaper at most."""
MAX_EXTRA = 1e6
"""Units that preferences together add to an offer's cost at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a policy says against a session: it is denied or, where `role` is set, needs that role's approval."""

    policy: str
    reason: str
    role: str = ""


@dataclass(frozen=True, slots=True)
class _Rule:
    """A rule of a policy: when it applies, and what it then says or does."""

    policy: str
    project: str
    when: Expression
    reason: str = ""
    role: str = ""
    sign: str = ""
    amount: Expression | None = None


class Judge:
    """Policies as functions. `errors` has the last error of each rule that could not be evaluated: it did not apply."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        self.errors: dict[str, str] = {}
        denies = [_Rule(p.name, p.project, condition(r.when), r.reason) for p in policies for r in p.deny]
        self._deny_sessions = [rule for rule in denies if not reads_offer(rule.when)]
        self._deny_offers = [rule for rule in denies if not reads_cost(rule.when)]
        self._approve = [
            _Rule(p.name, p.project, condition(r.when), r.reason, r.role) for p in policies for r in p.approve
        ]
        self._prefer = [
            _Rule(p.name, p.project, condition(r.when), "", "", *preference(r.cost)) for p in policies for r in p.prefer
        ]
        rules = [*self._deny_offers, *self._prefer]
        found = {name for rule in rules for name in _reads(rule) if name.startswith("session.")}
        if any(rule.project for rule in rules):
            found.add("session.project")
        self.reads = tuple(sorted(name.removeprefix("session.") for name in found))
        """The session's fields that what is said of offers depends on."""
        self.judges_offers = bool(rules)
        """Whether there is anything to say of offers."""

    def session(self, asked: Asked, *, approved_by: str = "", cost_known: bool = True) -> Said | None:
        """Return what is said against a session first: a denial, else an approval that it lacks.

        Rules about its cost are left out where that is not known.
        """
        for rule in self._deny_sessions:
            if (cost_known or not reads_cost(rule.when)) and self._applies(rule, asked):
                return Said(policy=rule.policy, reason=rule.reason)
        there = granted(approved_by)
        for rule in self._approve:
            known = cost_known or not reads_cost(rule.when)
            if rule.role not in there and known and self._applies(rule, asked):
                return Said(policy=rule.policy, reason=rule.reason, role=rule.role)
        return None

    def offer(self, asked: Asked, offered: Offered) -> tuple[str, float, int]:
        """Return why an offer is denied (empty: it is not), and by which factor and micro-units its cost changes."""
        for rule in self._deny_offers:
            if self._applies(rule, asked, offered):
                return rule.reason, 1.0, 0
        factor, extra = 1.0, 0.0
        for rule in self._prefer:
            if rule.amount is None or not self._applies(rule, asked, offered):
                continue
            amount = self._amount(rule, rule.amount, asked, offered)
            if amount is not None and rule.sign == "x":
                factor *= amount
            elif amount is not None:
                extra += amount
        return "", min(MAX_FACTOR, max(1 / MAX_FACTOR, factor)), money.micros(min(MAX_EXTRA, max(0.0, extra)))

    def _applies(self, rule: _Rule, asked: Asked, offered: Offered | None = None) -> bool:
        if rule.project and rule.project != asked.project:
            return False
        try:
            return bool(rule.when(asked, offered))
        except Unevaluable as error:
            self._report(rule, error.message)
            return False

    def _amount(self, rule: _Rule, amount: Expression, asked: Asked, offered: Offered) -> float | None:
        try:
            value = float(amount(asked, offered))
        except (Unevaluable, OverflowError) as error:
            self._report(rule, str(error))
            return None
        if not math.isfinite(value) or (rule.sign == "x" and value <= 0):
            self._report(rule, f"`{amount.text}` is {value:g}")
            return None
        return value

    def _report(self, rule: _Rule, why: str) -> None:
        amount = f", cost {rule.sign}{rule.amount.text}" if rule.amount else ""
        self.errors[f"{rule.policy}: {rule.when.text}{amount}"] = why


def roles(policies: Iterable[Policy], project: str) -> list[str]:
    """Return the roles whose approval a session of a project may need."""
    mine = (policy for policy in policies if policy.project in ("", project))
    return sorted({rule.role for policy in mine for rule in policy.approve})


def _reads(rule: _Rule) -> tuple[str, ...]:
    return rule.when.reads + (rule.amount.reads if rule.amount else ())
