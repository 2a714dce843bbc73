"""What a probe finds out about this machine."""

from dataclasses import dataclass, field

from agent.devices import Device
from atoll.slots import Slots


@dataclass(frozen=True, slots=True)
class Found:
    """The machine's capacity, its GPUs, and facts for people and for placement."""

    capacity: Slots
    gpus: tuple[Device, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)
