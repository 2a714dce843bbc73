"""Relays and one agent's links to them over the memory network: each relay a network of its own."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from agent.relays import RelayLinks
from atoll.host.system import SystemClock
from federation.relay.agentlinks import AgentLinks
from federation.relay.home import RelayHome
from federation.relay.terms import Terms
from tests.tunnel.ends import Echo, SeededChance
from tunnel import wire
from tunnel.dialer import Dialer
from tunnel.memory import MemoryNetwork
from tunnel.relay import Relay

AGENT = "a-1"
Serve = Callable[[wire.OpenStream], asyncio.Protocol | None]


class MemoryRelay:
    """The parts of a relay that agents see."""

    def __init__(self, folder: Path) -> None:
        self.network = MemoryNetwork(latency=0.005)
        self.relay = Relay(SeededChance())
        self.terms = Terms(RelayHome(folder), SystemClock())
        self.agents = AgentLinks(self.relay, self.terms.refuses)
        self.terms.on_refused = self.relay.revoke
        self.listen()

    def listen(self) -> None:
        """Serve dials."""
        self.network.listen(lambda _: self.agents.accept(), self.relay.accept)

    def kill(self) -> None:
        """The process dies, and comes back empty when it listens again."""
        self.network.crash_control()
        self.relay = Relay(SeededChance())
        self.agents = AgentLinks(self.relay, self.terms.refuses)

    @property
    def up(self) -> bool:
        """Whether the agent is linked here."""
        return AGENT in self.agents.agents()


class Counted:
    """A dialer that notes its dials."""

    def __init__(self, dialer: Dialer, dials: list[str], url: str) -> None:
        self._dialer = dialer
        self._dials = dials
        self._url = url

    async def dial(self, make: Callable[[], asyncio.Protocol], *, splice: bool = False) -> None:
        self._dials.append(self._url)
        await self._dialer.dial(make, splice=splice)


class Region:
    """Some relays, and one agent."""

    def __init__(
        self,
        folder: Path,
        count: int,
        serve: Serve = lambda _: Echo(),
        awaited: asyncio.Event | None = None,
    ) -> None:
        self.awaited = awaited or asyncio.Event()
        self.dials: list[str] = []
        self.relays = {f"https://r{number}": MemoryRelay(folder / str(number)) for number in range(count)}
        self.told: list[list[str]] = []
        self.agent = self.process("b1", serve)

    def process(self, boot: str, serve: Serve = lambda _: Echo()) -> RelayLinks:
        """Return the links of one process of the agent."""
        links = RelayLinks(AGENT, boot, self.dialers, SeededChance())
        links.attach(serve, self.awaited)
        return links

    def dialers(self, url: str) -> tuple[Dialer, Dialer]:
        """Return how a relay is dialled."""
        if url not in self.relays:
            raise OSError(f"{url!r} is no URL")
        network = self.relays[url].network
        return Counted(network.dialer(AGENT), self.dials, url), network.dialer(AGENT, data=True)

    def send(self, message: wire.Message) -> None:
        """Take what the agent tells its control plane."""
        assert isinstance(message, wire.RelayLinks)
        self.told.append(message.relays)

    @property
    def linked(self) -> list[str]:
        """URLs of the relays that have the agent."""
        return [url for url, relay in self.relays.items() if relay.up]

    async def close(self) -> None:
        """End everything."""
        await self.agent.close()
        await asyncio.sleep(0.1)
        for relay in self.relays.values():
            relay.relay.close("over")
        await asyncio.sleep(0.1)
