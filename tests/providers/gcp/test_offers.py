"""What machine types and accelerators make possible, and what they cost by the price list's parts."""

import pytest

from atoll.slots import GIB, Gpu
from providers.gcp.limits import limits
from providers.gcp.offers import Offer, offers, parts, shapes
from providers.gcp.skus import price, rates
from providers.port import Limit
from providers.prices.book import Book
from providers.reserve import usable
from tests.clouds.gcp import catalogue

ZONE = "us-central1-a"


def found(*patterns: str, architecture: str = "X86_64") -> dict[str, Offer]:
    types, cards = catalogue.machine_types(ZONE).values(), catalogue.accelerator_types(ZONE).values()
    return {each.name: each for each in offers(ZONE, types, cards, architecture=architecture, patterns=patterns)}


def test_only_what_an_image_of_this_kind_can_run_on() -> None:
    names = set(found())
    assert {"e2-medium", "g2-standard-4", "a3-highgpu-8g"} <= names
    assert not {"t2a-standard-4", "c3-standard-192-metal", "ct5lp-hightpu-1t"} & names
    assert set(found(architecture="ARM64")) == {"t2a-standard-4"}


def test_a_retired_type_is_no_offer() -> None:
    old = {"name": "n1-old", "guestCpus": 1, "memoryMb": 1024, "deprecated": {"state": "OBSOLETE"}}
    assert offers(ZONE, [old], []) == []


def test_n1_takes_accelerators_within_their_bounds() -> None:
    attached = {name for name in found() if "+" in name}
    assert {f"n1-standard-8+nvidia-tesla-{card}" for card in ("t4x1", "t4x2", "t4x4", "v100x1")} <= attached
    assert "n1-standard-16+nvidia-tesla-v100x1" not in attached, "one V100 goes with 12 vCPUs at most"
    assert "n1-standard-16+nvidia-tesla-v100x2" in attached
    assert not {name for name in attached if "vws" in name or "l4" in name or not name.startswith("n1-")}
    assert offers(ZONE, catalogue.machine_types(ZONE).values(), [], patterns=("*+*",)) == []


def test_patterns_choose() -> None:
    assert set(found("g2-*", "n1-standard-8+*t4x1")) == {
        "g2-standard-4",
        "g2-standard-24",
        "n1-standard-8+nvidia-tesla-t4x1",
    }


def test_shapes_have_short_models_and_shared_cores_count_as_paid() -> None:
    made = {shape.name: shape for shape in shapes("g", found().values(), 10 * GIB, Book(), spot=False)}
    assert made["g2-standard-24"].slots.gpu == (Gpu("L4", 2000, 24 * GIB),)
    assert made["a2-highgpu-1g"].slots.gpu == (Gpu("A100", 1000, 40 * GIB),)
    assert made["a2-ultragpu-1g"].slots.gpu == (Gpu("A100-80GB", 1000, 80 * GIB),)
    assert made["a3-highgpu-8g"].slots.gpu == (Gpu("H100", 8000, 80 * GIB),)
    assert made["n1-standard-8+nvidia-tesla-t4x2"].slots.gpu == (Gpu("T4", 2000, 16 * GIB),)
    assert made["e2-micro"].slots.cpu == 250
    assert made["e2-medium"].slots.memory == usable(4 * GIB)
    both = shapes("g", found().values(), 10 * GIB, Book(), spot=True)
    assert len(both) == 2 * len(made) == len({shape.key for shape in both})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("e2-medium", ("e2-medium", "", 0)),
        ("n1-standard-8+nvidia-tesla-t4x2", ("n1-standard-8", "nvidia-tesla-t4", 2)),
    ],
)
def test_parts_of_a_name(name: str, expected: tuple[str, str, int]) -> None:
    assert parts(name) == expected


PUBLISHED = {
    "e2-medium": 33_506,
    "n2d-standard-4": 168_984,
    "g2-standard-4": 706_824,
    "a2-highgpu-1g": 3_673_385,
    "n1-standard-8+nvidia-tesla-t4x1": 729_998,
}
"""Micro-dollars an hour in us-central1 as Google's pricing pages show them for whole machines."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_parts_add_up_to_the_price_of_the_machine(name: str) -> None:
    whole = price(found()[name], rates(catalogue.skus(), catalogue.REGION), spot=False)
    assert whole is not None
    assert whole.amount == PUBLISHED[name]
    spot = price(found()[name], rates(catalogue.skus(), catalogue.REGION), spot=True)
    assert spot is not None
    assert spot.amount < whole.amount / 2


def test_local_ssds_are_paid_for() -> None:
    known = rates(catalogue.skus(), catalogue.REGION)
    ultra = price(found()["a2-ultragpu-1g"], known, spot=False)
    assert ultra is not None
    assert ultra.amount == round(12 * 31_611 + 170 * 4_237 + 3_930_000 + 375 * 80_000 / 730)
    assert price(found()["a2-ultragpu-1g"], known, spot=True) is None, "nobody tells what its SSD costs as spot"


def test_a_machine_with_an_unknown_part_is_unpriced() -> None:
    known = rates(catalogue.skus(), catalogue.REGION)
    assert price(found()["a3-highgpu-8g"], known, spot=False) is None
    assert price(found()["g2-standard-4"], rates([], catalogue.REGION), spot=False) is None
    without_cards = [sku for sku in catalogue.skus() if "GPU" not in sku["description"]]
    assert price(found()["g2-standard-4"], rates(without_cards, catalogue.REGION), spot=False) is None


def test_another_region_has_its_own_prices() -> None:
    here, there = (rates(catalogue.skus(), region) for region in (catalogue.REGION, "europe-west3"))
    assert there.cores["e2", False] > here.cores["e2", False]
    assert there.devices == {}


def test_a_unit_that_is_not_known_is_not_taken() -> None:
    odd = next(sku for sku in catalogue.skus() if sku["description"] == "E2 Instance Core running in Americas")
    expression = {**odd["pricingInfo"][0]["pricingExpression"], "usageUnit": "mo"}
    assert rates([{**odd, "pricingInfo": [{"pricingExpression": expression}]}], catalogue.REGION).cores == {}


def test_quotas_as_limits() -> None:
    region = [
        {"metric": "CPUS", "limit": 72.0, "usage": 8.0},
        {"metric": "N2D_CPUS", "limit": 24.0},
        {"metric": "NVIDIA_T4_GPUS", "limit": 4.0, "usage": 1.0},
        {"metric": "NVIDIA_L4_GPUS", "limit": 2.0},
        {"metric": "PREEMPTIBLE_NVIDIA_L4_GPUS", "limit": 8.0},
        {"metric": "PREEMPTIBLE_NVIDIA_T4_GPUS", "limit": 0.0},
        {"metric": "NVIDIA_T4_VWS_GPUS", "limit": 1.0},
        {"metric": "COMMITTED_CPUS", "limit": 9.0},
        {"metric": "SSD_TOTAL_GB", "limit": 500.0},
    ]
    project = [{"metric": "GPUS_ALL_REGIONS", "limit": 0.0, "usage": 0.0}]
    told = {limit.name: limit for limit in limits(region, project, public_ip=True)}
    shared = ("n1-*", "e2-*", "f1-*", "g1-*")
    assert told == {
        "CPUS": Limit(name="CPUS", limit=72, counts="cpu", used=8, shapes=shared),
        "N2D_CPUS": Limit(name="N2D_CPUS", limit=24, counts="cpu", used=0, shapes=("n2d-*",)),
        "NVIDIA_T4_GPUS": Limit(
            name="NVIDIA_T4_GPUS", limit=4, counts="gpu", used=1, shapes=("n1-*+nvidia-tesla-t4x*",)
        ),
        "NVIDIA_L4_GPUS": Limit(name="NVIDIA_L4_GPUS", limit=2, counts="gpu", used=0, shapes=("g2-*",), spot=False),
        "PREEMPTIBLE_NVIDIA_L4_GPUS": Limit(
            name="PREEMPTIBLE_NVIDIA_L4_GPUS", limit=8, counts="gpu", used=0, shapes=("g2-*",), spot=True
        ),
        "GPUS_ALL_REGIONS": Limit(name="GPUS_ALL_REGIONS", limit=0, counts="gpu", used=0),
    }


def test_a_granted_preemptible_quota_frees_the_ordinary_one() -> None:
    region = [{"metric": "CPUS", "limit": 8.0}, {"metric": "PREEMPTIBLE_CPUS", "limit": 100.0}]
    told = {limit.name: limit.spot for limit in limits(region, [], public_ip=False)}
    assert told == {"CPUS": False, "PREEMPTIBLE_CPUS": True}
