"""Hundreds of seeded fault schedules over the real control plane and real agent shells: no invariant may break."""

from collections import Counter
from pathlib import Path

import pytest

from tests.sim.simulate import simulate

SEEDS = 1000
BLOCK = 50
KINDS = frozenset(
    {
        "agent crash",
        "budget",
        "came home",
        "held by budget",
        "made room",
        "mass loss",
        "agent left",
        "cloud list_lag",
        "cloud lost_reply",
        "cloud never_joins",
        "cloud no_capacity",
        "cloud quota",
        "cloud reclaim",
        "cloud slow_boot",
        "cloud terminate",
        "cloud throttle",
        "cold start",
        "cold stop",
        "control killed",
        "crash after step",
        "crash before step",
        "crash in journal",
        "link cut",
        "link refuse",
        "link reset",
        "lost join reply",
        "machine: remove",
        "machine: switch off",
        "move",
        "moved",
        "not moved",
        "orphan",
        "preempt",
    }
)
"""Every fault kind; a block of seeds in which one of them never struck has tested nothing of it, and fails."""


def failing_seeds() -> list[int]:
    """Return the seeds that once failed."""
    lines = Path(__file__).with_name("failing_seeds.txt").read_text().splitlines()
    return [int(line.split()[0]) for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("seed", failing_seeds())
def test_seeds_that_once_failed(seed: int) -> None:
    assert simulate(seed).violations == []


@pytest.mark.parametrize("block", range(SEEDS // BLOCK))
def test_no_seed_breaks_an_invariant(block: int) -> None:
    faults: Counter[str] = Counter()
    broken: dict[int, list[str]] = {}
    for seed in range(1000 + block * BLOCK, 1000 + (block + 1) * BLOCK):
        outcome = simulate(seed)
        faults += outcome.faults
        if outcome.violations:
            broken[seed] = outcome.violations[:5]
    assert broken == {}, "replay with: python -m tests.sim.simulate SEED; then add it to failing_seeds.txt"
    assert KINDS - set(faults) == set(), f"some faults never struck: {faults}"


def test_one_seed_is_one_trace() -> None:
    """30 replays in one process: nothing may depend on addresses, hash seeds or what ran before."""
    assert len({simulate(1007).trace for _ in range(30)}) == 1


def test_other_seeds_are_other_traces() -> None:
    assert len({simulate(seed).trace for seed in range(1000, 1010)}) == 10
