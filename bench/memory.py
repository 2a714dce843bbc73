"""Memory of an idle installation: PSS of every process of the control plane and of the connected agent."""

import sys
import tempfile
import time
from pathlib import Path

from bench.rows import Row, main, row
from tests.e2e.installation import Installation
from tests.e2e.processes import family, of_home, pss

MB = 1_000_000
IDLE_S, QUICK_IDLE_S = 30.0, 5.0


def idle(seconds: float) -> tuple[int, int, int]:
    """Return the bytes of all processes, of the agent's, and their number, after a session and an idle time."""
    with tempfile.TemporaryDirectory(prefix="atoll-bench-") as folder, Installation(Path(folder)) as installation:
        installation.up()
        installation.atoll("run", "--", "true")
        time.sleep(seconds)
        control, agent = installation.pid("control"), installation.pid("agent")
        agents = family(agent)
        everything = {*family(control), *agents, *of_home(installation.home)}
        return pss(sorted(everything)), pss(agents), len(everything)


def run(quick: bool) -> tuple[list[Row], list[str]]:
    """Measure once (quick: after a shorter idle time)."""
    seconds = QUICK_IDLE_S if quick else IDLE_S
    together, agent, count = idle(seconds)
    return [
        row("control plane and agent, idle", "MB", together / MB, better="lower", target=140),
        row("agent, idle", "MB", agent / MB, better="lower", target=50),
    ], [f"PSS after one session and {seconds:g} s of rest, {count} processes, MB of 10^6 bytes"]


if __name__ == "__main__":
    sys.exit(main("memory of an idle installation", run))
