"""What the fake sells: one region with three zones, real machine types, accelerators, quotas and list prices."""

from collections.abc import Iterator
from typing import Any

PROJECT = "atoll-test"
REGION = "us-central1"
ZONES = ("us-central1-a", "us-central1-b", "us-central1-f")
IMAGE_OWNER, IMAGE_FAMILY, IMAGE = "debian-cloud", "debian-12", "debian-12-bookworm-v20261015"
NETWORKS = ("default", "training")
SUBNETWORKS = ("default", "training-iowa")
DISK_TYPES = ("pd-standard", "pd-balanced", "pd-ssd", "hyperdisk-balanced")

TYPES: dict[str, tuple[int, int, str, int]] = {
    "e2-micro": (2, 1024, "", 0),
    "e2-medium": (2, 4096, "", 0),
    "e2-standard-2": (2, 8192, "", 0),
    "e2-standard-4": (4, 16384, "", 0),
    "n1-standard-4": (4, 15360, "", 0),
    "n1-standard-8": (8, 30720, "", 0),
    "n1-standard-16": (16, 61440, "", 0),
    "n1-highmem-8": (8, 53248, "", 0),
    "n2d-standard-4": (4, 16384, "", 0),
    "t2a-standard-4": (4, 16384, "", 0),
    "c3-standard-4": (4, 16384, "", 0),
    "c3-standard-192-metal": (192, 786432, "", 0),
    "g2-standard-4": (4, 16384, "nvidia-l4", 1),
    "g2-standard-24": (24, 98304, "nvidia-l4", 2),
    "a2-highgpu-1g": (12, 87040, "nvidia-tesla-a100", 1),
    "a2-ultragpu-1g": (12, 174080, "nvidia-a100-80gb", 1),
    "a3-highgpu-8g": (208, 1916928, "nvidia-h100-80gb", 8),
    "ct5lp-hightpu-1t": (24, 49152, "ct5lp", 1),
}
"""vCPUs, MiB, accelerator and its count, by name. Facts of `machineTypes.list`."""
SSDS = {"a2-ultragpu-1g": 1, "a3-highgpu-8g": 16}
ONLY_IN = {"a3-highgpu-8g": ("us-central1-a",), "n2d-standard-4": ("us-central1-a", "us-central1-f")}
SHARED = ("e2-micro", "e2-medium")
ARM = ("t2a-standard-4",)

ACCELERATORS = {
    "nvidia-tesla-t4": 4,
    "nvidia-tesla-v100": 8,
    "nvidia-tesla-t4-vws": 4,
    "nvidia-l4": 8,
    "nvidia-tesla-a100": 16,
    "nvidia-a100-80gb": 8,
    "nvidia-h100-80gb": 8,
    "ct5lp": 8,
}
"""Most cards of one machine, by name. Only some of them can be attached to N1 machines."""
ATTACHABLE = ("nvidia-tesla-t4", "nvidia-tesla-v100", "nvidia-tesla-p4", "nvidia-tesla-p100")
NO_V100_IN = ("us-central1-b",)

QUOTAS = {
    "CPUS": 72,
    "N2D_CPUS": 24,
    "C3_CPUS": 24,
    "A2_CPUS": 12,
    "INSTANCES": 240,
    "IN_USE_ADDRESSES": 64,
    "SSD_TOTAL_GB": 5000,
    "NVIDIA_T4_GPUS": 4,
    "NVIDIA_V100_GPUS": 1,
    "NVIDIA_L4_GPUS": 2,
    "NVIDIA_A100_GPUS": 1,
    "NVIDIA_A100_80GB_GPUS": 0,
    "PREEMPTIBLE_CPUS": 0,
    "PREEMPTIBLE_NVIDIA_L4_GPUS": 8,
}
GLOBAL_QUOTAS = {"CPUS_ALL_REGIONS": 96, "GPUS_ALL_REGIONS": 4, "NETWORKS": 5}

_PRICES = {
    "E2 Instance": (21_811_590, 2_923_530, "CPU", "RAM"),
    "N1 Predefined Instance": (31_611_000, 4_237_000, "N1Standard", "N1Standard"),
    "N2D AMD Instance": (27_502_000, 3_686_000, "CPU", "RAM"),
    "C3 Instance": (33_980_000, 4_560_000, "CPU", "RAM"),
    "Compute optimized": (33_982_000, 4_550_000, "CPU", "RAM"),
    "A2 Instance": (31_611_000, 4_237_000, "CPU", "RAM"),
    "G2 Instance": (24_988_000, 2_927_000, "CPU", "RAM"),
    "N2D AMD Custom Instance": (28_000_000, 3_900_000, "CPU", "RAM"),
    "N2D AMD Sole Tenancy Instance": (27_600_000, 3_700_000, "CPU", "RAM"),
}
_CARDS = {
    "Nvidia L4": 560_040_000,
    "Nvidia Tesla T4": 350_000_000,
    "Nvidia Tesla V100": 2_480_000_000,
    "Nvidia Tesla A100": 2_933_908_000,
    "Nvidia Tesla A100 80GB": 3_930_000_000,
    "Nvidia Tesla T4 Virtual Workstation": 550_000_000,
}


def machine_types(zone: str) -> dict[str, dict[str, Any]]:
    """Return the machine types of a zone, as their resources."""
    return {name: _machine_type(name, zone) for name in TYPES if zone in ONLY_IN.get(name, ZONES)}


def _machine_type(name: str, zone: str) -> dict[str, Any]:
    cpus, memory, card, cards = TYPES[name]
    resource: dict[str, Any] = {
        "kind": "compute#machineType",
        "name": name,
        "guestCpus": cpus,
        "memoryMb": memory,
        "zone": zone,
        "isSharedCpu": name in SHARED,
        "architecture": "ARM64" if name in ARM else "X86_64",
        "maximumPersistentDisks": 128,
        "maximumPersistentDisksSizeGb": "263168",
    }
    if cards:
        resource["accelerators"] = [{"guestAcceleratorType": card, "guestAcceleratorCount": cards}]
    if name in SSDS:
        resource["bundledLocalSsds"] = {"defaultInterface": "NVME", "partitionCount": SSDS[name]}
    return resource


def accelerator_types(zone: str) -> dict[str, dict[str, Any]]:
    """Return the accelerator types of a zone, as their resources."""
    return {
        name: {"kind": "compute#acceleratorType", "name": name, "maximumCardsPerInstance": most}
        for name, most in ACCELERATORS.items()
        if not (name == "nvidia-tesla-v100" and zone in NO_V100_IN)
    }


def skus() -> list[dict[str, Any]]:
    """Return a price list in the Cloud Billing Catalog's form; noise that must not be taken for prices included."""
    return [{"name": f"services/6F81-5844-456A/skus/{n:04X}", "skuId": f"{n:04X}", **s} for n, s in enumerate(_skus())]


def _skus() -> Iterator[dict[str, Any]]:
    for series, (core, memory, core_group, memory_group) in _PRICES.items():
        for prefix, usage, part in (("", "OnDemand", 1.0), ("Spot Preemptible ", "Preemptible", 0.3)):
            for region, place, more in ((REGION, "Americas", 1.0), ("europe-west3", "Frankfurt", 1.3)):
                said = f"{prefix}{series} {{}} running in {place}"
                yield _sku(said.format("Core"), core_group, usage, "h", core * part * more, region)
                yield _sku(said.format("Ram"), memory_group, usage, "GiBy.h", memory * part * more, region)
        yield _sku(f"Commitment v1: {series} Core in Americas for 1 Year", "CPU", "Commit1Yr", "h", core * 0.6, REGION)
    for card, amount in _CARDS.items():
        yield _sku(f"{card} GPU running in Americas", "GPU", "OnDemand", "h", amount, REGION)
        attached = f"{card} GPU attached to Spot Preemptible VMs running in Americas"
        yield _sku(attached, "GPU", "Preemptible", "h", amount * 0.4, REGION)
    yield _sku("Storage PD Capacity", "PDStandard", "OnDemand", "GiBy.mo", 40_000_000, REGION)
    yield _sku("SSD backed Local Storage", "LocalSSD", "OnDemand", "GiBy.mo", 80_000_000, REGION)


def _sku(description: str, group: str, usage: str, unit: str, nanos: float, region: str) -> dict[str, Any]:
    price = {"currencyCode": "USD", "units": str(int(nanos) // 10**9), "nanos": int(nanos) % 10**9}
    return {
        "description": description,
        "category": {
            "serviceDisplayName": "Compute Engine",
            "resourceFamily": "Compute",
            "resourceGroup": group,
            "usageType": usage,
        },
        "serviceRegions": [region],
        "pricingInfo": [
            {
                "summary": "",
                "pricingExpression": {
                    "usageUnit": unit,
                    "displayQuantity": 1.0,
                    "tieredRates": [{"startUsageAmount": 0.0, "unitPrice": price}],
                },
                "currencyConversionRate": 1.0,
                "effectiveTime": "2026-11-01T00:00:00Z",
            }
        ],
        "serviceProviderName": "Google",
    }
