"""Faults a pretend cloud can be told to have: which there are, how they are written, when one strikes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from atoll.errors import Invalid
from atoll.fields import Fields
from atoll.suggest import hint


class FaultKind(StrEnum):
    """What can be made to go wrong. Each time one strikes it is counted under this name."""

    NO_CAPACITY = "no_capacity"  # create: none left, nothing made
    QUOTA = "quota"  # create: the account may not have more, nothing made
    THROTTLE = "throttle"  # any call: too many
    LOST_REPLY = "lost_reply"  # create: no answer, before or after the effect
    SLOW_BOOT = "slow_boot"
    NEVER_JOINS = "never_joins"  # it boots, but its boot script is not run
    RECLAIM = "reclaim"  # a spot machine is taken back
    TERMINATE = "terminate"  # refused with an error, or accepted and not done
    LIST_LAG = "list_lag"  # describe shows the past


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One rule. `id` tells it apart from others for counting; empty `shapes`, `zones`, `calls` mean any.

    It strikes `times` times (None: always), not after `until` (Unix seconds), nor later than `for_s`
    seconds after the cloud was first used. The remaining fields belong to single kinds, all in seconds.
    """

    kind: FaultKind
    id: str
    shapes: tuple[str, ...] = ()
    zones: tuple[str, ...] = ()
    spot: bool | None = None
    calls: tuple[str, ...] = ()
    times: int | None = None
    until: float | None = None
    for_s: float | None = None
    retry_after: float = 1.0
    after_effect: bool = True
    extra_s: float = 30.0
    after_s: float = 10.0
    notice_s: float = 2.0
    silent: bool = False
    lag_s: float = 5.0

    def matches(self, shape: tuple[str, str, bool] | None, call: str) -> bool:
        """Say whether it is meant for this call on this (name, zone, spot)."""
        if self.calls and call not in self.calls:
            return False
        if shape is None:
            return not (self.shapes or self.zones or self.spot is not None)
        name, zone, spot = shape
        return (
            (not self.shapes or name in self.shapes)
            and (not self.zones or zone in self.zones)
            and (self.spot is None or self.spot is spot)
        )

    def over(self, used: int, now: float, began_at: float) -> bool:
        """Say whether it strikes no more."""
        return (
            (self.times is not None and used >= self.times)
            or (self.until is not None and now >= self.until)
            or (self.for_s is not None and now >= began_at + self.for_s)
        )


_CALLS = ("create", "describe", "start", "stop", "terminate", "console", "quota")


def parse_faults(document: object, path: str) -> tuple[Fault, ...]:
    """Return the faults of a document: a mapping of kind to one rule or a list of rules.

    `{"no_capacity": {"spot": true, "times": 3}, "reclaim": [{"after_s": 20, "notice_s": 5, "times": 1}]}`.
    Raises `Invalid` with a did-you-mean for unknown kinds and keys.
    """
    if document is None:
        return ()
    if not isinstance(document, Mapping):
        raise Invalid(f"{path} must be a mapping of fault kinds to rules")
    faults: list[Fault] = []
    kinds = [kind.value for kind in FaultKind]
    for name, rules in document.items():
        if name not in kinds:
            raise Invalid(f"unknown key {name!r} in {path}", hint=hint(str(name), kinds, f"faults: {', '.join(kinds)}"))
        listed: Sequence[Any] = rules if isinstance(rules, list | tuple) else [rules]
        faults += [_fault(FaultKind(name), rule, f"{path}.{name}", n) for n, rule in enumerate(listed)]
    return tuple(faults)


def _fault(kind: FaultKind, document: object, path: str, number: int) -> Fault:
    fields = Fields(document, path)
    given: dict[str, Any] = {
        "id": fields.text("id") or f"{kind}#{number}",
        "shapes": fields.texts("shapes"),
        "zones": fields.texts("zones"),
        "spot": fields.flag("spot", None),
        "times": None if fields.raw("times") is None else fields.integer("times", 0, low=0, high=10**9),
        "until": None if fields.raw("until") is None else fields.seconds("until", 0.0, high=1e10),
        "for_s": fields.optional_seconds("for_s", low=0.0),
    }
    match kind:
        case FaultKind.THROTTLE:
            given["calls"] = tuple(_call(name, path) for name in fields.texts("calls"))
            given["retry_after"] = fields.seconds("retry_after", 1.0)
        case FaultKind.LOST_REPLY:
            given["after_effect"] = fields.flag("after_effect", True)
        case FaultKind.SLOW_BOOT:
            given["extra_s"] = fields.seconds("extra_s", 30.0)
        case FaultKind.RECLAIM:
            given["after_s"] = fields.seconds("after_s", 10.0)
            given["notice_s"] = fields.seconds("notice_s", 2.0)
        case FaultKind.TERMINATE:
            given["silent"] = fields.flag("silent", False)
        case FaultKind.LIST_LAG:
            given["lag_s"] = fields.seconds("lag_s", 5.0)
        case _:
            pass
    fields.done()
    return Fault(kind=kind, **given)


def _call(name: str, path: str) -> str:
    if name not in _CALLS:
        raise Invalid(f"{path}.calls cannot hold {name!r}", hint=hint(name, _CALLS, f"calls: {', '.join(_CALLS)}"))
    return name
