"""How soon Atoll answers: `atoll --help` over bare Python, `atoll up` to ready, first output of a session."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from bench.rows import Row, main, row
from tests.e2e.installation import BIN, Installation


def seconds(argv: Sequence[str]) -> float:
    """Return how long a command takes to its end; it must succeed."""
    began = time.perf_counter()
    subprocess.run(argv, check=True, capture_output=True)
    return time.perf_counter() - began


def help_times(rounds: int) -> tuple[float, float]:
    """Return the medians of `atoll --help` and of a bare interpreter, in ms, taken in turns."""
    ours, bare = [], []
    for _ in range(rounds):
        bare.append(seconds([sys.executable, "-c", "pass"]))
        ours.append(seconds([str(BIN / "atoll"), "--help"]))
    return median(ours) * 1000, median(bare) * 1000


def first_light() -> tuple[float, float]:
    """Return the seconds from `atoll up --detach` to ready, and from `atoll run` to the first byte of output."""
    with tempfile.TemporaryDirectory(prefix="atoll-bench-") as folder, Installation(Path(folder)) as installation:
        began = time.perf_counter()
        installation.up()
        ready = time.perf_counter() - began
        began = time.perf_counter()
        with installation.begin("run", "--", "python3", "-c", "print(6*7)") as running:
            assert running.stdout is not None
            line = running.stdout.readline()
            first = time.perf_counter() - began
            running.communicate()
        if line != "42\n" or running.returncode:
            raise RuntimeError(f"the first session printed {line!r} and exited with {running.returncode}")
        return ready, first


def run(quick: bool) -> tuple[list[Row], list[str]]:
    """Measure all three (quick: fewer rounds)."""
    ours, bare = help_times(5 if quick else 25)
    lights = [first_light() for _ in range(1 if quick else 5)]
    ready, first = (median(light[k] for light in lights) for k in range(2))
    return [
        row("atoll --help", "ms", ours, peer="bare Python", theirs=bare, better="lower"),
        row("atoll --help over bare Python", "ms", ours - bare, better="lower", target=60),
        row("atoll up to ready", "s", ready, better="lower", target=3.0),
        row("first output of a session", "s", first, better="lower", target=2.0),
    ], [f"medians of {len(lights)} fresh installations; each is a new home: keys are made, the agent joins"]


if __name__ == "__main__":
    sys.exit(main("start times", run))
