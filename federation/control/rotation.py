"""Rotating the installation's CA: both are trusted until every agent has moved to the new one, and nothing is cut."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from atoll.agent import Agent
from atoll.errors import Conflict
from atoll.host.pem import blocks, pins
from atoll.states import KEPT
from federation.control.changes import Changes
from federation.control.config import Authority, ControlConfig
from federation.control.links import Links
from federation.control.liveagent import LiveAgent
from tunnel import wire
from tunnel.certificates import validity

KEEP_S = 6 * 3600.0
RENEWALS_A_SECOND = 50.0
"""Agents that are told to renew spread themselves so that about as many do so at a time."""


@dataclass(frozen=True, slots=True)
class Ca:
    """A CA: its SHA-256 in hex, from when to when it is valid (Unix seconds), and whether it signs."""

    pin: str
    since: float
    until: float
    signs: bool


@dataclass(frozen=True, slots=True)
class CaStanding:
    """The CAs that are trusted, newest first; agents that have yet to move to the newest, each with what it lacks."""

    authorities: list[Ca]
    behind: dict[str, str]


class Rotation:
    """Use cases on the CA, and what agents say of it."""

    def __init__(self, changes: Changes, links: Links, config: ControlConfig) -> None:
        self._changes = changes
        self._links = links
        self._config = config
        links.on_kept = self.kept
        self.on_change: Callable[[], Awaitable[None]] = _nothing
        """Called when other CAs are trusted, or another one signs."""
        self.others: Callable[[], Awaitable[dict[str, str]]] = _nobody
        """Returns who else has yet to move to the newest CA, each with what it lacks."""

    @property
    def _authority(self) -> Authority:
        return self._config.authority

    async def standing(self) -> CaStanding:
        """Return how the CA stands."""
        return CaStanding(_authorities(self._authority.ca_pem), await self._behind())

    async def rotate(self, by: str) -> CaStanding:
        """Begin to sign with a new CA, trust both, and tell every agent; raise `Conflict` while there are two."""
        if not self._authority.rotating:  # who did it is written down before it is done
            await self._event("rotate", f"by {by}")
        self._authority.rotate(self._changes.clock.now())
        await self._tell_all()
        return await self.standing()

    async def retire(self, by: str, *, force: bool = False) -> CaStanding:
        """Trust the new CA alone. Raises `Conflict` with the agents that have yet to move to it, unless `force`."""
        behind = await self._behind()
        if behind and not force:
            named = "; ".join(f"{name}: {lack}" for name, lack in sorted(behind.items())[:8])
            more = f"; and {len(behind) - 8} more" if len(behind) > 8 else ""
            raise Conflict(
                f"{len(behind)} agents would be locked out: {named}{more}",
                hint="wait, remove them (`atoll agent remove`), or --force: they must join anew",
            )
        if self._authority.rotating:
            await self._event("retire", f"by {by}" + (f"; locked out: {', '.join(sorted(behind))}" if behind else ""))
        self._authority.retire(self._changes.clock.now())
        await self._tell_all()
        return await self.standing()

    async def keep(self) -> None:
        """Look after the control plane's own certificate, until cancelled."""
        while True:
            self._authority.keep(self._changes.clock.now())
            await asyncio.sleep(KEEP_S)

    async def kept(self, live: LiveAgent, message: wire.Kept) -> None:
        """An agent has said what is on its disk: the certificates before that one are a clone's from now on."""
        live.authorities = frozenset(message.authorities)
        newest = self._authority.pin if self._authority.rotating and self._authority.pin in live.authorities else ""
        if message.generation or newest:
            await self._note(live, message.generation, newest)
        await self._tell(live)

    async def _event(self, what: str, text: str) -> None:
        async with self._changes.commit(f"ca.{what}") as change:
            await change.event("ca", self._authority.pin[:12], what, message=text)

    async def _note(self, live: LiveAgent, generation: int, newest: str) -> None:
        async with self._changes.commit("agent.kept") as change:
            row = await change.tx.get(Agent, live.id)
            if row is None or row.state not in KEPT:
                return
            used = generation if generation == row.generation else row.generation_used
            changed = replace(row, generation_used=max(used, row.generation_used), trusts=newest or row.trusts)
            if changed != row:
                await change.tx.update(changed)

    async def _tell_all(self) -> None:
        for agent in self._links.connected():
            if live := self._links.live(agent):
                await self._tell(live)
        await self.on_change()

    async def _tell(self, live: LiveAgent) -> None:
        """Send an agent the CAs to trust where it has others, and have it renew where it must; once a link."""
        if live.protocol < wire.TRUSTS or not live.authorities:
            return
        wanted = pins(self._authority.ca_pem)
        renew_s = None
        if self._authority.rotating:
            async with self._changes.look() as tx:
                row = await tx.get(Agent, live.id)
            if row is not None and self._uncertified(row):
                renew_s = max(1.0, len(self._links.connected()) / RENEWALS_A_SECOND)
        if live.authorities != set(wanted) or renew_s is not None:
            key = f"trust:{','.join(wanted)}:{renew_s is not None}"
            self._links.tell_once(live.id, key, wire.Trust(ca=self._authority.ca_pem, renew_s=renew_s))

    async def _behind(self) -> dict[str, str]:
        if not self._authority.rotating:
            return {}
        async with self._changes.look() as tx:
            rows = await tx.find(Agent, state=list(KEPT))
        found = {row.name: self._lack(row) for row in rows} | await self.others()
        return {name: lack for name, lack in found.items() if lack}

    def _lack(self, row: Agent) -> str:
        if row.trusts == self._authority.pin and not self._uncertified(row):
            return ""
        live = self._links.live(row.id)
        if live is None:
            return "not connected since"
        return "too old: update it" if live.protocol < wire.TRUSTS else "renews within a minute"

    def _uncertified(self, row: Agent) -> bool:
        """Say whether an agent may have no certificate of the CA that signs."""
        return row.issued_by != self._authority.pin or row.generation_used < row.generation


def _authorities(ca_pem: str) -> list[Ca]:
    found: list[Ca] = []
    for pem, pin in zip(blocks(ca_pem), pins(ca_pem), strict=True):
        since, until = validity(pem)
        found.append(Ca(pin, since, until, signs=not found))
    return found


async def _nothing() -> None:
    """Do nothing."""


async def _nobody() -> dict[str, str]:
    """Return nobody."""
    return {}
