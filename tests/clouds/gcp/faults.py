"""The faults a test asked for, each striking as often as it was told to."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CALLS: Mapping[str, str] = {
    "compute.instances.insert": "create",
    "compute.instances.get": "read",
    "compute.zoneOperations.get": "read",
    "compute.instances.aggregatedList": "describe",
    "compute.instances.delete": "terminate",
    "compute.instances.start": "start",
    "compute.instances.stop": "stop",
    "compute.instances.getSerialPortOutput": "console",
    "compute.machineTypes.list": "shapes",
    "compute.regions.get": "quota",
    "compute.projects.get": "doctor",
    "cloudbilling.services.skus.list": "prices",
}
"""The port's method behind each of Google's; `read` is what `create` does while it waits."""


@dataclass
class Faults:
    """Rules by kind, as `tests.clouds.harness.FAULTS` has them, and how often each kind struck.

    More than there: auth and throttle take `status`; no_capacity takes `after_s`, till the operation fails.
    """

    struck: Counter[str] = field(default_factory=Counter)
    _rules: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def replace(self, document: Mapping[str, Any]) -> None:
        """Take new rules in place of the old."""
        self._rules = [
            (kind, {"times": 1, **rule})
            for kind, rules in document.items()
            for rule in (rules if isinstance(rules, list) else [rules])
        ]

    def strike(self, kind: str, *, call: str = "", zone: str = "", spot: bool = False) -> dict[str, Any] | None:
        """Return the rule that strikes now, counted; None when there is none."""
        for each, rule in self._rules:
            if each != kind or rule["times"] <= 0:
                continue
            if call and call not in rule.get("calls", ["create"]):
                continue
            if zone and (zone not in rule.get("zones", [zone]) or spot is not rule.get("spot", spot)):
                continue
            rule["times"] -= 1
            self.struck[kind] += 1
            return rule
        return None
