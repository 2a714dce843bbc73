"""Faults to order, as `tests.clouds.harness.FAULTS` describes them."""

from collections import Counter
from typing import Any

Fault = dict[str, Any]


class Faults:
    """What is set, and how often each kind struck."""

    def __init__(self) -> None:
        self._set: list[Fault] = []
        self.struck: Counter[str] = Counter()

    def inject(self, faults: dict[str, Any]) -> None:
        """Set these faults in place of all others."""
        self._set = [
            {"kind": kind, "times": 1, **each}
            for kind, given in faults.items()
            for each in (given if isinstance(given, list) else [given])
        ]

    def strike(self, kind: str, *, call: str = "", zone: str = "", spot: bool = False) -> Fault | None:
        """Return the fault that strikes now, counted; None where none does."""
        for fault in self._set:
            if (
                fault["kind"] == kind
                and fault["times"] > 0
                and (not call or call in fault.get("calls", ["create"]))
                and (not zone or zone in fault.get("zones", [zone]))
                and fault.get("spot", spot) == spot
            ):
                fault["times"] -= 1
                self.struck[kind] += 1
                return fault
        return None
