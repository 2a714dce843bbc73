"""Slots: what a machine has and a session takes. Integers only, so that sums are exact.

`Request` is what a session asks for, `Slots` what a machine has, has free, or gave. Free slots are
always derived (capacity less what runs), never counted up and down.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from atoll.errors import Invalid
from atoll.value import value

KIB, MIB, GIB, TIB = 1024, 1024**2, 1024**3, 1024**4
_UNITS = {
    "": 1, "B": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB, "TiB": TIB,
    "Ki": KIB, "Mi": MIB, "Gi": GIB, "Ti": TIB,
    "KB": 1000, "MB": 1000**2, "GB": 1000**3, "TB": 1000**4,
    "K": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4,
}  # fmt: skip


@value(order=True)
class Gpu:
    """Devices of one model: `milli` thousandths of a device in all, `memory` bytes on each device."""

    model: str
    milli: int
    memory: int = 0


@value()
class Slots:
    """An amount of resources: `cpu` in thousandths of a core, `memory` and `disk` in bytes, `gpu` by model.

    `gpu` holds each model at most once and is sorted by model: equal amounts compare equal.
    """

    cpu: int = 0
    memory: int = 0
    disk: int = 0
    gpu: tuple[Gpu, ...] = ()

    def __add__(self, other: "Slots") -> "Slots":
        return Slots(
            self.cpu + other.cpu, self.memory + other.memory, self.disk + other.disk, _merge(self.gpu, other.gpu, 1)
        )

    def __sub__(self, other: "Slots") -> "Slots":
        return Slots(
            self.cpu - other.cpu, self.memory - other.memory, self.disk - other.disk, _merge(self.gpu, other.gpu, -1)
        )

    @property
    def gpu_milli(self) -> int:
        """Thousandths of devices over all models."""
        return sum([gpu.milli for gpu in self.gpu])

    def take(self, request: "Request") -> "Slots | None":
        """Return what `request` takes when this much is free, or None when it does not fit.

        Of several models that would do, the one with the least device memory is taken: it leaves the
        scarcer devices to those who need them.
        """
        if request.cpu > self.cpu or request.memory > self.memory or request.disk > self.disk:
            return None
        gpu: tuple[Gpu, ...] = ()
        if request.gpu.milli:
            able = [g for g in self.gpu if g.milli >= request.gpu.milli and request.gpu.allows(g)]
            if not able:
                return None
            least = min(able, key=lambda g: (g.memory, g.model)) if len(able) > 1 else able[0]
            gpu = (Gpu(least.model, request.gpu.milli, least.memory),)
        return Slots(request.cpu, request.memory, request.disk, gpu)

    def share_of(self, whole: "Slots") -> float:
        """Return the largest fraction of any one kind in `whole` that this amount is, within 0..1."""
        cpu = self.cpu / whole.cpu if whole.cpu > 0 else 0.0
        memory = self.memory / whole.memory if whole.memory > 0 else 0.0
        gpu = self.gpu_milli / whole.gpu_milli if whole.gpu and whole.gpu_milli > 0 else 0.0
        return min(1.0, max(cpu, memory, gpu, 0.0))

    def covers(self, other: "Slots") -> bool:
        """Say whether every kind of `other` is at most this amount's."""
        rest = self - other
        return min(rest.cpu, rest.memory, rest.disk) >= 0 and all(g.milli >= 0 for g in rest.gpu)


@dataclass(frozen=True, slots=True)
class GpuRequest:
    """Devices asked for: `milli` thousandths, any of `models` (empty: any), `memory` to `memory_max` bytes each.

    `memory_max` 0 is no limit. `driver` is the oldest driver that will do, as numbers (`(550, 54)`; empty: any).
    """

    milli: int = 0
    models: tuple[str, ...] = ()
    memory: int = 0
    memory_max: int = 0
    driver: tuple[int, ...] = ()

    def allows(self, gpu: Gpu) -> bool:
        """Say whether a device of this model may be used, regardless of how many are free and of its driver."""
        return (
            (not self.models or gpu.model in self.models)
            and gpu.memory >= self.memory
            and (not self.memory_max or gpu.memory <= self.memory_max)
        )


@dataclass(frozen=True, slots=True)
class Request:
    """What one member of a session asks for: `cpu` in thousandths of a core, `memory`, `disk` in bytes."""

    cpu: int = 1000
    memory: int = 256 * MIB
    disk: int = 0
    gpu: GpuRequest = GpuRequest()


def total(amounts: Iterable[Slots]) -> Slots:
    """Return the sum of `amounts`."""
    result = Slots()
    for amount in amounts:
        result = result + amount
    return result


def parse_bytes(text: str | int) -> int:
    """Return bytes of `24GiB`, `512M` or `1073741824`; raise `Invalid` for anything else."""
    if isinstance(text, int):
        return text
    number = text.rstrip("BKMGTi")
    unit = text[len(number) :]
    try:
        value = float(number) * _UNITS[unit]
    except (ValueError, KeyError):
        raise Invalid(f"{text!r} is not an amount of bytes", hint="write it like 512MiB, 24GiB or 2TB") from None
    if value < 0:
        raise Invalid(f"{text!r} is negative")
    return round(value)


def parse_milli(text: str | float) -> int:
    """Return thousandths of `0.5`, `2` or `250m`; raise `Invalid` for anything else."""
    try:
        value = float(text[:-1]) if isinstance(text, str) and text.endswith("m") else float(text) * 1000
    except ValueError:
        raise Invalid(f"{text!r} is not a number of cores or devices", hint="write it like 2, 0.5 or 250m") from None
    if not 0 <= value < 1e12:
        raise Invalid(f"{text!r} is out of range")
    return round(value)


def text(amount: Slots) -> str:
    """Return an amount for people: `2 cpu, 4.0 GiB, 1 x L4`."""
    parts = [f"{amount.cpu / 1000:g} cpu", f"{amount.memory / GIB:.1f} GiB"]
    parts += [f"{gpu.milli / 1000:g} x {gpu.model}" for gpu in amount.gpu if gpu.milli]
    return ", ".join(parts)


def _merge(left: tuple[Gpu, ...], right: tuple[Gpu, ...], sign: int) -> tuple[Gpu, ...]:
    if not right:
        return left
    by_model = {gpu.model: gpu for gpu in left}
    for gpu in right:
        have = by_model.get(gpu.model)
        milli = (have.milli if have else 0) + sign * gpu.milli
        by_model[gpu.model] = Gpu(gpu.model, milli, have.memory if have else gpu.memory)
    return tuple(sorted(by_model.values()))
