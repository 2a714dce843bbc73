"""B3: the tunnel beside what people use instead, with real processes and in turns on one machine.

User and server speak plain TCP with all contenders. Each row is the round with the median ratio. Processor seconds are
the kernel's count for the relay's processes, and the steadier measure. `bench.lanes` has throughput, echo and opens,
`bench.forwarding` the whole installation, `bench.outage` deaths, `bench.crowd` many links, `bench.wan` long ways.
"""

import signal
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.crowd import idle_rows, reconnect_rows
from bench.forwarding import Forwarding
from bench.lanes import PARALLEL, RAW, Turns, composed, rows_of
from bench.outage import dead_rows
from bench.peers.tunnels import Field, Way, peers, server
from bench.processes import LOOPBACK, Process
from bench.rows import Row, main
from bench.wan import controls, wan_rows


@dataclass(frozen=True)
class Size:
    """How much is done."""

    rounds: int
    bytes: int
    echoes: int
    opens_s: float
    kills: int


QUICK = Size(rounds=3, bytes=48 << 20, echoes=200, opens_s=0.15, kills=2)
FULL = Size(rounds=5, bytes=256 << 20, echoes=2000, opens_s=0.6, kills=6)
IDLE, RECONNECT = 5000, 2000


def run(quick: bool) -> tuple[list[Row], list[str]]:
    """Measure everything (quick: smaller, and only what `_near` does)."""
    size = QUICK if quick else FULL
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that all that was started is ended
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="atoll-bench-")))
        port = stack.enter_context(server())
        load = stack.enter_context(Process.python("bench.traffic", "load"))
        rows, notes = _near(folder, port, load, size)
        if quick:
            return rows, [*notes, "without --quick only: a relay alone, links that idle, come back and die, the WAN"]
        with ExitStack() as alone:
            killed, told = Forwarding(alone, folder / "alone", ["east"]).restart_rows(load, size.kills)
        rows += killed + idle_rows(folder / "idle", IDLE) + dead_rows(folder / "dead", port)
        rows += reconnect_rows(folder / "back", RECONNECT)
        far, said = wan_rows(folder, size.rounds)
    return rows + far, [*notes, told, "links: to a relay's own process, each agent with its own certificate", *said]


def _near(folder: Path, port: int, load: Process, size: Size) -> tuple[list[Row], list[str]]:
    """Measure all lanes beside their peers on loopback, then the death of a relay."""
    with ExitStack() as stack:
        forwarding = Forwarding(stack, folder / "whole")
        with ExitStack() as started:
            field = Field(folder, port)
            others, absent = peers(field, started)
            ways = [Way(RAW, LOOPBACK.host, port), *composed(field, started), *others, *forwarding.ways()]
            turns = Turns(load, ways, size.bytes, size.echoes, size.opens_s)
            for _ in range(size.rounds):
                turns.round()
        killed, told = forwarding.kill_rows(load, size.kills)
    return rows_of(turns.values) + killed, [
        f"{size.rounds} rounds in turns, {size.bytes >> 20} MiB each; opens: {PARALLEL} at a time, all on this machine",
        f"not on this machine: {', '.join(absent) or 'no peer'}",
        controls(),
        "relay, blind and direct: `atoll forward` in a whole installation, a process more than most peers have",
        told,
    ]


if __name__ == "__main__":
    sys.exit(main("the tunnel beside its peers", run))
