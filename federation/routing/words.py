"""Requests and free slots in words, for decisions that people read."""

from functools import lru_cache

from atoll import money, slots
from atoll.slots import GpuRequest, Request, Slots
from federation.routing.bins import Row


def ask_text(request: Request) -> str:
    """Return a request for people: `2 cpu, 4.0 GiB, 1 x T4|L4`."""
    text = slots.text(Slots(request.cpu, request.memory))
    if request.disk:
        text += f", {request.disk / slots.GIB:.1f} GiB disk"
    gpu = request.gpu
    if gpu.milli:
        text += f", {gpu.milli / 1000:g} x {'|'.join(gpu.models) or 'GPU'}"
        if gpu.memory or gpu.memory_max:
            text += f" of {memory_text(gpu)}"
        if gpu.driver:
            text += f", driver {version_text(gpu.driver)} or newer"
    return text


def memory_text(gpu: GpuRequest) -> str:
    """Return the memory that each device must have, for people: `24 GiB`, `16 to 24 GiB`."""
    least, most = gpu.memory / slots.GIB, gpu.memory_max / slots.GIB
    if not gpu.memory_max:
        return f"{least:.0f} GiB"
    return f"{least:.0f} to {most:.0f} GiB" if gpu.memory else f"at most {most:.0f} GiB"


def version_text(numbers: tuple[int, ...]) -> str:
    """Return a version for people: `550.54`."""
    return ".".join(map(str, numbers))


def free_text(row: Row) -> str:
    """Return for people what an agent has free now, a trial's placements counted."""
    gpu, cpu, memory, _, _ = row.key
    return _amounts(cpu, memory, gpu if row.bin.make.models else None)


@lru_cache(maxsize=4096)
def _amounts(cpu: int, memory: int, gpu: int | None) -> str:
    text = slots.text(Slots(cpu, memory))
    return text if gpu is None else f"{text}, {gpu / 1000:g} GPU"


def enough(price: int) -> str:
    """Return a limit that `price` is within, in units: rounded up."""
    step = 100 if price < money.PER_UNIT else 10_000
    return money.text(-(-price // step) * step)


def duration(seconds: float) -> str:
    """Return a duration for people: `45 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
