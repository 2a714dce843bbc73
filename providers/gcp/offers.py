"""What Compute Engine could make in a zone: machine types, and N1 types with accelerators attached. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

from atoll.gpus import gpu
from atoll.instance import Shape
from atoll.slots import MIB, Gpu, Slots
from providers.prices.book import Book
from providers.reserve import usable

ATTACHED = "+"
"""Parts a machine type from its attached accelerators in an offer's name: `n1-standard-8+nvidia-tesla-t4x1`."""

_ATTACHABLE: Mapping[str, Mapping[int, tuple[int, int]]] = {
    "nvidia-tesla-t4": {1: (48, 312), 2: (48, 312), 4: (96, 624)},
    "nvidia-tesla-p4": {1: (24, 156), 2: (48, 312), 4: (96, 624)},
    "nvidia-tesla-v100": {1: (12, 78), 2: (24, 156), 4: (48, 312), 8: (96, 624)},
    "nvidia-tesla-p100": {1: (16, 104), 2: (32, 208), 4: (64, 208)},
}
"""By accelerator and count: the most vCPUs and GB an N1 type may have with them (Compute Engine's GPU page)."""

_SHARED_MILLI: Mapping[str, int] = {"e2-micro": 250, "e2-small": 500, "e2-medium": 1000}
"""Shared-core types are given, and paid for, a part of the two vCPUs they show."""
_GONE = frozenset({"OBSOLETE", "DELETED"})
_NO_ATTACHING = ("n1-megamem", "n1-ultramem")


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One thing a zone sells. `cpu` in thousandths of a vCPU, `memory` in MiB, `cards` of `accelerator`.

    `ssds` counts local SSD partitions that come with the type and are paid for with it.
    """

    name: str
    zone: str
    cpu: int
    memory: int
    accelerator: str = ""
    cards: int = 0
    ssds: int = 0

    @property
    def family(self) -> str:
        """The part before the first dash: `n1`, `g2`."""
        return self.name.partition("-")[0]

    def slots(self, disk: int) -> Slots:
        """Return what an agent on this offer will have, with a disk of this many bytes."""
        return Slots(self.cpu, usable(self.memory * MIB), disk, tuple(self._gpus()))

    def _gpus(self) -> Iterator[Gpu]:
        if found := gpu(self.accelerator, self.cards):
            yield found


def offers(
    zone: str,
    types: Iterable[Mapping[str, Any]],
    accelerators: Iterable[Mapping[str, Any]],
    *,
    architecture: str = "X86_64",
    patterns: tuple[str, ...] = (),
) -> list[Offer]:
    """Return what a zone's machine types and accelerator types make possible, of the names allowed.

    Left out are retired types, other processors, bare metal (it needs images of its own), and devices
    whose memory nobody knows, such as TPUs.
    """
    attachable = {each["name"]: int(each.get("maximumCardsPerInstance", 0)) for each in accelerators}
    plain = [offer for each in types if (offer := _plain(zone, each, architecture))]
    found = plain + [offer for each in plain for offer in _with_cards(each, attachable)]
    return [offer for offer in found if not patterns or any(fnmatch(offer.name, pattern) for pattern in patterns)]


def shapes(provider: str, found: Iterable[Offer], disk: int, prices: Book, *, spot: bool) -> list[Shape]:
    """Return each offer as a shape, and again as spot where that is wanted."""
    return [
        Shape(
            provider=provider,
            name=offer.name,
            zone=offer.zone,
            slots=offer.slots(disk),
            price=prices.price(offer.name, offer.zone, cheap),
            spot=cheap,
            catalogue=prices.label,
        )
        for offer in found
        for cheap in ((False, True) if spot else (False,))
    ]


def parts(name: str) -> tuple[str, str, int]:
    """Return machine type, accelerator ("" for none) and count of an offer's name."""
    kind, _, attached = name.partition(ATTACHED)
    accelerator, _, count = attached.rpartition("x")
    return kind, accelerator, int(count) if accelerator and count.isdecimal() else 0


def _plain(zone: str, kind: Mapping[str, Any], architecture: str) -> Offer | None:
    name: str = kind["name"]
    if kind.get("architecture", "X86_64") != architecture or name.endswith("-metal"):
        return None
    if kind.get("deprecated", {}).get("state") in _GONE:
        return None
    card = (kind.get("accelerators") or [{}])[0]
    offer = Offer(
        name=name,
        zone=zone,
        cpu=_SHARED_MILLI.get(name, int(kind["guestCpus"]) * 1000),
        memory=int(kind["memoryMb"]),
        accelerator=card.get("guestAcceleratorType", ""),
        cards=int(card.get("guestAcceleratorCount", 0)),
        ssds=int(kind.get("bundledLocalSsds", {}).get("partitionCount", 0)),
    )
    unknown = offer.accelerator and (offer.accelerator.endswith("-vws") or not offer.slots(0).gpu)
    return None if unknown else offer


def _with_cards(plain: Offer, attachable: Mapping[str, int]) -> Iterator[Offer]:
    if plain.family != "n1" or plain.name.startswith(_NO_ATTACHING):
        return
    for accelerator, counts in _ATTACHABLE.items():
        for count, (cpus, gigabytes) in counts.items():
            fits = plain.cpu <= cpus * 1000 and plain.memory <= gigabytes * 1024
            if fits and count <= attachable.get(accelerator, 0):
                yield Offer(
                    name=f"{plain.name}{ATTACHED}{accelerator}x{count}",
                    zone=plain.zone,
                    cpu=plain.cpu,
                    memory=plain.memory,
                    accelerator=accelerator,
                    cards=count,
                )
