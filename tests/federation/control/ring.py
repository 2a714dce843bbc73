"""A control plane over fakes, with agents that join through real tokens and links in memory."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import count
from typing import TypeVar

from atoll.clock import Clock
from atoll.group import Group, GroupKind, Orphans, Pools, Provider, ScaleDown, Size
from atoll.host.system import SystemChance, SystemClock
from atoll.session import Session, SessionSpec
from atoll.slots import Slots
from federation.control.config import ControlConfig
from federation.control.control import Control
from federation.control.scheduling import Aside
from federation.control.steps import Hook, Steps
from federation.store.bus import LocalBus
from providers.port import Intent
from tests.fakes.agent import ScriptedAgent
from tests.fakes.authority import FakeAuthority
from tests.fakes.cloud import MemoryCloud
from tests.fakes.store import MemoryLogs, MemoryStore
from tests.sim.clocks import SimClock
from tests.tunnel.virtual import VirtualLoop
from tunnel import wire
from tunnel.jointoken import JoinToken
from tunnel.memory import MemoryNetwork

T = TypeVar("T")


CONFIG = ControlConfig(
    authority=FakeAuthority(),
    agent_url="https://control",
    secret_key=b"k" * 32,
    schedule_s=0.05,
    home_s=0.1,
    launch_s=0.05,
    observe_s=0.05,
    sweep_s=0.3,
    sweep_first_s=0.1,
    watch_s=0.05,
    lost_after_s=0.2,
    settle_s=0.4,
    backoff_s=0.2,
    backoff_max_s=1.0,
    absent_after_s=0.2,
    appears_s=0.2,
)


class TickingClock(SimClock):
    """A virtual loop's clock on which no two moments are the same."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._ticks = count()

    def now(self) -> float:
        return super().now() + next(self._ticks) * 1e-6


def own_clock() -> Clock:
    """Return the clock of the loop that this runs on."""
    loop = asyncio.get_running_loop()
    return TickingClock(loop) if isinstance(loop, VirtualLoop) else SystemClock()


async def at_once(call: Callable[..., T], *args: object) -> T:
    return call(*args)


class Ring:
    """The control plane, its network, its cloud, and helpers that wait for what must come."""

    def __init__(
        self,
        hook: Hook | None = None,
        config: ControlConfig = CONFIG,
        aside: Aside = at_once,
        clock: Clock | None = None,
    ) -> None:
        self.clock = clock or own_clock()
        self.store = MemoryStore()
        self.logs = MemoryLogs()
        self.network = MemoryNetwork()
        self.cloud = MemoryCloud()
        self.cloud.booted = self._boot
        self.steps = Steps(hook)
        self.config = config
        self.aside = aside
        self.agents: dict[str, ScriptedAgent] = {}
        self._boots: list[asyncio.Task[None]] = []
        self.boots = True
        self.shows: Callable[[Slots], Slots] = lambda promised: promised
        self.accounts: list[Provider] = []
        self.control = self._new()

    def _new(self) -> Control:
        return Control(
            self.store,
            self.logs,
            LocalBus(),
            self.clock,
            SystemChance(),
            self._drive,
            self.steps,
            self.config,
            aside=self.aside,
        )

    def _drive(self, provider: Provider) -> MemoryCloud:
        self.accounts.append(provider)
        return self.cloud

    async def start(self) -> None:
        self.network.listen(lambda _agent: self.control.links.accept())
        await self.control.start()

    async def restart(self) -> None:
        """Stop without ceremony and come back over the same store."""
        await self.control.stop()
        self.store = self.store.restarted()
        self.control = self._new()
        await self.start()

    async def agent(
        self, *, group: str = "hall", capacity: Slots | None = None, protocol: int = wire.PROTOCOL, site: str = "here"
    ) -> ScriptedAgent:
        """Join an agent to a fixed group."""
        _, secret = await self.control.tokens.create_join(site=site, group=group)
        return await self._join(secret, group, capacity, protocol)

    async def elastic(
        self,
        *,
        size: Size | None = None,
        idle_s: float = 0.2,
        pools: Pools | None = None,
        labels: dict[str, str] | None = None,
        orphans: Orphans = Orphans.TERMINATE,
    ) -> Group:
        """Add a provider with an elastic group."""
        await self.control.providers.apply(Provider(name="cloud", kind="memory", orphans=orphans))
        group = Group(
            name="burst",
            site="far",
            kind=GroupKind.ELASTIC,
            provider="cloud",
            size=size or Size(max=3),
            pools=pools or Pools(),
            scale_down=ScaleDown(idle_s=idle_s, cooldown_s=0.1),
            boot_s=5.0,
            labels=labels or {},
        )
        return await self.control.groups.create(group)

    async def submit(self, *, count: int = 1, **fields: object) -> list[Session]:
        spec = replace(SessionSpec(command=("true",)), **fields)  # type: ignore[arg-type]
        return await self.control.sessions.submit(spec, project="default", owner="me", count=count)

    async def session(self, key: str) -> Session:
        return await self.control.sessions.get("default", key)

    async def until_state(self, key: str, state: str) -> Session:
        async def there() -> Session | None:
            row = await self.session(key)
            return row if row.state == state else None

        return await until(there, f"{key} {state}")

    def run_of(self, row: Session, rank: int = 0) -> tuple[ScriptedAgent, str]:
        """Return the agent and run id of a member."""
        return self.agents[row.members[rank].agent], f"{row.id}.{row.attempt}.{rank}"

    async def finish(self, key: str, code: int | None = 0) -> Session:
        """Let a session run, end with `code`, and be done."""
        row = await self.until_state(key, "running")
        for rank in range(len(row.members)):
            agent, run = self.run_of(row, rank)
            agent.end(run, code)
        return row

    async def close(self) -> None:
        for task in self._boots:
            task.cancel()
        await self.control.stop()
        for agent in self.agents.values():
            if agent.link:
                agent.link.close("test over")

    async def _join(
        self, secret: str, name: str, capacity: Slots | None, protocol: int = wire.PROTOCOL
    ) -> ScriptedAgent:
        joined = await self.control.tokens.join(secret, f"key of {name}", name, {})
        agent = ScriptedAgent(self.network.dialer(joined.agent.id), capacity=capacity, protocol=protocol)
        self.agents[joined.agent.id] = agent
        await agent.dial()

        async def registered() -> bool:
            return bool(agent.got)

        await until(registered, "registered")
        return agent

    def _boot(self, intent: Intent) -> None:
        if self.boots:
            self._boots.append(asyncio.get_running_loop().create_task(self._booting(intent)))

    async def _booting(self, intent: Intent) -> None:
        text = intent.user_data.split("ATOLL_JOIN_TOKEN=")[1].split()[0]
        await asyncio.sleep(0.02)
        await self._join(JoinToken.parse(text).secret, intent.id, self.shows(intent.shape.slots))


async def until(what: Callable[[], Awaitable[T | None]], story: str, *, within: float = 5.0) -> T:
    """Wait for a truthy answer, at most `within` seconds."""
    deadline = asyncio.get_running_loop().time() + within
    while True:
        answer = await what()
        if answer:
            return answer
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"never: {story}")
        await asyncio.sleep(0.01)


@asynccontextmanager
async def ring(hook: Hook | None = None, aside: Aside = at_once, clock: Clock | None = None) -> AsyncIterator[Ring]:
    """A started ring, closed at the end."""
    made = Ring(hook, aside=aside, clock=clock)
    await made.start()
    try:
        yield made
    finally:
        await made.close()
