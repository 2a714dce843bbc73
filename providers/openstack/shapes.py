"""Flavors as shapes: cores, memory, GPUs by PCI alias or vGPU, and the price an operator wrote beside them. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from atoll.errors import Invalid
from atoll.gpus import MEMORY, canonical, gpu
from atoll.instance import Shape
from atoll.money import micros
from atoll.slots import GIB, MIB, Gpu, Slots, parse_bytes
from providers.openstack.settings import Settings
from providers.prices.book import Book
from providers.reserve import usable

PRICE = "atoll:price"
"""Extra spec with the price of an hour in units (`0.42`)."""
GPU_MODEL, GPU_MEMORY = "atoll:gpu_model", "atoll:gpu_memory"
"""Extra specs that name the model behind a vGPU or an alias, and the memory each machine gets of it."""
ALIAS, VGPU = "pci_passthrough:alias", "resources:VGPU"
START_S = 60.0


class Unclear(ValueError):
    """A flavor whose devices cannot be told; the text says why."""


def offers(
    provider: str, settings: Settings, flavors: Iterable[Mapping[str, Any]], zones: Iterable[str], prices: Book
) -> list[Shape]:
    """Return each flavor in each zone. One with devices that nobody can name is no offer."""
    places = list(zones)
    shapes: list[Shape] = []
    for flavor in flavors:
        if not settings.sells(flavor["name"]) or flavor.get("OS-FLV-DISABLED:disabled"):
            continue
        try:
            slots = slots_of(flavor, settings)
        except Unclear:
            continue
        shapes += [
            Shape(
                provider=provider,
                name=flavor["name"],
                zone=zone,
                slots=slots,
                price=prices.price(flavor["name"], zone, False, told=_price(flavor)),
                start_s=START_S,
                catalogue=prices.label,
            )
            for zone in places
        ]
    return shapes


def slots_of(flavor: Mapping[str, Any], settings: Settings) -> Slots:
    """Return what an agent on a flavor will have; raise `Unclear` where its devices cannot be told."""
    return Slots(
        int(flavor["vcpus"]) * 1000,
        usable(int(flavor["ram"]) * MIB),
        settings.disk or int(flavor["disk"]) * GIB,
        _gpus(_specs(flavor), settings.gpu_models),
    )


def _gpus(specs: Mapping[str, str], models: Mapping[str, str]) -> tuple[Gpu, ...]:
    told, memory = specs.get(GPU_MODEL, ""), _memory(specs.get(GPU_MEMORY, ""))
    counts: dict[str, int] = {}
    for part in filter(None, (part.strip() for part in specs.get(ALIAS, "").split(","))):
        alias, _, count = part.rpartition(":")
        model = told or models.get(alias, canonical(alias))
        if not model and alias in models:
            continue  # a device that is no GPU
        if not model or (model not in MEMORY and not memory):
            raise Unclear(f"the PCI alias {alias!r} is no GPU known here: name it in settings.gpu_models")
        counts[model] = counts.get(model, 0) + _whole(count)
    if shares := _whole(specs.get(VGPU, "0")):
        if not told or not (memory or told in MEMORY):
            raise Unclear(f"its vGPU has no model: set the extra spec {GPU_MODEL} (and {GPU_MEMORY})")
        counts[told] = counts.get(told, 0) + shares
    found = [gpu(model, count, memory) for model, count in counts.items()]
    return tuple(sorted(device for device in found if device))


def _specs(flavor: Mapping[str, Any]) -> Mapping[str, str]:
    return flavor.get("extra_specs") or {}


def _price(flavor: Mapping[str, Any]) -> int | None:
    try:
        amount = micros(float(_specs(flavor).get(PRICE, "")))
    except ValueError:
        return None
    return amount if amount > 0 else None


def _memory(text: str) -> int:
    try:
        return parse_bytes(text) if text else 0
    except Invalid:
        return 0


def _whole(text: str) -> int:
    if not text.strip().isdecimal():
        raise Unclear(f"{text!r} is no number of devices")
    return int(text)
