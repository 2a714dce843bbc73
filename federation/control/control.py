"""The control plane's core, put together: use cases and reconcilers over the ports."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from atoll import __version__
from atoll.agent import Agent
from atoll.clock import Chance, Clock
from atoll.errors import AtollError
from atoll.group import Provider
from atoll.ids import new_id
from atoll.instance import Instance
from atoll.session import Session
from atoll.site import Site
from atoll.states import KEPT, WAITING, InstanceState
from federation.control import uplinks
from federation.control.adoption import Adoption
from federation.control.agents import Agents
from federation.control.approvals import Approvals
from federation.control.budgets import Budgets
from federation.control.catalog import Catalog
from federation.control.changes import Changes
from federation.control.config import ControlConfig
from federation.control.groupviews import GroupViews
from federation.control.health import Healths
from federation.control.launches import Launches
from federation.control.linkfacts import LinkFacts
from federation.control.links import Links
from federation.control.mesh import Meshes
from federation.control.metrics import Metrics
from federation.control.moves import Moves
from federation.control.named import Groups, Providers, Sites
from federation.control.offers import Offers
from federation.control.policies import Load, Policies
from federation.control.prices import Prices, Verify
from federation.control.quotas import Quotas
from federation.control.reconcile import Reconciler
from federation.control.relays import Relays
from federation.control.rotation import Rotation
from federation.control.scheduling import Aside, Scheduling
from federation.control.seating import Seating
from federation.control.sessions import Sessions
from federation.control.sharing import Sharing
from federation.control.steps import Steps
from federation.control.streamrecords import RETRY_S, StreamRecords
from federation.control.streamreports import StreamReports
from federation.control.sweep import Sweeper
from federation.control.tokens import Tokens
from federation.control.usage import Ledger
from federation.control.watch import Watch, recover
from federation.control.why import Explanations
from federation.control.world import Observer
from federation.ports import Bus, LogStore, Store
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
        aside: Aside = asyncio.to_thread,
        database: str = "",
    ) -> None:
        self.store, self.logs, self.bus, self.clock, self.config = store, logs, bus, clock, config
        self._chance = chance
        self._database = database
        self._started_at = clock.now()
        self._tasks: set[asyncio.Task[None]] = set()
        self.installation = ""
        self.changes = Changes(store, bus, clock, steps)
        self.links = Links(self.changes, logs, config, clock, chance)
        self.streams = self.links.streams
        self.linkfacts = LinkFacts(self.links, clock)
        self.records = StreamRecords(self.changes, self.streams.log)
        self.reports = StreamReports(self.changes, config.secret_key, self.streams.log, self.records, clock)
        self.prices = Prices(self.changes, chance, lambda row: feeds(self._catalog.opened(row)), verify)
        self._catalog = Catalog(drivers, self.prices.book, config, clock, chance)
        self._quotas = Quotas(self._catalog, config, clock)
        self._add_use_cases(plugins)
        self._add_decisions(aside)
        self._add_reconcilers()
        self._wire_hints()

    def _add_use_cases(self, plugins: Load) -> None:
        """Nouns as users see and change them."""
        changes, changed = self.changes, self._changed
        self.agents = Agents(changes, self.links, changed)
        self.sessions = Sessions(changes, self._chance, changed)
        self.sites = Sites(Site, changes, changed)
        self.groups = Groups(changes, self.agents, changed)
        self.providers = Providers(changes, self._catalog, changed)
        self.tokens = Tokens(changes, self.config, self._chance, changed)
        self.tokens.on_revoked = self.links.dismiss
        self.rotation = Rotation(changes, self.links, self.config)
        self.meshes = Meshes(changes, self.links, self.clock, self.config, lambda: self.installation)
        self.relays = Relays(changes, self.config, self._chance, self.streams.now)
        self.metrics = Metrics(
            changes, self.links, self.linkfacts, self.clock, self.relays, self.reports, self._reconcilers
        )
        self.policies = Policies(changes, changed, plugins)
        self.sharing = Sharing(changes, public=self.config.public_apps)
        self.approvals = Approvals(changes, self.policies, changed)
        self.budgets = Budgets(changes, changed)
        self.instances = Instances(changes)
        self.usage = Ledger(changes)
        self.why = Explanations(changes, self.sessions, self.agents, self.groups)

    def _add_decisions(self, aside: Aside) -> None:
        """What looks at everything and decides: where sessions run, what is launched, what is moved."""
        changes, links, config = self.changes, self.links, self.config
        self._observer = observer = Observer(changes, self._catalog, self._quotas, self.clock)
        seating = Seating(changes.mirror, links, self._catalog)
        self.offers = Offers(observer, seating, self.policies, self.budgets)
        self.moves = Moves(changes, links, self.sessions, observer, seating, self.budgets, config)
        self._scheduling = Scheduling(
            changes,
            observer,
            seating,
            GroupViews(changes, links, self._catalog, self.clock),
            links,
            self.policies,
            self.budgets,
            Adoption(changes, observer, self.agents, self.budgets, self.moves, kept=config.plans_kept),
            self._chance,
            home_s=config.home_s,
            plan_s=config.plan_s,
            aside=aside,
        )

    def _add_reconcilers(self) -> None:
        """What carries decisions out, each in a loop of its own."""
        changes, config = self.changes, self.config
        self.launches = Launches(changes, self._catalog, self._quotas, self.links, config, self.clock)
        self.sweeper = Sweeper(changes, self._catalog, config)
        self.health = Healths(changes, self.providers, self._catalog, self._quotas, self.sweeper)
        self._watch = Watch(changes, self.links, self.moves, self.policies, config)
        self._schedule = Reconciler("schedule", self._scheduled, every=config.schedule_s)
        self._launch = Reconciler("launch", self.launches.round, every=config.launch_s)
        self._sweep = Reconciler("sweep", self.sweeper.round, every=config.sweep_s)
        self._watching = Reconciler("watch", self._watch.round, every=config.watch_s)
        self._pricing = Reconciler("prices", self.prices.round, every=config.prices_s)
        self._recording = Reconciler("records", self.records.round, every=RETRY_S)
        self._budgeting = Reconciler("budgets", self.budgets.round, every=config.watch_s)
        self._meshing = Reconciler("meshes", self.meshes.round, every=config.mesh_s)

    def _wire_hints(self) -> None:
        """Have each wake the others: nothing waits for its next look where somebody knows that there is news."""
        self.prices.on_change = self._catalog.forget
        self._observer.patience.on_late = self._changed
        self.links.on_change = self._changed
        self.streams.log.on_news = self._recording.hint
        self.links.on_leave = self._left
        self.links.on_end = self.relays.uplinks.expel
        self.relays.on_serving = self.links.tell_relays
        self.tokens.on_deleted = self._token_deleted
        self.rotation.on_change = self.relays.uplinks.renew_terms
        self.rotation.others = self.relays.behind
        self.links.on_mesh = self.meshes.heard
        self.links.on_reports = lambda live, told: self.reports.from_agent(live.id, told, live.link.send)
        self.relays.uplinks.on_reports = lambda live, told: self.reports.from_relay(
            live.link.relay, live.name, told, live.link.send
        )
        self.meshes.on_change = self._meshing.hint
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
            await uplinks.recover(change)
        if on_record:
            self.links.unsettle()
        await self.relays.tell()
        for reconciler in self._reconcilers():
            reconciler.start()

    async def stop(self) -> None:
        """End reconcilers and links; sessions, agents and instances go on without us."""
        for reconciler in self._reconcilers():
            await reconciler.stop()
        await self._observer.patience.close()
        await self.launches.stop()
        await self.relays.uplinks.close()
        await self.links.close()
        with contextlib.suppress(AtollError):  # a store that is gone keeps no records, either
            await self.records.flush()
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
        self._meshing.hint()

    def _token_deleted(self, token: str) -> None:
        self.relays.uplinks.evict(token)
        self.links.evict(token)

    def _left(self, agent: str, reason: str) -> None:
        task = asyncio.get_running_loop().create_task(self.agents.left(agent, reason), name=f"left {agent}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _reconcilers(self) -> tuple[Reconciler, ...]:
        deciding = (self._watching, self._schedule, self._launch, self._sweep)
        return (*deciding, self._pricing, self._budgeting, self._meshing, self._recording)
