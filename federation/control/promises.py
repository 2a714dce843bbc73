"""What machines turned out to have less than their offer promised, and offers that promise no more than that."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from atoll import slots
from atoll.agent import Agent
from atoll.clock import Clock
from atoll.instance import Instance, Shape
from atoll.slots import GIB, Slots


class Promises:
    """By provider and shape: the least an agent had. In memory: agents on record teach it again after a restart.

    So a session that fits an offer and not the machine has one launched for it, and not one after the other.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: dict[tuple[str, str], Slots] = {}
        self._since: dict[str, float] = {}
        self._judged: dict[str, int] = {}

    def learn(self, agents: Iterable[Agent], instances: Iterable[Instance]) -> None:
        """Compare agents that have registered with what was promised of their instances."""
        by_id = {row.id: row for row in instances}
        launched = {agent.id: agent for agent in agents if agent.instance and agent.epoch}
        for agent in launched.values():
            row = by_id.get(agent.instance)
            if row and self._judged.get(agent.id) != agent.epoch:
                self._judge(agent, row)
        self._judged = {key: agent.epoch for key, agent in launched.items()}

    def kept(self, provider: str, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return a provider's shapes with what their machines were seen to have."""
        seen = {name: had for (of, name), had in self._seen.items() if of == provider}
        return tuple(replace(s, slots=least(s.slots, seen[s.name])) if s.name in seen else s for s in shapes)

    def forget(self, provider: str) -> None:
        """Believe the provider's offers again: its settings, and with them its image, may be others now."""
        self._since[provider] = self._clock.now()
        for key in [key for key in self._seen if key[0] == provider]:
            del self._seen[key]

    def _judge(self, agent: Agent, row: Instance) -> None:
        if agent.joined_at < self._since.get(row.provider, 0.0):
            return
        key = (row.provider, row.shape.name)
        promised = least(row.shape.slots, self._seen.get(key, row.shape.slots))
        had = _lasting(agent, promised)
        if not had.covers(promised):
            self._seen[key] = least(promised, had)


def shortfall(shape: Shape, had: Slots) -> str:
    """Return in words what a machine has less than its shape promised; "" when it has all of it, but for disk."""
    if replace(had, disk=shape.slots.disk).covers(shape.slots):
        return ""
    return f"{shape.name} promised {slots.text(shape.slots)} and has {slots.text(had)}: offers promise that from now on"


def least(left: Slots, right: Slots) -> Slots:
    """Return the smaller of each kind; a GPU model that only one of them has is left out."""
    other = {gpu.model: gpu for gpu in right.gpu}
    gpu = tuple(
        replace(g, milli=min(g.milli, other[g.model].milli), memory=min(g.memory, other[g.model].memory))
        for g in left.gpu
        if g.model in other
    )
    return Slots(min(left.cpu, right.cpu), min(left.memory, right.memory), min(left.disk, right.disk), gpu)


def _lasting(agent: Agent, promised: Slots) -> Slots:
    """Return what an agent says of every machine like its own.

    Devices fail and disks fill as a machine ages: these count as it first registered only. Free disk is never
    twice the same to the byte.
    """
    had = agent.capacity
    if agent.epoch > 1:
        return replace(had, disk=promised.disk, gpu=promised.gpu)
    return replace(had, disk=had.disk // GIB * GIB if had.disk < promised.disk else promised.disk)
