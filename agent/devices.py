"""Which GPUs a run gets: devices by UUID, derived from what runs, never counted up and down. Pure."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from atoll.slots import Gpu, Slots


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU of this machine: `memory` in bytes."""

    uuid: str
    model: str
    memory: int


@dataclass(frozen=True, slots=True)
class Held:
    """Devices a live run holds, `milli` thousandths of each."""

    gpus: tuple[str, ...]
    milli: int


def capacity(devices: Iterable[Device]) -> tuple[Gpu, ...]:
    """Return what devices amount to as slots: a model's memory is its smallest device's."""
    by_model: dict[str, list[Device]] = {}
    for device in devices:
        by_model.setdefault(device.model, []).append(device)
    return tuple(
        Gpu(model, 1000 * len(same), min(device.memory for device in same)) for model, same in sorted(by_model.items())
    )


def pick(devices: Iterable[Device], held: Iterable[Held], slots: Slots) -> Held | None:
    """Return devices for `slots`, or None when too few are free.

    A part of a device goes where least is left (whole ones stay whole); more than one device is whole
    devices. No GPU asked for: no device.
    """
    used: dict[str, int] = {}
    for hold in held:
        for uuid in hold.gpus:
            used[uuid] = used.get(uuid, 0) + hold.milli
    chosen: list[str] = []
    milli = 1000
    for gpu in slots.gpu:
        if gpu.milli <= 0:
            continue
        count = math.ceil(gpu.milli / 1000)
        milli = gpu.milli if count == 1 else 1000
        same = [device for device in devices if device.model == gpu.model]
        able = [device for device in same if used.get(device.uuid, 0) + milli <= 1000]
        if len(able) < count:
            return None
        able.sort(key=lambda device: -used.get(device.uuid, 0))
        chosen += [device.uuid for device in able[:count]]
    return Held(tuple(chosen), milli)
