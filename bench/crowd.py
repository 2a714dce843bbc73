"""Thousands of links to one relay: what they take while they idle, and how soon all are back after its death."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench.ends.common import enrol
from bench.lanes import MB, relay_end
from bench.processes import LOOPBACK, Process
from bench.rows import Row, row
from tests.e2e.processes import pss


@contextmanager
def crowded(folder: Path, count: int) -> Iterator[tuple[Process, Process, dict[str, Any], int]]:
    """Have a relay with so many idle links: its process, the crowd's, the relay's ports, and its PSS before."""
    with ExitStack() as stack:
        enrol(folder)
        relay = stack.enter_context(relay_end(folder))
        doors = relay.answer()
        time.sleep(0.5)
        before = pss([relay.pid])
        url = f"https://{LOOPBACK.host}:{doors['port']}"
        crowd = stack.enter_context(Process.python("bench.ends", "crowd", folder, count, url))
        while crowd.answer().get("all") != count:
            pass
        yield relay, crowd, doors, before


def idle_rows(folder: Path, count: int) -> list[Row]:
    """Measure the relay's memory and processor time with idle links."""
    with crowded(folder, count) as (relay, _, _, before):
        time.sleep(4.0)  # two pings of each
        after, cpu = pss([relay.pid]), relay.cpu()
        time.sleep(3.0)
        cpu = (relay.cpu() - cpu) / 3
    return [
        row(f"relay with {count} idle links (PSS)", "MB", after / MB, better="lower", target=300),
        row("one idle link (PSS)", "KB", (after - before) / count / 1000, better="lower"),
        row(f"relay CPU with {count} idle links", "% of a core", cpu * 100, better="lower"),
    ]


def reconnect_rows(folder: Path, count: int) -> list[Row]:
    """Kill the relay under many links, start it again, and see when all are back."""
    with crowded(folder, count) as (relay, crowd, doors, _), ExitStack() as stack:
        killed = time.monotonic()
        relay.kill()
        again = stack.enter_context(relay_end(folder, doors["port"]))
        again.answer()
        while (said := crowd.answer()).get("all") != count:
            pass
        return [row(f"{count} agents back after a relay's restart", "s", said["at"] - killed, better="lower", target=8)]
