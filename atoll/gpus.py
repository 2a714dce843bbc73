"""Accelerators by the short names that shapes and agents share, and the memory on one device of each. Pure."""

import re
from collections.abc import Mapping

from atoll.slots import GIB, Gpu

_GIB: Mapping[str, int] = {
    "A10": 24, "A100": 40, "A100-80GB": 80, "A10G": 24, "A16": 16, "A2": 16, "A30": 24, "A40": 48,
    "B200": 180, "B300": 268, "GB200": 186, "GH200": 96, "H100": 80, "H100-NVL": 94, "H20": 96, "H200": 141,
    "K80": 12, "L20": 48, "L4": 24, "L40": 48, "L40S": 48, "M60": 8, "P100": 16, "P4": 8, "P40": 24,
    "RTX-4000-Ada": 20, "RTX-6000-Ada": 48, "RTX-A4000": 16, "RTX-A5000": 24, "RTX-A6000": 48,
    "RTX-PRO-4500": 32, "RTX-PRO-6000": 96, "T4": 16, "T4G": 16, "V100": 16,
    "Gaudi-HL-205": 32, "Gaudi2": 96, "Gaudi3": 128, "MI210": 64, "MI250X": 128, "MI300X": 192, "MI325X": 256,
    "Radeon-Pro-V520": 8, "Radeon-Pro-V710": 28,
}  # fmt: skip
_LARGER: Mapping[str, int] = {"V100": 32}
"""GiB of models that were also built larger, under the same name."""

MEMORY: Mapping[str, int] = {model: gib * GIB for model, gib in _GIB.items()}
"""Bytes of memory on one device, by model, as their makers' data sheets say."""

LESS = 0.1
"""Drivers and clouds show at most this part less than the data sheet: ECC and firmware take it."""

_VENDORS = frozenset({"amd", "geforce", "habana", "intel", "nvidia", "quadro", "tesla"})
_TOKENS = {model: frozenset(model.lower().split("-")) for model in MEMORY}


def canonical(name: str, memory: int = 0) -> str:
    """Return the short model of anybody's name for it; an unknown one loses its maker's name only.

    `nvidia-tesla-t4` is `T4`, `RTX PRO Server 6000` is `RTX-PRO-6000`. `memory` (bytes on a device, 0: not
    told) tells an A100 from one with 80 GB.
    """
    words = [word for word in re.split(r"[\s_-]+", name) if word]
    said = frozenset(word.lower() for word in words)
    fitting = [model for model, tokens in _TOKENS.items() if tokens <= said]
    if not fitting:
        return "-".join(word for word in words if word.lower() not in _VENDORS) or name
    model = max(fitting, key=lambda each: (len(_TOKENS[each]), each))
    return "A100-80GB" if model == "A100" and memory > 60 * GIB else model


def nominal(model: str, memory: int) -> int:
    """Return the data sheet's memory for a device that shows up to `LESS` less; else, and unknown models, `memory`.

    A T4 of 16 GiB shows 15 GiB, an L4 of 24 GiB 22.5 GiB, and not the same everywhere: who asks for 24 GiB means this.
    """
    sizes = (MEMORY.get(model, 0), _LARGER.get(model, 0) * GIB)
    return next((size for size in sizes if (1 - LESS) * size <= memory < size), memory)


def gpu(model: str, count: int, memory: int = 0) -> Gpu | None:
    """Return `count` devices of a model under its short name; `memory` is what the cloud tells, in bytes.

    None when there are none, or when nobody knows their memory: such a machine is no offer.
    """
    short = canonical(model, memory)
    size = nominal(short, memory) if memory else MEMORY.get(short, 0)
    return Gpu(short, count * 1000, size) if count > 0 and size > 0 else None
