"""Compute Engine's quotas as limits the planner can count with. Pure."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from atoll.gpus import canonical
from providers.port import Limit

_FAMILIES = re.compile(r"(?P<family>[A-Z]+[0-9]+[A-Z]?)_CPUS")
_DEVICES = re.compile(r"(?P<spot>PREEMPTIBLE_)?(?P<device>NVIDIA_[A-Z0-9_]+)_GPUS")
_WHOLE: Mapping[str, str] = {"INSTANCES": "instances", "CPUS_ALL_REGIONS": "cpu", "GPUS_ALL_REGIONS": "gpu"}
_SHARED_CPUS = ("n1-*", "e2-*", "f1-*", "g1-*")
_OF_FAMILY: Mapping[str, tuple[str, ...]] = {
    "L4": ("g2-*",),
    "A100": ("a2-highgpu-*", "a2-megagpu-*"),
    "A100-80GB": ("a2-ultragpu-*",),
    "H100": ("a3-highgpu-*", "a3-megagpu-*", "a3-edgegpu-*"),
    "H200": ("a3-ultragpu-*",),
    "B200": ("a4-*",),
    "RTX-PRO-6000": ("g4-*",),
}


def limits(
    region: Iterable[Mapping[str, Any]], project: Iterable[Mapping[str, Any]], *, public_ip: bool
) -> list[Limit]:
    """Return what the quotas of a region and of the project say of machines; the rest of them is left out.

    Spot machines count against a PREEMPTIBLE quota where the account has one, else against the ordinary one.
    """
    quotas = {each["metric"]: each for each in (*region, *project)}
    granted = {name for name, each in quotas.items() if name.startswith("PREEMPTIBLE_") and each.get("limit", 0) > 0}
    found = (_limit(name, each, granted, public_ip) for name, each in quotas.items())
    return sorted((limit for limit in found if limit), key=lambda limit: limit.name)


def _limit(name: str, quota: Mapping[str, Any], granted: set[str], public_ip: bool) -> Limit | None:
    if name.startswith("PREEMPTIBLE_") and name not in granted:
        return None
    counts, shapes, spot = _meaning(name, granted, public_ip)
    if not counts:
        return None
    used, limit = quota.get("usage", 0.0), quota.get("limit", 0.0)
    return Limit(name=name, limit=int(limit), counts=counts, used=int(used), shapes=shapes, spot=spot)


def _meaning(name: str, granted: set[str], public_ip: bool) -> tuple[str, tuple[str, ...], bool | None]:
    ordinary = False if "PREEMPTIBLE_CPUS" in granted else None
    if name in _WHOLE:
        return _WHOLE[name], (), None
    if name == "IN_USE_ADDRESSES" and public_ip:
        return "instances", (), None
    if name == "CPUS":
        return "cpu", _SHARED_CPUS, ordinary
    if name == "PREEMPTIBLE_CPUS":
        return "cpu", (), True
    if match := _FAMILIES.fullmatch(name):
        return "cpu", (f"{match['family'].lower()}-*",), ordinary
    if match := _DEVICES.fullmatch(name):
        if "VWS" in match["device"]:
            return "", (), None
        paid = True if match["spot"] else (False if f"PREEMPTIBLE_{name}" in granted else None)
        return "gpu", _shapes(match["device"]), paid
    return "", (), None


def _shapes(device: str) -> tuple[str, ...]:
    """Return patterns of the offers that hold a device: whole families, or N1 types with it attached."""
    model = canonical(device)
    return _OF_FAMILY.get(model) or (f"n1-*+nvidia-tesla-{model.lower()}x*",)
