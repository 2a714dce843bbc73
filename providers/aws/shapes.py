"""EC2's instance types as shapes. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from atoll.gpus import gpu
from atoll.instance import Shape
from atoll.slots import MIB, Gpu, Slots
from providers.aws.settings import Settings
from providers.prices.book import Book
from providers.reserve import usable

START_S = 60.0
METAL_START_S = 600.0
"""Usual seconds from create to joined; bare metal first passes its firmware's checks."""
_USAGE = {"on-demand": False, "spot": True}


def filters(patterns: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return EC2's filter for what it can filter itself: it knows `*` and `?`, and takes 200 values."""
    if not patterns or len(patterns) > 200 or any("[" in pattern for pattern in patterns):
        return []
    return [{"Name": "instance-type", "Values": list(patterns)}]


def offers(
    provider: str,
    settings: Settings,
    types: Iterable[Mapping[str, Any]],
    zones: Mapping[str, frozenset[str]],
    prices: Book,
) -> list[Shape]:
    """Return a shape for each type, zone that has it (`zones`, by type) and way of paying."""
    return [
        Shape(
            provider=provider,
            name=name,
            zone=zone,
            slots=slots,
            price=prices.price(name, zone, spot),
            spot=spot,
            start_s=METAL_START_S if kind.get("BareMetal") else START_S,
            catalogue=prices.label,
        )
        for kind in types
        if (slots := _slots(kind, settings)) is not None
        for name in [kind["InstanceType"]]
        for zone in sorted(zones.get(name, ()))
        for usage, spot in _USAGE.items()
        if usage in kind.get("SupportedUsageClasses", ()) and (settings.spot or not spot)
    ]


def _slots(kind: Mapping[str, Any], settings: Settings) -> Slots | None:
    """Return what a type has; None where our image would not boot or its devices cannot be told."""
    devices = _gpus(kind)
    if devices is None or not settings.sells(kind["InstanceType"]) or not _boots(kind, settings):
        return None
    memory = usable(kind["MemoryInfo"]["SizeInMiB"] * MIB)
    return Slots(kind["VCpuInfo"]["DefaultVCpus"] * 1000, memory, settings.disk, devices)


def _boots(kind: Mapping[str, Any], settings: Settings) -> bool:
    # Bare metal costs as much as the largest machine and boots for minutes: only where it is named.
    return (
        settings.architecture in kind.get("ProcessorInfo", {}).get("SupportedArchitectures", ())
        and "hvm" in kind.get("SupportedVirtualizationTypes", ())
        and "ebs" in kind.get("SupportedRootDeviceTypes", ())
        and (not kind.get("BareMetal") or any("metal" in pattern for pattern in settings.patterns))
    )


def _gpus(kind: Mapping[str, Any]) -> tuple[Gpu, ...] | None:
    """Return the devices; None for parts of one (`g6f`) and for models whose memory nobody knows."""
    found = []
    for told in kind.get("GpuInfo", {}).get("Gpus", ()):
        memory = told.get("MemoryInfo", {}).get("SizeInMiB", 0) * MIB
        device = gpu(told.get("Name", ""), told.get("Count", 0), memory)
        if device is None:
            return None
        found.append(device)
    return tuple(sorted(found))
