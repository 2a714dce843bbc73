"""Small setups and jobs for the simulator's tests: money in units, times in seconds."""

from collections.abc import Sequence
from typing import Any

from atoll.group import Group, GroupKind, ScaleDown, Size
from atoll.instance import Shape
from atoll.money import micros
from atoll.session import Checkpoint
from atoll.site import Site
from atoll.slots import GIB, Request, Slots
from federation.simulate.model import Job, Machine, Setup


def job(name: str, at: float, duration_s: float, cpu: float = 1, **rest: Any) -> Job:
    return Job(id=name, at=at, duration_s=duration_s, request=Request(round(cpu * 1000), round(cpu * GIB)), **rest)


def shape(name: str = "c2", cpu: float = 2, price: float = 0.2, *, start_s: float = 60.0, **rest: Any) -> Shape:
    slots = Slots(round(cpu * 1000), round(4 * cpu * GIB))
    return Shape(provider="cloud", name=name, zone="z", slots=slots, price=micros(price), start_s=start_s, **rest)


def setup(
    nodes: int = 1, *shapes: Shape, cpu: float = 2, price: float = 0.06, largest: int = 100, idle_s: float = 30.0
) -> Setup:
    burst = Group(
        name="burst",
        site="cloud",
        kind=GroupKind.ELASTIC,
        provider="cloud",
        size=Size(max=largest),
        scale_down=ScaleDown(idle_s=idle_s, cooldown_s=0.0),
    )
    return Setup(
        sites=(Site(name="hall", price=micros(price)), Site(name="cloud")),
        groups=(Group(name="own", site="hall"), burst),
        machines=tuple(
            Machine(id=f"n-{n}", site="hall", group="own", capacity=Slots(round(cpu * 1000), round(4 * cpu * GIB)))
            for n in range(nodes)
        ),
        shapes={"cloud": shapes},
    )


def own_only(nodes: int, cpu: float = 2) -> Setup:
    full = setup(nodes, cpu=cpu)
    return Setup(sites=full.sites[:1], groups=full.groups[:1], machines=full.machines)


def checkpoint(lost: float = 60.0) -> Checkpoint:
    return Checkpoint(lost=lost)


def waits(runs: Sequence[Any]) -> dict[str, float]:
    return {run.job: run.waited_s for run in runs}
