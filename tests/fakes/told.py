"""Answers that a fake control plane gives to every question of their kind."""

from dataclasses import dataclass, field
from typing import Any

from atoll.event import Event
from atoll.money import micros
from atoll.offer import Decision
from atoll.plan import Move, Note, Step


@dataclass
class FakeWhy:
    kind: str
    id: str
    name: str
    state: str
    reason: str = "PLACED"
    message: str = "it is so"
    hint: str = ""
    decisions: list[tuple[float, Decision]] = field(default_factory=list)
    steps: list[tuple[float, str, Step | Note | Move]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)


@dataclass
class FakeUsage:
    since: float
    rows: list[Any]
    currency: str = "USD"
    session_cost: int = micros(0.5)
    instance_cost: int = micros(1.25)
    on_demand_cost: int = micros(2.0)
    simulated: bool = True


@dataclass
class FakeUsageRow:
    site: str = "local"
    group: str = "local"
    sessions: int = 1
    session_cost: int = micros(0.5)
    instance_cost: int = micros(1.25)
    on_demand_cost: int = micros(2.0)
    instances: int = 1
    live: int = 0
