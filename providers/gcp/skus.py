"""From Google's price list of parts (a core, a GiB, a device, each an hour) to the price of a machine. Pure."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from atoll.gpus import canonical, gpu
from atoll.price import Price
from atoll.slots import MIB
from providers.gcp.offers import Offer

SERVICE = "services/6F81-5844-456A"
"""Compute Engine's name in the Cloud Billing Catalog."""

_SPOT: Mapping[str, bool] = {"OnDemand": False, "Preemptible": True}
_PART = re.compile(r"(?:(?:Spot )?Preemptible )?(?P<series>.+?)(?: Instance)? (?P<part>Core|Ram) running in .+")
_SERIES = re.compile(r"(?P<family>[A-Z]+[0-9]+[A-Z]?)(?: AMD| Arm| Predefined)?")
_OLD_NAMES: Mapping[str, str] = {"Compute optimized": "c2", "Compute-optimized": "c2"}
_DEVICE = re.compile(r"(?P<device>Nvidia .+?) GPU (?:attached to (?:Spot )?Preemptible VMs )?running in .+")
_LOCAL_SSD = re.compile(r"SSD backed Local Storage(?: attached to (?:Spot )?Preemptible VMs)?(?: in .+)?")
_SSD_GIB: Mapping[str, int] = dict.fromkeys(("a2", "a3", "c3", "c3d", "c4", "c4a", "c4d"), 375)
_MONTH_H = 730
_MICRO = 1000  # nano-units in a micro-unit

Rate = tuple[str, bool]
"""A family, a device's model or "" for local SSD; and whether it is for spot machines."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Nano-units of one region: a vCPU-hour and a GiB-hour by family, a device-hour by model, a GiB-month of SSD."""

    cores: dict[Rate, int] = field(default_factory=dict)
    memory: dict[Rate, int] = field(default_factory=dict)
    devices: dict[Rate, int] = field(default_factory=dict)
    ssd: dict[Rate, int] = field(default_factory=dict)


def rates(skus: Iterable[Mapping[str, Any]], region: str) -> Rates:
    """Return a region's rates of predefined machines.

    Commitments, custom machines, sole tenancy, reservations and workstations have SKUs of their own, which
    are left out. Of two that say the same the dearer counts.
    """
    found = Rates()
    for sku in skus:
        spot = _SPOT.get(sku.get("category", {}).get("usageType", ""))
        if spot is None or region not in sku.get("serviceRegions", []):
            continue
        amount, unit = _rate(sku)
        table, name = _subject(sku.get("description", ""), unit, found)
        if table is not None and amount > 0:
            table[name, spot] = max(amount, table.get((name, spot), 0))
    return found


def price(offer: Offer, known: Rates, *, spot: bool) -> Price | None:
    """Return what an offer costs an hour; None when the rate of any of its parts is not known."""
    card = gpu(offer.accelerator, offer.cards)
    wanted = [
        (known.cores.get((offer.family, spot)), offer.cpu / 1000),
        (known.memory.get((offer.family, spot)), offer.memory / 1024),
    ]
    if offer.accelerator:
        wanted.append((known.devices.get((card.model, spot)) if card else None, offer.cards))
    if offer.ssds:
        gib = _SSD_GIB.get(offer.family)
        wanted.append((known.ssd.get(("", spot)) if gib else None, offer.ssds * (gib or 0) / _MONTH_H))
    total = 0.0
    for rate, amount in wanted:
        if rate is None:
            return None
        total += rate * amount
    return Price(
        shape=offer.name,
        amount=round(total / _MICRO),
        spot=spot,
        cpu=offer.cpu,
        memory=offer.memory * MIB,
        gpus=offer.cards,
        gpu_model=card.model if card else "",
    )


def _rate(sku: Mapping[str, Any]) -> tuple[int, str]:
    """Return nano-units and the unit they are for; the dearest tier, because the first may be a free one."""
    expression = (sku.get("pricingInfo") or [{}])[-1].get("pricingExpression", {})
    units = [tier.get("unitPrice", {}) for tier in expression.get("tieredRates", [])]
    amounts = [int(unit.get("units", 0)) * 10**9 + int(unit.get("nanos", 0)) for unit in units]
    return max(amounts, default=0), expression.get("usageUnit", "")


def _subject(description: str, unit: str, found: Rates) -> tuple[dict[Rate, int] | None, str]:
    """Return the table a SKU belongs to and its name there."""
    if (match := _PART.fullmatch(description)) and (family := _family(match["series"])):
        core = match["part"] == "Core"
        fits = unit == ("h" if core else "GiBy.h")
        return (found.cores if core else found.memory) if fits else None, family
    if (match := _DEVICE.fullmatch(description)) and unit == "h" and "Workstation" not in description:
        return found.devices, canonical(match["device"])
    if _LOCAL_SSD.fullmatch(description) and unit == "GiBy.mo":
        return found.ssd, ""
    return None, ""


def _family(series: str) -> str:
    if old := _OLD_NAMES.get(series):
        return old
    match = _SERIES.fullmatch(series)
    return match["family"].lower() if match else ""
