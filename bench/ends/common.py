"""What all ends share: the line of JSON, the installation's identities, the end with standard input."""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

from tunnel.identity import AgentIdentity, Authority, make_key_and_csr

AGENT = "bench-agent"
RUN = "s-1.1.0"

Make: TypeAlias = Callable[[], asyncio.Protocol]


def say(**what: object) -> None:
    """Print a line."""
    print(json.dumps(what), flush=True)


def enrol(folder: Path) -> Authority:
    """Make the installation's authority and the agent's identity."""
    authority = Authority.load_or_create(folder / "authority", now=time.time())
    certificate = authority.sign_agent(make_key_and_csr(folder / AGENT), AGENT, now=time.time())
    url, ca = "https://127.0.0.1:1", authority.ca_pem
    AgentIdentity.save(folder / AGENT, agent_id=AGENT, url=url, ca_pem=ca, certificate_pem=certificate)
    return authority


async def until_input_ends(work: Awaitable[None]) -> None:
    """Work until standard input ends."""
    task = asyncio.ensure_future(work)
    read = asyncio.ensure_future(asyncio.to_thread(sys.stdin.read))
    await asyncio.wait([task, read], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
