"""Pretended capacity: `ATOLL_AGENT_SLOTS` says what a machine has, instead of the probes."""

from agent.devices import Device, capacity
from atoll.errors import Invalid
from atoll.slots import Slots, parse_bytes, parse_milli

_HINT = "write it like cpu=2,memory=4GiB,disk=20GiB,gpu=L4:1:24GiB"


def parse(text: str, found: Slots) -> tuple[Slots, tuple[Device, ...]]:
    """Return slots and pretended GPUs for `cpu=2,memory=4GiB,gpu=L4:1:24GiB`; raise `Invalid` for anything else.

    Kinds that are not named are as `found`, except GPUs: none.
    """
    cpu, memory, disk = found.cpu, found.memory, found.disk
    gpus: list[Device] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        kind, _, value = part.partition("=")
        if kind == "cpu":
            cpu = parse_milli(value)
        elif kind == "memory":
            memory = parse_bytes(value)
        elif kind == "disk":
            disk = parse_bytes(value)
        elif kind == "gpu":
            gpus += _gpus(value)
        else:
            raise Invalid(f"ATOLL_AGENT_SLOTS: {part!r} is no kind of slot", hint=_HINT)
    return Slots(cpu, memory, disk, capacity(gpus)), tuple(gpus)


def _gpus(value: str) -> list[Device]:
    model, _, rest = value.partition(":")
    count, _, memory = rest.partition(":")
    if not model or not (count or "1").isdecimal():
        raise Invalid(f"ATOLL_AGENT_SLOTS: {value!r} is no GPU", hint=_HINT)
    size = parse_bytes(memory) if memory else 0
    return [Device(f"GPU-pretended-{model}-{index}", model, size) for index in range(int(count or "1"))]
