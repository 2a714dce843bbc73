"""One seed, one run: play it, check it, and say what happened. `python -m tests.sim.simulate SEED…` tells the story."""

import hashlib
import logging
import sys
from collections import Counter
from dataclasses import dataclass

import structlog

from tests.sim.checks import Checks
from tests.sim.loop import SimLoop, run
from tests.sim.scenario import draw
from tests.sim.world import World

LONGEST_S = 6 * 3600.0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a seed led to. `trace` is the hash of all that happened, `story` its last lines for a person."""

    seed: int
    violations: list[str]
    faults: Counter[str]
    trace: str
    steps: int
    story: list[str]


def simulate(seed: int) -> Outcome:
    """Play a seed. Errors that the shells logged count as violations: there is no reason for any."""
    worlds: list[World] = []

    async def main(loop: SimLoop) -> None:
        world = World(loop, seed, draw(seed))
        worlds.append(world)
        checks = Checks(world)
        checks.look()
        await world.host.spawn(world.play(), "play")
        checks.finish()
        world.ledger.faults["steps"] = loop.steps

    with structlog.testing.capture_logs() as logged:
        broken = ""
        try:
            run(seed, main, until=LONGEST_S)
        except (AssertionError, RuntimeError, TimeoutError) as error:
            broken = f"run broke: {error!r}, caused by {error.__cause__!r}"
    world = worlds[0]
    ledger = world.ledger
    violations = [*ledger.violations, *([broken] if broken else [])]
    violations += [f"logged: {entry}" for entry in logged if entry.get("log_level") == "error"]
    lines = [*ledger.trace, *(f"{e.at:.6f} {e.kind} {e.key} {e.state} {e.reason}" for e in world.store._memory.events)]
    lines.sort()
    return Outcome(
        seed=seed,
        violations=violations,
        faults=ledger.faults,
        trace=hashlib.sha256("\n".join(lines).encode()).hexdigest(),
        steps=ledger.faults.pop("steps", 0),
        story=lines,
    )


def main(argv: list[str]) -> int:
    """Print the story of each seed; exit with 1 when one has a violation."""
    logging.basicConfig(level=logging.CRITICAL)
    failed = 0
    for seed in argv:
        outcome = simulate(int(seed))
        failed += bool(outcome.violations)
        print(*outcome.story, sep="\n")
        print(*outcome.violations, sep="\n")
        print(dict(outcome.faults), outcome.trace, outcome.steps)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
