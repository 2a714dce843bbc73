from dataclasses import replace
from typing import Any

import pytest

from atoll.price import Price, PriceList
from atoll.slots import GIB, Gpu, Slots
from providers.aws.shapes import METAL_START_S, filters, offers
from providers.prices.book import Book
from providers.reserve import usable
from tests.providers.aws.facts import SETTINGS, kind

ZONES = {name: frozenset({"eu-central-1a"}) for name in ("t3.small", "g5.xlarge", "p4de.24xlarge", "m5.metal")}


def gpus(count: int, name: str = "A10G", mib: int = 22888) -> dict[str, Any]:
    return {"GpuInfo": {"Gpus": [{"Name": name, "Count": count, "MemoryInfo": {"SizeInMiB": mib}}]}}


def names(*kinds: dict[str, Any], **settings: Any) -> list[str]:
    made = offers("ec2", replace(SETTINGS, **settings), kinds, ZONES, Book())
    return [shape.key for shape in made]


def test_a_type_is_offered_in_its_zones_both_ways() -> None:
    zones = {"t3.small": frozenset({"eu-central-1b", "eu-central-1a"})}
    spot = Price(shape="t3.small", zone="eu-central-1b", spot=True, amount=7)
    listed = PriceList(provider="ec2", source="AWS", at=5.0, prices=(Price(shape="t3.small", amount=20800), spot))
    shapes = offers("ec2", SETTINGS, [kind("t3.small")], zones, Book(listed))
    assert [(shape.key, shape.price) for shape in shapes] == [
        ("t3.small/eu-central-1a/on-demand", 20800),
        ("t3.small/eu-central-1a/spot", None),
        ("t3.small/eu-central-1b/on-demand", 20800),
        ("t3.small/eu-central-1b/spot", 7),
    ]
    assert shapes[0].slots == Slots(2000, usable(2 * GIB), 20 * GIB)
    assert shapes[0].catalogue == "AWS @5"


def test_gpus_have_model_and_memory() -> None:
    shapes = offers("ec2", SETTINGS, [kind("g5.xlarge", **gpus(1))], ZONES, Book())
    assert shapes[0].slots.gpu == (Gpu("A10G", 1000, 24 * GIB),)
    (big, _) = offers("ec2", SETTINGS, [kind("p4de.24xlarge", **gpus(8, "A100", 81920))], ZONES, Book())
    assert big.slots.gpu == (Gpu("A100-80GB", 8000, 80 * GIB),)


@pytest.mark.parametrize(
    "wrong",
    [
        gpus(0, "L4", 2861),
        {"ProcessorInfo": {"SupportedArchitectures": ["arm64"]}},
        {"SupportedVirtualizationTypes": ["paravirtual"]},
        {"SupportedRootDeviceTypes": ["instance-store"]},
        {"SupportedUsageClasses": ["capacity-block"]},
        {"BareMetal": True},
    ],
    ids=["part of a GPU", "other processor", "old", "no EBS", "by reservation only", "bare metal"],
)
def test_what_would_not_work_is_no_offer(wrong: dict[str, Any]) -> None:
    assert names(kind("t3.small", **wrong)) == []


def test_settings_choose() -> None:
    both = (kind("t3.small"), kind("g5.xlarge", **gpus(1)))
    assert names(*both, patterns=("g5.*",), spot=False) == ["g5.xlarge/eu-central-1a/on-demand"]
    assert names(kind("t3.small", ProcessorInfo={"SupportedArchitectures": ["arm64"]}), architecture="arm64")
    assert names(kind("c5.large")) == [], "offered in no zone of ours"


def test_bare_metal_is_offered_where_it_is_named() -> None:
    made = offers("ec2", replace(SETTINGS, patterns=("m5.metal",)), [kind("m5.metal", BareMetal=True)], ZONES, Book())
    assert {shape.start_s for shape in made} == {METAL_START_S}


@pytest.mark.parametrize(
    ("patterns", "asked"), [((), False), (("t3.*", "g?.xlarge"), True), (("t[23].*",), False), (("x",) * 201, False)]
)
def test_patterns_are_filtered_by_ec2_where_it_can(patterns: tuple[str, ...], asked: bool) -> None:
    assert filters(patterns) == ([{"Name": "instance-type", "Values": list(patterns)}] if asked else [])
