"""Faults of the pretended AWS: see `tests.clouds.harness.FAULTS` for what each kind takes."""

from collections import Counter
from typing import Any

CALLS = {
    "RunInstances": "create", "DescribeInstances": "describe", "TerminateInstances": "terminate",
    "StopInstances": "stop", "StartInstances": "start", "GetConsoleOutput": "console",
    "DescribeInstanceTypes": "shapes", "DescribeInstanceTypeOfferings": "shapes", "GetProducts": "prices",
    "DescribeSpotPriceHistory": "prices", "ListServiceQuotas": "quota", "GetCallerIdentity": "identity",
}  # fmt: skip
"""The port's calls, by AWS's action."""
_DEFAULT_CALLS = {"throttle": ["create"], "auth": ["create"]}


class Faults:
    """Faults set, and how often each kind struck."""

    def __init__(self) -> None:
        self._set: dict[str, list[dict[str, Any]]] = {}
        self.struck: Counter[str] = Counter()

    def put(self, **faults: Any) -> None:
        self._set = {
            kind: [{"times": 1, **each} for each in (told if isinstance(told, list) else [told])]
            for kind, told in faults.items()
        }

    def strike(self, kind: str, *, call: str = "", zone: str = "", spot: bool = False) -> dict[str, Any] | None:
        """Return the first fault of a kind that concerns this call, counting it; None where there is none."""
        for fault in self._set.get(kind, []):
            calls = fault.get("calls", _DEFAULT_CALLS.get(kind))
            if (
                fault["times"] > 0
                and (not calls or call in calls)
                and (not fault.get("zones") or zone in fault["zones"])
                and fault.get("spot") in (None, spot)
            ):
                fault["times"] -= 1
                self.struck[kind] += 1
                return fault
        return None
