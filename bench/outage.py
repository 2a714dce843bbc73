"""What an outage costs: bytes that are echoed through it, and when the other end of a link notices one.

`bench.forwarding` kills relays.
"""

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench.ends.common import enrol
from bench.lanes import MB, agent_end, relay_end
from bench.processes import LOOPBACK, Process
from bench.rows import Row, row

RATE = 20 * MB
"""Bytes a second that are echoed while relays are killed."""
SETTLE_S = 0.7
"""Between a relay's return and the next kill."""


class Pair:
    """One relay, and one agent that is linked with it."""

    def __init__(self, stack: ExitStack, folder: Path, server: int) -> None:
        enrol(folder)
        self.relay = stack.enter_context(relay_end(folder))
        self.agent = stack.enter_context(agent_end(folder, server, self.relay.answer()["port"]))

    def relinked(self) -> None:
        """Wait until the agent has been welcomed again."""
        while not self.agent.answer().get("welcomed"):
            pass


@contextmanager
def echoing(load: Process, port: int, answer: dict[str, Any]) -> Iterator[None]:
    """Have bytes echoed meanwhile, and fill `answer` with what the load says of them."""
    load.tell({"do": "digest", "host": LOOPBACK.host, "port": port, "rate": RATE})
    yield
    time.sleep(1.0)
    load.tell({})
    answer.update(load.answer())


def kill_rows(what: str, killed: list[float], answer: dict[str, Any], bound: float | None) -> tuple[list[Row], str]:
    """Return the rows and a line for a relay that was killed at these times under an echo."""
    stalls = [_stall(at, answer["gaps"]) for at in killed]
    told = ", ".join(f"{one:.2f}" for one in stalls)
    return [
        row(f"{what}: digests equal", "of 1", float(answer["equal"]), target=1),
        row(f"{what}: longest stall", "s", max(stalls), better="lower", target=bound),
    ], f"{what}: {answer['bytes'] / MB:.0f} MB echoed over {len(killed)} kills, stalls of {told} s"


def dead_rows(folder: Path, server: int) -> list[Row]:
    """Stop (not end) either end, and see when the other notices."""
    with ExitStack() as stack:
        pair = Pair(stack, folder, server)
        times = []
        for stopped, other, key in ((pair.agent, pair.relay, "lost"), (pair.relay, pair.agent, "at")):
            began = time.monotonic()
            stopped.signal(signal.SIGSTOP)
            times.append(other.answer()[key] - began)
            stopped.signal(signal.SIGCONT)
            if stopped is pair.agent:
                pair.relinked()
    names = ("the agent, noticed by the relay", "the relay, noticed by the agent")
    return [row(f"dead link: {n}", "s", t, better="lower", target=5) for n, t in zip(names, times, strict=True)]


def _stall(killed: float, gaps: list[list[float]]) -> float:
    """Return the longest gap that began about when a relay was killed."""
    return max((end - begin for begin, end in gaps if killed - 0.2 < begin < killed + 0.3), default=0.0)
