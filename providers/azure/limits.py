"""From Azure's list of usages to limits, with the VM sizes each of them counts. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from providers.azure.settings import Settings
from providers.azure.shapes import Sku, machines
from providers.port import Limit

CORES, SPOT_CORES, MACHINES = "cores", "lowPriorityCores", "virtualMachines"
"""Names of the limits over all sizes: on-demand cores, spot cores, machines."""


def told(usages: Iterable[Mapping[str, Any]], skus: Iterable[Sku], settings: Settings) -> list[Limit]:
    """Return the limits that concern what the settings allow: over all sizes, and by family of sizes.

    Spot machines count towards one limit of their own, not towards their family's.
    """
    families: dict[str, list[str]] = defaultdict(list)
    for sku in machines(skus, settings):
        families[str(sku.get("family", "")).lower()].append(str(sku["name"]))
    found = []
    for usage in usages:
        name = str((usage.get("name") or {}).get("value", ""))
        limit, used = int(usage.get("limit") or 0), int(usage.get("currentValue") or 0)
        if name == MACHINES:
            found.append(Limit(name=name, limit=limit, used=used, counts="instances"))
        elif name in (CORES, SPOT_CORES):
            found.append(Limit(name=name, limit=limit, used=used, counts="cpu", spot=name == SPOT_CORES))
        elif name.lower() in families:
            shapes = tuple(sorted(families[name.lower()]))
            found.append(Limit(name=name, limit=limit, used=used, counts="cpu", spot=False, shapes=shapes))
    return found
