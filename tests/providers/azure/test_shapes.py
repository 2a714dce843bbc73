"""Azure's sizes and usages as shapes and limits, on a list with every oddity the real one has."""

from collections.abc import Iterable
from dataclasses import replace

import pytest

from atoll.instance import Shape
from atoll.price import Price, PriceList
from atoll.slots import GIB, Gpu
from providers.azure.limits import told
from providers.azure.settings import Settings
from providers.azure.shapes import _device, offered
from providers.port import Limit
from providers.prices.book import Book
from providers.reserve import usable
from tests.clouds.azure import catalogue
from tests.providers.azure.test_request import settings

PRICES = PriceList(provider="p", source="a test", at=7.0, prices=(Price(shape="Standard_D2s_v5", amount=115_000),))


def offers(chosen: Settings) -> list[Shape]:
    return offered(catalogue.skus(), chosen, "p", Book(PRICES))


def names(shapes: Iterable[Shape]) -> set[str]:
    return {shape.name for shape in shapes}


def test_only_what_can_be_made_and_run_is_offered() -> None:
    found = names(offers(settings()))
    assert {"Standard_B2s", "Standard_D2s_v5", "Standard_NC4as_T4_v3", "Standard_ND96isr_H100_v5"} <= found
    assert "Standard_D8s_v5" not in found, "closed to the subscription in the whole region"
    assert "Standard_D2ps_v5" not in found, "for Arm"
    assert "Standard_D2_v2" not in found, "of a generation that the image cannot boot on"
    assert "Standard_NV6ads_A10_v5" not in found, "a sixth of a device"
    assert "Standard_NC99_NEW_v9" not in found, "a device nobody knows the memory of"
    assert "StandardSSD_LRS" not in found, "a disk"


def test_zones_are_the_sizes_own_less_those_closed() -> None:
    def zones(name: str, chosen: Settings) -> set[str]:
        return {shape.zone for shape in offers(chosen) if shape.name == name}

    assert zones("Standard_D2s_v5", settings()) == {"westeurope-1", "westeurope-2", "westeurope-3"}
    assert zones("Standard_D16s_v5", settings()) == {"westeurope-1", "westeurope-2"}
    assert zones("Standard_NC4as_T4_v3", settings(zones=["2", "3"])) == {"westeurope-2"}
    old = settings(image="Debian:debian-12:12:latest")
    assert zones("Standard_D2_v2", old) == {"westeurope"}, "no zones there: the region itself"
    assert zones("Standard_D2_v2", replace(old, zones=("1",))) == set()


def test_slots_and_prices_are_told() -> None:
    by_key = {shape.key: shape for shape in offers(settings(disk="64GiB"))}
    small = by_key["Standard_D2s_v5/westeurope-1/on-demand"]
    assert (small.slots.cpu, small.slots.memory, small.slots.disk) == (2000, usable(8 * GIB), 64 * GIB)
    assert (small.price, small.catalogue) == (115_000, "a test @7")
    assert by_key["Standard_D2s_v5/westeurope-1/spot"].price is None
    assert by_key["Standard_M8-2ms/westeurope-1/on-demand"].slots.cpu == 2000, "a size with cores switched off"
    assert by_key["Standard_ND96isr_H100_v5/westeurope-2/spot"].slots.gpu == (Gpu("H100", 8000, 80 * GIB),)


def test_spot_is_offered_where_the_size_and_the_settings_allow_it() -> None:
    assert {shape.spot for shape in offers(settings(shapes=["Standard_B*"]))} == {False}
    assert {shape.spot for shape in offers(settings(shapes=["Standard_D2s*"]))} == {False, True}
    assert {shape.spot for shape in offers(settings(shapes=["Standard_D2s*"], spot=False))} == {False}


@pytest.mark.parametrize(
    ("size", "count", "model", "memory"),
    [
        ("Standard_NC64as_T4_v3", 4, "T4", 16),
        ("Standard_NC24ads_A100_v4", 1, "A100-80GB", 80),
        ("Standard_ND96asr_v4", 8, "A100", 40),
        ("Standard_ND96amsr_A100_v4", 8, "A100-80GB", 80),
        ("Standard_NC80adis_H100_v5", 2, "H100-NVL", 94),
        ("Standard_ND96isr_H200_v5", 8, "H200", 141),
        ("Standard_ND40rs_v2", 8, "V100", 32),
        ("Standard_NC24rs_v3", 4, "V100", 16),
        ("Standard_NV36adms_A10_v5", 1, "A10", 24),
        ("Standard_NV24s_v3", 2, "M60", 8),
    ],
)
def test_devices_are_known_by_the_sizes_name(size: str, count: int, model: str, memory: int) -> None:
    assert _device(size, count) == Gpu(model, count * 1000, memory * GIB)


def test_limits_name_the_sizes_they_count() -> None:
    chosen = settings(shapes=["Standard_D*s_v5"])
    limits = {limit.name: limit for limit in told(catalogue.usages({"cores": 4}), catalogue.skus(), chosen)}
    assert limits["cores"] == Limit(name="cores", limit=100, used=4, counts="cpu", spot=False)
    assert limits["lowPriorityCores"].spot is True
    assert limits["virtualMachines"].counts == "instances"
    assert "Standard_D4s_v5" in limits["standardDSv5Family"].shapes
    assert limits["standardDSv5Family"].spot is False
    assert set(limits) == {"cores", "lowPriorityCores", "virtualMachines", "standardDSv5Family"}
