"""What the pretend region sells: sizes with their facts, limits, images, and the public price list."""

from typing import Any

from tests.clouds.azure.arm import REGION

URNS = {("Debian", "debian-12", "12-gen2"): "V2", ("Debian", "debian-12", "12"): "V1"}
"""Platform images, with the generation of machine they need."""

_ALL = ("1", "2", "3")
# name, family, vCPUs, GiB, zones, more capabilities
_SIZES: tuple[tuple[str, str, int, float, tuple[str, ...], dict[str, str]], ...] = (
    ("Standard_B2s", "standardBSFamily", 2, 4, _ALL, {"LowPriorityCapable": "False"}),
    ("Standard_D2s_v5", "standardDSv5Family", 2, 8, _ALL, {}),
    ("Standard_D4s_v5", "standardDSv5Family", 4, 16, _ALL, {}),
    ("Standard_D2ps_v5", "standardDPSv5Family", 2, 8, _ALL, {"CpuArchitectureType": "Arm64"}),
    ("Standard_D2_v2", "standardDv2Family", 2, 7, (), {"HyperVGenerations": "V1"}),
    ("Standard_M8-2ms", "standardMSFamily", 8, 218.75, ("1",), {"vCPUsAvailable": "2"}),
    ("Standard_NC4as_T4_v3", "Standard NCASv3_T4 Family", 4, 28, ("1", "2"), {"GPUs": "1"}),
    ("Standard_NC24ads_A100_v4", "StandardNCADSA100v4Family", 24, 220, ("1",), {"GPUs": "1"}),
    ("Standard_ND96isr_H100_v5", "standardNDSH100v5Family", 96, 1900, ("2",), {"GPUs": "8"}),
    ("Standard_NV6ads_A10_v5", "StandardNVADSA10v5Family", 6, 55, _ALL, {"GPUs": "1"}),
    ("Standard_NV36ads_A10_v5", "StandardNVADSA10v5Family", 36, 440, _ALL, {"GPUs": "1"}),
    ("Standard_NC99_NEW_v9", "standardNewFamily", 8, 64, _ALL, {"GPUs": "1"}),
    ("Standard_D8s_v5", "standardDSv5Family", 8, 32, _ALL, {"restricted": "Location"}),
    ("Standard_D16s_v5", "standardDSv5Family", 16, 64, _ALL, {"restricted": "Zone"}),
)
CORES = {size[0]: size[2] for size in _SIZES}
FAMILIES = {size[0]: size[1] for size in _SIZES}
GENERATIONS = {size[0]: size[5].get("HyperVGenerations", "V1,V2") for size in _SIZES}

LIMITS = {
    "cores": 100,
    "lowPriorityCores": 50,
    "virtualMachines": 25000,
    "standardDSv5Family": 50,
    "standardBSFamily": 10,
}
"""Names and numbers as the usages call tells them."""


def zones(size: str) -> tuple[str, ...] | None:
    """Return where a size can be made now: None where it is closed to this subscription."""
    found = next(each for each in _SIZES if each[0] == size)
    closed = found[5].get("restricted")
    if closed == "Location":
        return None
    return tuple(z for z in found[4] if not (closed == "Zone" and z == "3"))


def skus() -> list[dict[str, Any]]:
    return [_sku(*size) for size in _SIZES] + [
        {"resourceType": "disks", "name": "StandardSSD_LRS", "tier": "Standard", "locations": [REGION]}
    ]


def _sku(
    name: str, family: str, cores: int, memory: float, where: tuple[str, ...], more: dict[str, str]
) -> dict[str, Any]:
    told = {"vCPUs": str(cores), "MemoryGB": f"{memory:g}", "HyperVGenerations": "V1,V2", "CpuArchitectureType": "x64"}
    told |= {"LowPriorityCapable": "True", "PremiumIO": "True", **more}
    closed = told.pop("restricted", "")
    restriction = {
        "Location": {"type": "Location", "values": [REGION], "restrictionInfo": {"locations": [REGION]}},
        "Zone": {"type": "Zone", "values": [REGION], "restrictionInfo": {"locations": [REGION], "zones": ["3"]}},
    }.get(closed)
    return {
        "resourceType": "virtualMachines",
        "name": name,
        "tier": "Standard",
        "size": name.removeprefix("Standard_"),
        "family": family,
        "locations": [REGION],
        "locationInfo": [{"location": REGION, "zones": list(where), "zoneDetails": []}],
        "capabilities": [{"name": key, "value": value} for key, value in told.items()],
        "restrictions": [{**restriction, "reasonCode": "NotAvailableForSubscription"}] if restriction else [],
    }


def usages(used: dict[str, int]) -> list[dict[str, Any]]:
    return [
        {
            "unit": "Count",
            "currentValue": used.get(name, 0),
            "limit": limit,
            "name": {"value": name, "localizedValue": name},
        }
        for name, limit in {**LIMITS, "availabilitySets": 2500}.items()
    ]


_HOURLY = {
    "Standard_B2s": (0.048, None),
    "Standard_D2s_v5": (0.115, 0.0216),
    "Standard_D4s_v5": (0.23, 0.0432),
    "Standard_NC4as_T4_v3": (0.658, 0.263),
    "Standard_NC24ads_A100_v4": (4.775, 1.91),
}


def retail() -> list[dict[str, Any]]:
    """Return entries as the public price list has them, with all that must be passed over."""
    found = []
    for size, (amount, spot) in _HOURLY.items():
        found += [_entry(size, amount), _entry(size, amount * 1.8, product="Virtual Machines Series Windows")]
        found += [_entry(size, amount / 5, sku="Low Priority"), _entry(size, amount / 2, kind="DevTestConsumption")]
        if spot:
            found.append(_entry(size, spot, sku="Spot"))
    return [*found, _entry("Standard_D8s_v5", 0.0), _entry("Standard_D2s_v5", 400.0, kind="Reservation")]


def _entry(
    size: str, amount: float, *, sku: str = "", product: str = "Virtual Machines Series", kind: str = "Consumption"
) -> dict[str, Any]:
    short = size.removeprefix("Standard_").replace("_", " ")
    return {
        "currencyCode": "USD",
        "tierMinimumUnits": 0.0,
        "retailPrice": amount,
        "unitPrice": amount,
        "armRegionName": REGION,
        "location": "EU West",
        "productName": product,
        "skuName": f"{short} {sku}".strip(),
        "meterName": f"{short} {sku}".strip(),
        "serviceName": "Virtual Machines",
        "serviceFamily": "Compute",
        "unitOfMeasure": "1 Hour",
        "type": kind,
        "isPrimaryMeterRegion": True,
        "armSkuName": size,
    }
