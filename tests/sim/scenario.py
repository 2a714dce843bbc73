"""What a seed means: which sessions are submitted, and which faults strike when."""

import random
from dataclasses import dataclass, field, replace
from typing import Any

from atoll.session import Checkpoint, CostLimits, Lifetime, Retry, SessionSpec
from atoll.slots import GIB, Request
from providers.sim.faults import Fault, parse_faults
from tests.sim.runtime import command

CHAOS_S = 240.0
"""Faults strike for this long; afterwards everything must come right by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One session a user submits at `at`, and stops at `stop_at` if that is set (seconds after the start)."""

    at: float
    spec: SessionSpec
    stop_at: float | None = None


@dataclass(slots=True, kw_only=True)
class Scenario:
    """Everything that is drawn from the seed before the run.

    `more` are further blows by time: what other people do to machines. `moves` are moves that users ask for, and
    preemptions. `budget` is what clouds may cost in all, in micro-units, until it is calm. `cold` are pools by
    provider, `limits` what each account may have. At the end the groups are closed as `closing` says, so that no cold
    machine is left.
    """

    orders: list[Order]
    cloud_faults: dict[str, tuple[Fault, ...]]
    crash_chance: float
    crashes: int
    kills: list[float]
    links: list[tuple[float, str]]
    agents: list[float]
    journal_crashes: int
    lost_joins: int
    more: list[tuple[float, str]]
    moves: list[tuple[float, str]]
    budget: int | None
    cold: dict[str, int]
    limits: dict[str, dict[str, int]]
    closing: str
    providers: tuple[str, ...] = field(default=("cheap", "dear"))


def draw(seed: int) -> Scenario:
    """Return the scenario of a seed."""
    dice = random.Random(f"scenario {seed}")
    chaos = [dice.uniform(5.0, CHAOS_S) for _ in range(dice.randrange(0, 9))]
    return Scenario(
        orders=sorted(
            [
                *(_order(dice, n) for n in range(dice.randrange(3, 9))),
                *_late(random.Random(f"late {seed}")),
                *_movable(random.Random(f"movable {seed}")),
                *_flapping(random.Random(f"flapping {seed}")),
            ],
            key=lambda order: order.at,
        ),
        cloud_faults={
            name: parse_faults(_cloud(dice, name) | _quota(seed, name), "faults") for name in ("cheap", "dear")
        },
        crash_chance=dice.choice((0.0, 0.05, 0.3)),
        crashes=dice.randrange(0, 4),
        kills=[dice.uniform(1.0, CHAOS_S) for _ in range(dice.choice((0, 0, 1, 2)))],
        links=[
            *((at, dice.choice(("cut", "cut", "reset", "refuse"))) for at in chaos),
            *_mass_losses(random.Random(f"mass loss {seed}")),
        ],
        agents=[dice.uniform(5.0, CHAOS_S) for _ in range(dice.choice((0, 0, 1, 3)))],
        journal_crashes=dice.choice((0, 0, 1, 2)),
        lost_joins=dice.choice((0, 0, 0, 1)),
        moves=_moves(random.Random(f"moves {seed}")),
        budget=_budget(random.Random(f"budget {seed}")),
        **_more(random.Random(f"more {seed}")),
    )


def _more(dice: random.Random) -> dict[str, Any]:
    """Draw from dice of their own what came later, so that what older seeds mean changes as little as it can."""
    blows = ("remove", "switch off", "leave", "orphan")
    return {
        "more": [(dice.uniform(5.0, CHAOS_S), dice.choice(blows)) for _ in range(dice.choice((0, 2, 4, 6)))],
        "cold": {"cheap": 0, "dear": max(dice.choice((0, 1)) for _ in range(2))},  # spot machines never become cold
        "limits": {"dear": {"cpu": dice.choice((8, 12))} if dice.random() < 0.3 else {}},
        "closing": dice.choice(("drain", "now")),
    }


def _late(dice: random.Random) -> list[Order]:
    """Sessions that come when machines may have become cold."""
    late = [_order(dice, 100 + n) for n in range(dice.choice((0, 2, 3)))]
    return [replace(order, at=150.0 + order.at * 0.7, stop_at=None) for order in late]


def _movable(dice: random.Random) -> list[Order]:
    """Sessions that take checkpoints, or may be preempted, or both."""
    return [_able(dice, _order(dice, 200 + n)) for n in range(dice.choice((0, 2, 3, 4)))]


def _able(dice: random.Random, order: Order) -> Order:
    seconds, code = dice.choice((40.0, 90.0)), int(order.spec.command[2])
    spec = replace(
        order.spec,
        command=command(seconds, code, at_signal=dice.choice(("saves", "saves", "saves", "heedless", ""))),
        checkpoint=Checkpoint(grace=dice.choice((1.0, 5.0, 20.0)), every=0.0) if dice.random() < 0.85 else None,
        preemptible=dice.random() < 0.5,
    )
    return replace(order, at=order.at * 0.6, spec=spec)


def _flapping(dice: random.Random) -> list[Order]:
    """Demand that comes and goes: waves of short sessions, about as far apart as it takes to scale in."""
    if dice.random() < 0.6:
        return []
    apart, number = dice.choice((15.0, 30.0, 45.0)), 300
    waves = []
    for wave in range(dice.randrange(2, 5)):
        for _ in range(dice.randrange(1, 4)):
            order = _order(dice, number)
            spec = replace(
                order.spec, command=command(dice.choice((2.0, 5.0)), 0), nodes=1, priority=dice.choice((0, 5))
            )
            waves.append(Order(at=20.0 + wave * apart, spec=spec))
            number += 1
    return waves


def _mass_losses(dice: random.Random) -> list[tuple[float, str]]:
    return [(dice.uniform(20.0, CHAOS_S), "mass loss")] if dice.random() < 0.3 else []


def _budget(dice: random.Random) -> int | None:
    return dice.choice((2_000, 8_000, 30_000)) if dice.random() < 0.25 else None


def _moves(dice: random.Random) -> list[tuple[float, str]]:
    return [
        (dice.uniform(5.0, CHAOS_S), dice.choice(("move", "move", "preempt"))) for _ in range(dice.randrange(5, 40))
    ]


def _quota(seed: int, name: str) -> dict[str, object]:
    dice = random.Random(f"quota {name} {seed}")
    return {"quota": {"times": dice.randrange(1, 3)}} if dice.random() < 0.4 else {}


def _order(dice: random.Random, number: int) -> Order:
    seconds = dice.choice((3.0, 15.0, 40.0, 90.0))
    exclusive = dice.random() < 0.3
    protect = dice.random() < 0.2
    at = dice.uniform(0.0, 120.0)
    spec = SessionSpec(
        name=f"job-{number}",
        command=command(seconds, dice.choice((0, 0, 0, 3, 41)), stubborn=dice.random() < 0.2),
        resources=Request(cpu=dice.choice((500, 1000, 2000, 4000)), memory=dice.choice((1, 2, 4)) * GIB),
        nodes=dice.choice((1, 1, 1, 1, 2)),
        cost=CostLimits(spot=not protect),
        lifetime=Lifetime(protect=protect, grace=dice.choice((1.0, 5.0)), expected=seconds),
        retry=Retry(max=1000, lost=exclusive, lease=dice.choice((30.0, 60.0))),
    )
    stop_at = at + dice.uniform(0.0, 100.0) if dice.random() < 0.15 else None
    return Order(at=at, spec=spec, stop_at=stop_at)


def _cloud(dice: random.Random, name: str) -> dict[str, object]:
    """Return fault rules for one cloud; each kind is in with its own chance."""
    rules: dict[str, object] = {
        "no_capacity": {"times": dice.randrange(1, 5)},
        "throttle": {"times": dice.randrange(1, 6), "retry_after": dice.uniform(0.5, 8.0)},
        "lost_reply": [
            {"times": dice.randrange(0, 3), "after_effect": True},
            {"times": dice.randrange(0, 2), "after_effect": False},
        ],
        "slow_boot": {"times": dice.randrange(1, 3), "extra_s": dice.uniform(10.0, 120.0)},
        "never_joins": {"times": 1},
        "terminate": [{"times": dice.randrange(1, 3)}, {"times": dice.randrange(1, 3), "silent": True}],
        "list_lag": {"lag_s": dice.uniform(1.0, 40.0)},
    }
    if name == "cheap":
        rules["reclaim"] = {"times": 2, "after_s": dice.uniform(10.0, 80.0), "notice_s": dice.choice((0.0, 5.0, 20.0))}
    return {kind: rule for kind, rule in rules.items() if dice.random() < 0.4}
