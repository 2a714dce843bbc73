"""Many idle agents in one process, each with a certificate and connections of its own.

Their links to relays are the agent's own (`agent.relays`); those to the control plane only say Hello (`RelayLink`).
"""

import asyncio
import secrets
import ssl
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

from agent.relays import RelayLinks
from atoll.host.system import SystemChance
from bench.ends.agent import RelayLink
from bench.ends.common import say, until_input_ends
from tunnel import certificates, wire
from tunnel.dialer import TlsDialer
from tunnel.identity import AgentIdentity, Authority
from tunnel.ways import Ways

AT_ONCE = 64
"""Most dials at a time: one process is late for thousands of handshakes that as many machines would do in time."""


class Known(AgentIdentity):
    """An agent whose TLS context is made once: to make it is work that is done on its own machine in life."""

    @cache  # noqa: B019 - lives as long as the process
    def context(self, protocol: str = wire.ALPN_CONTROL) -> ssl.SSLContext:
        """Return the context."""
        return super().context(protocol)


def enrol_crowd(folder: Path, authority: Authority, names: list[str]) -> None:
    """Make the agents' identities. (As `AgentIdentity.save`, but nothing is waited for until it is on the disk.)"""
    now = time.time()
    for name in names:
        place = folder / name
        place.mkdir(parents=True)
        key = certificates.new_key()
        (place / "key.pem").write_bytes(key)
        (place / "cert.pem").write_text(authority.sign_agent(certificates.new_request(key), name, now=now))
        (place / "ca.pem").write_text(authority.ca_pem)
        (place / "agent.json").write_text(f'{{"agent": "{name}", "url": "https://127.0.0.1:1"}}')


class InTurn(TlsDialer):
    """Dials in its turn. From then on it has as long as any agent has."""

    turn = asyncio.Semaphore(AT_ONCE)

    async def dial(self, make: Callable[[], asyncio.Protocol], *, splice: bool = False) -> None:
        """Dial."""
        async with self.turn:
            await super().dial(make, splice=splice)


class Crowd:
    """Counts who is linked; says when all are, and when the first and the last is not any more."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._standing: set[str] = set()

    def changed(self, agent: str, linked: bool) -> None:
        """One is linked, or not any more."""
        before = len(self._standing)
        (self._standing.add if linked else self._standing.discard)(agent)
        now = len(self._standing)
        if now == self._count != before:
            say(all=now, at=time.monotonic())
        elif now < before and now in (0, self._count - 1):
            say(standing=now, at=time.monotonic())


async def run(folder: Path, kind: str, url: str) -> None:
    """Link all agents of a folder with the `relay` or the `control` plane there, and keep them linked."""
    identities = [Known(place) for place in sorted(folder.iterdir())]
    crowd = Crowd(len(identities))
    running: list[asyncio.Task[None]] = []

    async def all_of_them() -> None:
        say(begun=time.monotonic())
        kept: list[RelayLinks] = []
        for identity in identities:
            if kind == "relay":
                kept.append(_relay_links(identity, url, crowd))
            else:
                running.append(asyncio.ensure_future(_control_link(identity, url, crowd).run()))
        await asyncio.Event().wait()

    await until_input_ends(all_of_them())


def _relay_links(identity: AgentIdentity, url: str, crowd: Crowd) -> RelayLinks:
    known = Ways()

    def dialers(url: str) -> tuple[TlsDialer, TlsDialer]:
        return InTurn(url, identity, {}, relay=known), InTurn(url, identity, {}, data=True, relay=known)

    def told(message: wire.Message) -> None:
        assert isinstance(message, wire.RelayLinks)
        crowd.changed(identity.agent_id, bool(message.relays))

    links = RelayLinks(identity.agent_id, secrets.token_hex(8), dialers, SystemChance())
    links.attach(lambda _: None, asyncio.Event())
    links.welcomed([url], told)
    return links


def _control_link(identity: AgentIdentity, url: str, crowd: Crowd) -> RelayLink:
    def welcomed(change: int) -> None:
        crowd.changed(identity.agent_id, change > 0)

    dialers = InTurn(url, identity, {}), InTurn(url, identity, {}, data=True)
    return RelayLink(*dialers, lambda _: None, welcomed=welcomed)
