"""The control plane's core, put together: use cases and reconcilers over the ports."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from atoll import __version__
from atoll.agent import Agent
from atoll.clock import Chance, Clock
from atoll.group import Provider
from atoll.ids import new_id
from atoll.instance import Instance
from atoll.offer import Decision
from atoll.session import Session, SessionSpec
from atoll.site import Site
from atoll.states import KEPT, WAITING, InstanceState
from federation.control.adoption import Adoption
from federation.control.agents import Agents
from federation.control.approvals import Approvals
from federation.control.budgets import Budgets
from federation.control.catalog import Catalog
from federation.control.changes import Changes
from federation.control.config import ControlConfig
from federation.control.demands import demand
from federation.control.groupviews import GroupViews
from federation.control.health import Healths
from federation.control.launches import Launches
from federation.control.links import Links
from federation.control.moves import Moves
from federation.control.named import Groups, Providers, Sites
from federation.control.policies import Load, Policies
from federation.control.prices import Prices, Verify
from federation.control.quotas import Quotas
from federation.control.reconcile import Reconciler
from federation.control.scheduling import Scheduling
from federation.control.seating import Seating
from federation.control.sessions import Sessions
from federation.control.steps import Steps
from federation.control.sweep import Sweeper
from federation.control.tokens import Tokens
from federation.control.usage import Ledger
from federation.control.watch import Watch, recover
from federation.control.why import Explanations
from federation.control.world import Observer
from federation.ports import Bus, LogStore, Store
from federation.routing.place import rank
from providers.port import Driver
from providers.prices.feed import Feed
from tunnel import wire


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """The installation in one look; money in micro-units."""

    installation: str
    version: str
    protocol: int
    started_at: float
    database: str
    sessions: dict[str, int]
    agents_connected: int
    agents: int
    instances_live: int
    oldest_wait_s: float
    oldest_wait_session: str
    oldest_wait_reason: str
    cost_now_per_hour: int
    rev: int


class Instances:
    """Launched machines, for reading."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes

    async def list(self, *, group: str = "", provider: str = "", states: Sequence[str] = ()) -> list[Instance]:
        """Return instances, newest first, gone ones too unless `states` says otherwise."""
        where = {"group": [group] if group else [], "provider": [provider] if provider else [], "state": list(states)}
        given = {column: values for column, values in where.items() if values}
        async with self._changes.look() as tx:
            return await tx.find(Instance, newest=True, **given)  # type: ignore[arg-type]


class Offers:
    """Dry runs of the router."""

    def __init__(self, observer: Observer, seating: Seating, policies: Policies) -> None:
        self._observer = observer
        self._seating = seating
        self._policies = policies

    async def search(self, spec: SessionSpec) -> Decision:
        """Rank every way to run `spec` now, and say why the others are out; changes nothing."""
        rules = (await self._policies.active()).rules
        world = await self._observer.look()
        asked = demand(Session(id="", name="", project="", owner="", spec=spec))
        return rank(asked, self._seating.capacity(world), now=world.now, rules=rules)


class Control:
    """One control plane. Construct, `start`, serve links through `links.accept`, `stop`."""

    def __init__(
        self,
        store: Store,
        logs: LogStore,
        bus: Bus,
        clock: Clock,
        chance: Chance,
        drivers: Callable[[Provider], Driver],
        steps: Steps,
        config: ControlConfig,
        *,
        feeds: Callable[[Provider], Feed | None] = lambda _: None,
        verify: Verify | None = None,
        plugins: Load = lambda: ([], {}),
        database: str = "",
    ) -> None:
        self.store, self.logs, self.bus, self.clock, self.config = store, logs, bus, clock, config
        self._chance = chance
        self._database = database
        self._started_at = clock.now()
        self.installation = ""
        self.changes = changes = Changes(store, bus, clock, steps)
        self.links = Links(changes, logs, config, clock)
        self.prices = Prices(changes, chance, lambda row: feeds(catalog.opened(row)), verify)
        catalog = Catalog(drivers, self.prices.book, config, clock, chance)
        quotas = Quotas(catalog, config, clock)
        self.agents = Agents(changes, self.links, self._changed)
        self.sessions = Sessions(changes, chance, self._changed)
        self.sites = Sites(Site, changes, self._changed)
        self.groups = Groups(changes, self.agents, self._changed)
        self.providers = Providers(changes, catalog, self._changed)
        self.tokens = Tokens(changes, config, chance, self._changed)
        self.policies = Policies(changes, self._changed, plugins)
        self.approvals = Approvals(changes, self.policies, self._changed)
        self.budgets = Budgets(changes, self._changed)
        self.instances = Instances(changes)
        self.usage = Ledger(changes)
        self.why = Explanations(changes, self.sessions, self.agents, self.groups)
        self._observer = observer = Observer(changes, catalog, quotas, clock)
        seating = Seating(changes.mirror, self.links, catalog)
        views = GroupViews(changes, self.links, catalog, clock)
        self.offers = Offers(observer, seating, self.policies)
        self.moves = Moves(changes, self.links, self.sessions, observer, seating, config)
        adoption = Adoption(changes, observer, self.agents, self.budgets, self.moves, kept=config.plans_kept)
        self._scheduling = Scheduling(
            changes,
            observer,
            seating,
            views,
            self.links,
            self.policies,
            self.budgets,
            adoption,
            chance,
            home_s=config.home_s,
            plan_s=config.plan_s,
        )
        self.launches = Launches(changes, catalog, quotas, self.links, config, clock)
        self.sweeper = Sweeper(changes, catalog, config)
        self.health = Healths(changes, self.providers, catalog, quotas, self.sweeper)
        self._watch = Watch(changes, self.links, self.moves, self.policies, config)
        self._tasks: set[asyncio.Task[None]] = set()
        self._schedule = Reconciler("schedule", self._scheduled, every=config.schedule_s)
        self._launch = Reconciler("launch", self.launches.round, every=config.launch_s)
        self._sweep = Reconciler("sweep", self.sweeper.round, every=config.sweep_s)
        self._watching = Reconciler("watch", self._watch.round, every=config.watch_s)
        self._pricing = Reconciler("prices", self.prices.round, every=config.prices_s)
        self._budgeting = Reconciler("budgets", self.budgets.round, every=config.watch_s)
        self.prices.on_change = catalog.forget
        self._wire_hints()

    def _wire_hints(self) -> None:
        self._observer.patience.on_late = self._changed
        self.links.on_change = self._changed
        self.links.on_leave = self._left
        self.links.on_lost = self.launches.observe_now
        self.launches.on_change = self._changed
        self.launches.on_progress = self._launch.hint
        self._watch.on_change = self._changed
        self.moves.on_change = self._changed
        self._watch.on_silence = self.launches.observe_now

    async def start(self) -> None:
        """Put right what a crash left, then begin to reconcile; nothing is ended before agents could be back (I12)."""
        async with self.changes.commit("control.start") as change:
            self.installation = await change.tx.setting("installation") or ""
            if not self.installation:
                self.installation = new_id("atoll", self._chance)
                await change.tx.set("installation", self.installation)
            on_record = await recover(change)
        if on_record:
            self.links.unsettle()
        for reconciler in self._reconcilers():
            reconciler.start()

    async def stop(self) -> None:
        """End reconcilers and links; sessions, agents and instances go on without us."""
        for reconciler in self._reconcilers():
            await reconciler.stop()
        await self._observer.patience.close()
        await self.launches.stop()
        await self.links.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def status(self) -> Status:
        """Return the installation in one look."""
        async with self.store.transaction() as tx:
            counts = await tx.tally(Session, "state")
            waiting = await tx.find(Session, state=sorted(WAITING))
            agents = await tx.find(Agent, state=list(KEPT))
            instances = await tx.find(Instance, state=[str(s) for s in InstanceState if s is not InstanceState.GONE])
        oldest = min(waiting, key=lambda row: row.queued_at, default=None)
        return Status(
            installation=self.installation,
            version=__version__,
            protocol=wire.PROTOCOL,
            started_at=self._started_at,
            database=self._database,
            sessions=counts,
            agents_connected=len(self.links.connected()),
            agents=len(agents),
            instances_live=len(instances),
            oldest_wait_s=self.clock.now() - oldest.queued_at if oldest else 0.0,
            oldest_wait_session=oldest.name if oldest else "",
            oldest_wait_reason=oldest.reason if oldest else "",
            cost_now_per_hour=sum(row.shape.price or 0 for row in instances if row.booted_at is not None),
            rev=await self.store.last_rev(),
        )

    async def _scheduled(self) -> None:
        if await self._scheduling.round():
            self._watching.hint()
            self._launch.hint()

    def _changed(self) -> None:
        """Something happened: look at it now rather than at the next tick."""
        self._schedule.hint()
        self._watching.hint()
        self._launch.hint()

    def _left(self, agent: str, reason: str) -> None:
        task = asyncio.get_running_loop().create_task(self.agents.left(agent, reason), name=f"left {agent}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _reconcilers(self) -> tuple[Reconciler, ...]:
        return (self._watching, self._schedule, self._launch, self._sweep, self._pricing, self._budgeting)
