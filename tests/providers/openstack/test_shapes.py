from typing import Any

import pytest

from atoll.price import Price, PriceList
from atoll.slots import GIB, MIB, Gpu, Slots
from providers.openstack.settings import Settings
from providers.openstack.shapes import Unclear, offers, slots_of
from providers.prices.book import Book
from providers.reserve import usable

SETTINGS = Settings(image="debian")


def flavor(name: str = "m1", disk: int = 20, **extra: Any) -> dict[str, Any]:
    specs = {key.replace("__", ":"): value for key, value in extra.items()}
    return {"name": name, "vcpus": 2, "ram": 4096, "disk": disk, "extra_specs": specs}


def gpus(settings: Settings = SETTINGS, **extra: Any) -> tuple[Gpu, ...]:
    return slots_of(flavor(**extra), settings).gpu


def test_a_flavor_is_cores_memory_and_disk() -> None:
    assert slots_of(flavor(), SETTINGS) == Slots(2000, usable(4096 * MIB), 20 * GIB)
    assert slots_of(flavor(disk=0), Settings(image="debian", disk=50 * GIB)).disk == 50 * GIB


def test_gpus_by_alias_vgpu_and_name() -> None:
    assert gpus(pci_passthrough__alias="a100:2") == (Gpu("A100", 2000, 40 * GIB),)
    named = Settings(image="debian", gpu_models={"big": "H100", "nic": ""})
    assert gpus(named, pci_passthrough__alias="big:1, nic:2") == (Gpu("H100", 1000, 80 * GIB),)
    assert gpus(pci_passthrough__alias="x:1", atoll__gpu_model="L4") == (Gpu("L4", 1000, 24 * GIB),)
    assert gpus(resources__VGPU="1", atoll__gpu_model="A40", atoll__gpu_memory="12GiB") == (Gpu("A40", 1000, 12 * GIB),)


@pytest.mark.parametrize(
    "extra",
    [
        {"pci_passthrough__alias": "mystery:1"},
        {"pci_passthrough__alias": "a100:many"},
        {"resources__VGPU": "1"},
        {"resources__VGPU": "1", "atoll__gpu_model": "Mystery"},
    ],
)
def test_devices_nobody_can_name_are_no_offer(extra: dict[str, Any]) -> None:
    with pytest.raises(Unclear):
        gpus(**extra)
    assert offers("p", SETTINGS, [flavor(**extra)], ["a"], Book()) == []


def test_offers_are_flavors_in_zones_at_told_or_listed_prices() -> None:
    book = Book(PriceList(provider="p", source="file", prices=(Price(shape="m2", amount=70_000, zone="b"),)))
    found = offers("p", SETTINGS, [flavor("m1", atoll__price="0.02"), flavor("m2")], ["a", "b"], book)
    assert [(s.key, s.price) for s in found] == [
        ("m1/a/on-demand", 20_000),
        ("m1/b/on-demand", 20_000),
        ("m2/a/on-demand", None),
        ("m2/b/on-demand", 70_000),
    ]


@pytest.mark.parametrize("price", ["0", "-1", "cheap", ""])
def test_a_price_that_is_none_leaves_it_unpriced(price: str) -> None:
    (shape,) = offers("p", SETTINGS, [flavor(atoll__price=price)], ["a"], Book())
    assert shape.price is None


def test_patterns_and_disabled_flavors() -> None:
    settings = Settings(image="debian", patterns=("g*",))
    off = flavor("g2") | {"OS-FLV-DISABLED:disabled": True}
    assert [s.name for s in offers("p", settings, [flavor("m1"), flavor("g1"), off], ["a"], Book())] == ["g1"]
