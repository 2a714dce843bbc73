"""From Azure's list of VM sizes to shapes: what may be made where, with how much of everything. Pure."""

import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from atoll.gpus import gpu
from atoll.instance import Shape
from atoll.slots import GIB, Gpu, Slots
from providers.azure.settings import Settings
from providers.prices.book import Book
from providers.reserve import usable

Sku = Mapping[str, Any]
START_S = 90.0
"""Usual seconds from create to joined."""

_GPUS: tuple[tuple[re.Pattern[str], str, int], ...] = tuple(
    (re.compile(pattern), model, gib * GIB)
    for pattern, model, gib in (
        (r"Standard_NC\d+as_T4_v3", "T4", 16),
        (r"Standard_NC\d+ads_A100_v4", "A100-80GB", 80),
        (r"Standard_NCC?\d+adi?s_H100_v5", "H100-NVL", 94),
        (r"Standard_ND\d+isr_H100_v5", "H100", 80),
        (r"Standard_ND\d+isr_H200_v5", "H200", 141),
        (r"Standard_ND\d+asr(_A100)?_v4", "A100", 40),
        (r"Standard_ND\d+amsr?_A100_v4", "A100-80GB", 80),
        (r"Standard_ND\d+isr_MI300X_v5", "MI300X", 192),
        (r"Standard_ND\d+rs_v2", "V100", 32),
        (r"Standard_NC\d+r?s_v3", "V100", 16),
        (r"Standard_NC\d+r?s_v2", "P100", 16),
        (r"Standard_ND\d+r?s", "P40", 24),
        (r"Standard_NV(36|72)adm?s_A10_v5", "A10", 24),
        (r"Standard_NV\d+s_v3", "M60", 8),
    )
)
"""Size name, model, memory of one device, as Azure's pages on GPU sizes say. Sizes with a part of a device
(NV6 to NV18ads_A10_v5, NVv4, NGads) are not here: a shape offers whole devices."""


def offered(
    skus: Iterable[Sku], settings: Settings, provider: str, prices: Book
) -> list[Shape]:  # fmt: skip
    """Return what the subscription may make in the region's zones, on demand and spot."""
    return [
        Shape(
            provider=provider,
            name=sku["name"],
            zone=zone,
            slots=slots,
            price=prices.price(sku["name"], zone, spot),
            spot=spot,
            start_s=START_S,
            catalogue=prices.label,
        )
        for sku in machines(skus, settings)
        if (slots := _slots(sku, settings.disk))
        for zone in _zones(sku, settings)
        for spot in ((False, True) if settings.spot and _told(sku, "LowPriorityCapable") == "True" else (False,))
    ]


def machines(skus: Iterable[Sku], settings: Settings) -> Iterator[Sku]:
    """Yield the VM sizes that the settings allow and the image can run on.

    Sizes for Arm processors are left out, and those without trusted launch where the settings ask for it.
    """
    for sku in skus:
        name = str(sku.get("name", ""))
        if (
            sku.get("resourceType") == "virtualMachines"
            and (not settings.shapes or any(fnmatch.fnmatchcase(name, pattern) for pattern in settings.shapes))
            and _told(sku, "CpuArchitectureType") in ("", "x64")
            and not (settings.trusted_launch and not _trusts(sku))
        ):
            yield sku


def _trusts(sku: Sku) -> bool:
    return _told(sku, "TrustedLaunchDisabled") != "True" and "V2" in (_told(sku, "HyperVGenerations") or "V2")


def _told(sku: Sku, capability: str) -> str:
    return next((str(c["value"]) for c in sku.get("capabilities") or () if c.get("name") == capability), "")


def _number(sku: Sku, capability: str) -> float:
    try:
        return float(_told(sku, capability))
    except ValueError:
        return 0.0


def _slots(sku: Sku, disk: int) -> Slots | None:
    cores = _number(sku, "vCPUsAvailable") or _number(sku, "vCPUs")
    memory = usable(round(_number(sku, "MemoryGB") * GIB))
    count = _number(sku, "GPUs")
    devices: tuple[Gpu, ...] = ()
    if count:
        found = _device(str(sku["name"]), count)
        if found is None:
            return None
        devices = (found,)
    return Slots(round(cores * 1000), memory, disk, devices) if cores and memory else None


def _device(size: str, count: float) -> Gpu | None:
    """Return a size's devices; None for parts of a device and for models this table does not know."""
    if count != int(count):
        return None
    return next((gpu(model, int(count), memory) for pattern, model, memory in _GPUS if pattern.fullmatch(size)), None)


def _zones(sku: Sku, settings: Settings) -> list[str]:
    """Return the zones a size may be made in: `westeurope-1`, or the region's name where it has none."""
    region = settings.region
    here = next((i for i in sku.get("locationInfo") or () if str(i.get("location", "")).lower() == region), None)
    if here is None:
        return []
    closed: set[str] = set()
    for restriction in sku.get("restrictions") or ():
        info = restriction.get("restrictionInfo") or {}
        if restriction.get("type") == "Location" and region in {
            str(v).lower() for v in restriction.get("values") or ()
        }:
            return []
        if restriction.get("type") == "Zone":
            closed |= set(info.get("zones") or ())
    zones = sorted(here.get("zones") or ())
    if not zones:
        return [] if settings.zones else [region]
    return [f"{region}-{z}" for z in zones if z not in closed and (not settings.zones or z in settings.zones)]
