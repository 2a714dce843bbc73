"""The documents of a policy and of a budget."""

from collections.abc import Mapping
from typing import Any

from atoll import duration
from atoll.budget import STAGES, Budget, Do, Period, Stage
from atoll.document.common import changed, name_of
from atoll.errors import Invalid
from atoll.fields import Fields, compact, money_text
from atoll.ids import check_name
from atoll.policy import ACTIVE, Approve, Deny, Homecoming, Policy, Prefer, condition, preference

MAX_RULES = 200
"""Rules of one sort in one policy."""


def policy(document: Mapping[str, Any]) -> Policy:
    """Return the policy of a document: `name` (default: `default`), `project`, and its rules.

    `deny: [{when, reason}]`, `approve: [{when, role, reason}]`, `prefer: [{when, cost: x1.5}]`, `max_wait`;
    without a project also `wait_value` (units an hour), `scarcity`, `shares` and `homecoming`.
    """
    doc = Fields(document, "policy", "kind")
    project = name_of(doc, "project", "project", required=False)
    name = name_of(doc, "name", "policy", required=False) or project or ACTIVE
    if project:
        why = "it is of the whole installation"
        doc.refuse(("wait_value", "scarcity", "shares", "homecoming"), why, f"give it in the policy {ACTIVE!r}")
        if name == ACTIVE:
            raise Invalid(f"policy {ACTIVE!r} is the installation's", hint="give the project's another name")
    result = Policy(
        name=name,
        project=project,
        deny=tuple(_deny(each) for each in _items(doc, "deny")),
        approve=tuple(_approve(each) for each in _items(doc, "approve")),
        prefer=tuple(_prefer(each) for each in _items(doc, "prefer")),
        max_wait=doc.optional_seconds("max_wait", low=0.001),
        wait_value=doc.money("wait_value", None),
        scarcity=_number(doc, "scarcity", high=1.0),
        shares=_shares(doc.section("shares")),
        homecoming=_homecoming(doc),
    )
    doc.done()
    return result


def dump_policy(row: Policy) -> dict[str, Any]:
    """Return the document of a policy."""
    return {
        "name": row.name,
        **compact(
            {
                "project": row.project,
                "deny": [{"when": each.when, "reason": each.reason} for each in row.deny],
                "approve": [
                    {"when": each.when, "role": each.role, **compact({"reason": each.reason})} for each in row.approve
                ],
                "prefer": [{"when": each.when, "cost": each.cost} for each in row.prefer],
                "max_wait": changed(row.max_wait, None),
                "wait_value": None if row.wait_value is None else money_text(row.wait_value),
                "scarcity": row.scarcity,
                "shares": dict(row.shares),
                "homecoming": None if row.homecoming is None else _dump_homecoming(row.homecoming),
            }
        ),
    }


def budget(document: Mapping[str, Any]) -> Budget:
    """Return the budget of a document: `amount` in units (required), `name`, `project`, `period`, `zone`, `stages`.

    `stages: [{at: 0.8, do: notify}, {at: 1.0, do: hold}]` is what a budget without any has; `name` is the
    project's, or `all`, where none is given.
    """
    doc = Fields(document, "budget", "kind")
    project = name_of(doc, "project", "project", required=False)
    amount = doc.money("amount", None)
    if not amount:
        raise (
            doc.missing("amount", "write units of money, like amount: 500")
            if amount is None
            else Invalid("budget.amount must be above 0", hint="delete the budget, or let a policy deny everything")
        )
    plain = Budget(name="x", amount=1)
    result = Budget(
        name=name_of(doc, "name", "budget", required=False) or project or "all",
        amount=amount,
        project=project,
        period=Period(doc.choice("period", [each.value for each in Period], plain.period.value)),
        zone=doc.text("zone") or plain.zone,
        stages=tuple(_stage(each) for each in _items(doc, "stages")) or STAGES,
        grace_s=doc.seconds("grace", plain.grace_s, high=30 * 86400.0),
    )
    doc.done()
    return result


def dump_budget(row: Budget) -> dict[str, Any]:
    """Return the document of a budget."""
    return {
        "name": row.name,
        "amount": money_text(row.amount),
        "period": row.period.value,
        **compact(
            {
                "project": row.project,
                "zone": row.zone if row.zone != "UTC" else "",
                "stages": [{"at": each.at, "do": each.do.value} for each in row.stages] if row.stages != STAGES else [],
                "grace": duration.text(row.grace_s) if row.grace_s != 600.0 else None,
            }
        ),
    }


def _deny(doc: Fields) -> Deny:
    rule = Deny(when=_when(doc), reason=doc.text("reason"))
    if not rule.reason:
        raise doc.missing("reason", "say why, for whoever is denied")
    doc.done()
    return rule


def _approve(doc: Fields) -> Approve:
    rule = Approve(when=_when(doc), role=name_of(doc, "role", "role"), reason=doc.text("reason"))
    if "offer." in rule.when:
        _session_only(doc, rule.when)
    doc.done()
    return rule


def _prefer(doc: Fields) -> Prefer:
    rule = Prefer(when=_when(doc, "True"), cost=doc.text("cost"))
    if not rule.cost:
        raise doc.missing("cost", 'write a factor like x1.5, or units in quotes like "+0.20"')
    _checked(doc, "cost", lambda: preference(rule.cost))
    doc.done()
    return rule


def _when(doc: Fields, default: str = "") -> str:
    value = doc.raw("when")
    text = str(value) if isinstance(value, bool) else doc.text("when") or default
    if not text:
        raise doc.missing("when", "write a condition like: session.gpu > 4")
    _checked(doc, "when", lambda: condition(text))
    return text


def _session_only(doc: Fields, text: str) -> None:
    if any(name.startswith("offer.") for name in condition(text).reads):
        raise Invalid(
            f"{doc.path}.when names an offer", hint="a session is approved, not a place: deny what must not be taken"
        )


def _checked(doc: Fields, key: str, check: Any) -> None:
    try:
        check()
    except Invalid as error:
        raise Invalid(f"{doc.path}.{key}: {error.message}", hint=error.hint) from error


def _stage(doc: Fields) -> Stage:
    at = _number(doc, "at", high=10.0)
    if not at:
        raise doc.missing("at", "write a part of the amount, like at: 0.8")
    do = doc.choice("do", [each.value for each in Do], "")
    doc.done()
    return Stage(at=at, do=Do(do))


def _homecoming(doc: Fields) -> Homecoming | None:
    value = doc.raw("homecoming")
    if value is None:
        return None
    if isinstance(value, bool):
        return Homecoming(enabled=value)
    below, plain = doc.section("homecoming"), Homecoming()
    result = Homecoming(
        enabled=bool(below.flag("enabled", plain.enabled)),
        max_moves=below.integer("max_moves", plain.max_moves, low=1, high=100_000),
        exchange=bool(below.flag("exchange", plain.exchange)),
    )
    below.done()
    return result


def _dump_homecoming(row: Homecoming) -> dict[str, Any]:
    most = row.max_moves if row.max_moves != Homecoming().max_moves else None
    return {"enabled": row.enabled, **compact({"max_moves": most, "exchange": row.exchange or None})}


def _shares(doc: Fields) -> dict[str, float]:
    found = {check_name(name, "project"): _number(doc, name, high=1e6) for name in doc.names()}
    for name, share in found.items():
        if not share:
            raise Invalid(f"{doc.path}.{name} must be above 0", hint="1 is what a project has that is not named")
    return {name: share for name, share in found.items() if share}


def _items(doc: Fields, key: str) -> list[Fields]:
    value = doc.raw(key)
    if value is None:
        return []
    if not isinstance(value, list | tuple) or len(value) > MAX_RULES:
        raise Invalid(f"{doc.path}.{key} must be a list, of {MAX_RULES} at most", hint="begin each with `- `")
    return [Fields(item, f"{doc.path}.{key}[{number}]") for number, item in enumerate(value)]


def _number(doc: Fields, key: str, *, high: float) -> float | None:
    value = doc.raw(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= high:
        raise Invalid(f"{doc.path}.{key} cannot be {value!r}", hint=f"a number between 0 and {high:g}")
    return float(value)
