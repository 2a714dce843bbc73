"""Many links of idle agents in one process. They share a certificate and go by their boot ids."""

import asyncio
import ssl
import time
from functools import cache
from pathlib import Path

from bench.ends.agent import RelayLink
from bench.ends.common import CROWD, say, until_input_ends
from tunnel.identity import AgentIdentity

_AT_ONCE = 64


class OneContext(AgentIdentity):
    """The crowd's identity: its TLS context is made once for all of its agents."""

    @cache  # noqa: B019 - lives as long as the process
    def context(self) -> ssl.SSLContext:
        """Return the context."""
        return super().context()


async def run(folder: Path, count: int, url: str) -> None:
    """Have so many links; say when all are welcomed, and when they are again after a loss."""
    identity, turn, standing = OneContext(folder / CROWD), asyncio.Semaphore(_AT_ONCE), 0

    def welcomed(change: int) -> None:
        nonlocal standing
        standing += change
        if change < 0 and standing in (0, count - 1):
            say(standing=standing, at=time.monotonic())
        if change > 0 and standing == count:
            say(all=count, at=time.monotonic())

    links = [RelayLink(identity, url, lambda _: None, welcomed=welcomed, turn=turn) for _ in range(count)]

    async def all_of_them() -> None:
        await asyncio.gather(*(link.run() for link in links))

    await until_input_ends(all_of_them())
