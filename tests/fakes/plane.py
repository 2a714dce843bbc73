"""A control plane without reconcilers, over a memory store: what API, pages and gateway are tested against."""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from atoll.agent import Agent
from atoll.errors import Conflict, Forbidden, NotFound, Unauthorized, Unavailable
from atoll.event import Event
from atoll.group import Group, GroupKind, Provider, Size
from atoll.ids import SESSION, new_id
from atoll.instance import Instance, Shape
from atoll.money import micros
from atoll.offer import Decision, Offer, OfferKind, Outcome, Rejection
from atoll.plan import Action, Move, Note, Plan, Step
from atoll.session import Moving, Session, SessionSpec
from atoll.site import Site
from atoll.slots import GIB, Gpu, Slots
from atoll.states import ENDED, KEPT, PLACED, AgentState, Reason, SessionState
from atoll.token import Token, TokenKind
from autoscaler.limits import Ceiling
from federation.api.plane import Runs
from federation.control.agents import by_agent
from federation.control.approvals import Approvals
from federation.control.budgets import Budgets
from federation.control.changes import Changes
from federation.control.config import ControlConfig
from federation.control.guard import Pause
from federation.control.health import Health
from federation.control.liveagent import LiveAgent
from federation.control.mesh import Meshes
from federation.control.policies import Policies
from federation.control.prices import Prices
from federation.control.relays import Relays
from federation.control.sharing import Sharing
from federation.control.steps import Steps
from federation.control.streamrecords import StreamRecords
from federation.control.sweep import Finding, Sweep
from federation.store.bus import LocalBus
from providers.port import Driver
from providers.port import Finding as Checked
from providers.prices.feed import Feed
from tests.fakes.authority import FakeAuthority, FakeRotation
from tests.fakes.linkfacts import FakeLinkFacts, FakeMetrics
from tests.fakes.store import MemoryLogs, MemoryStore
from tests.fakes.streams import FakeStreams
from tests.fakes.told import FakeUsage, FakeUsageRow, FakeWhy
from tunnel import wire

API_TOKEN = "atk_" + "t" * 40
NOW = 1_800_000_000.0
SHAPE = Shape(provider="sim", name="c4", zone="east-a", slots=Slots(4000, 8 * GIB), price=micros(0.2), start_s=5.0)


class FakeClock:
    """A clock that stands still until told."""

    def __init__(self) -> None:
        self.time = NOW

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time


class FakeChance:
    """Counting bytes."""

    def __init__(self) -> None:
        self.count = 0

    def token_bytes(self, count: int) -> bytes:
        self.count += 1
        return hashlib.sha256(str(self.count).encode()).digest()[:count]

    def uniform(self, low: float, high: float) -> float:
        return (low + high) / 2


@dataclass
class FakeLive:
    connected: bool = True
    rtt: float | None = 0.0042


@dataclass
class FakeStatus:
    installation: str = "test"
    version: str = "0.1.0"
    protocol: int = 1
    started_at: float = NOW
    database: str = "memory"
    sessions: dict[str, int] = field(default_factory=dict)
    agents_connected: int = 1
    agents: int = 2
    instances_live: int = 0
    oldest_wait_s: float = 0.0
    oldest_wait_session: str = ""
    oldest_wait_reason: str = ""
    cost_now_per_hour: int = micros(0.2)
    rev: int = 0


@dataclass
class FakeFound:
    provider: str = "sim"
    instance: str = "i-1"
    provider_id: str = "m-1"
    state: str = "running"
    finding: str = "nobody owns it"
    action: str = "terminate"


DECISION = Decision(
    session="s",
    outcome=Outcome.PLACE,
    reason=Reason.PLACED,
    message="cheapest",
    taken=(Offer(kind=OfferKind.AGENT, site="local", group="local", target="a-1", slots=Slots(1000), price=0, cost=0),),
    rejected=(Rejection(site="east", group="burst", target="c4", reason=Reason.PRICE_LIMIT, message="too dear"),),
    considered=2,
)


class FakeSessions:
    def __init__(self, plane: "FakePlane") -> None:
        self.plane = plane

    async def submit(
        self,
        spec: SessionSpec,
        *,
        project: str,
        owner: str,
        count: int = 1,
        idempotency: tuple[str, str] | None = None,
    ) -> list[Session]:
        rows: list[Session] = []
        async with self.plane.store.transaction() as tx:
            if idempotency and (known := await tx.recall(idempotency[0])):
                if known[0] != idempotency[1]:
                    raise Conflict("this Idempotency-Key was used for another request", hint="use a fresh key")
                return [row for key in known[1].split() if (row := await tx.get(Session, key))]
            for index in range(count):
                self.plane.clock.time += 0.001
                key = new_id(SESSION, self.plane.chance)
                name = spec.name or key
                row = Session(
                    id=key, name=name if count == 1 else f"{name}-{index}", project=project, owner=owner, spec=spec,
                    created_at=self.plane.clock.now(), queued_at=self.plane.clock.now(),
                )  # fmt: skip
                rows.append(await tx.insert(row))
                await tx.append(
                    Event(kind="session", key=key, state="queued", at=NOW, name=row.name, data={"project": project})
                )
            if idempotency:
                await tx.remember(idempotency[0], idempotency[1], " ".join(row.id for row in rows), NOW)
        self.plane.bus.publish("events")
        return rows

    async def get(self, project: str, ref: str) -> Session:
        async with self.plane.store.transaction() as tx:
            row = await tx.get(Session, ref)
            found = [row] if row else await tx.find(Session, name=ref, project=project, newest=True)
        found = [row for row in found if row.project == project]
        if not found:
            raise NotFound(f"there is no session {ref!r}", hint="see `atoll ps --all`")
        return found[0]

    async def list(
        self, project: str, *, states: Sequence[str] = (), after: str = "", limit: int = 100
    ) -> list[Session]:
        where: dict[str, Any] = {"state": list(states)} if states else {}
        async with self.plane.store.transaction() as tx:
            return await tx.find(Session, project=project, newest=True, after=after, limit=limit, **where)

    async def stop(self, project: str, ref: str, *, by: str) -> Session:
        row = await self.get(project, ref)
        if row.state in ENDED:
            return row
        return await self.plane.change(
            row, state=SessionState.CANCELLED, reason=Reason.STOP_REQUESTED, message=f"stopped by {by}"
        )


class FakeAgents:
    def __init__(self, plane: "FakePlane") -> None:
        self.plane = plane
        self.links: dict[str, FakeLive] = {}

    async def list(self, *, states: Sequence[str] = KEPT) -> list[Agent]:
        async with self.plane.store.transaction() as tx:
            return await tx.find(Agent, state=list(states))

    async def placed(self) -> Runs:
        async with self.plane.store.transaction() as tx:
            return by_agent(await tx.find(Session, state=sorted(PLACED)))

    async def get(self, ref: str) -> Agent:
        found = [row for row in await self.list(states=tuple(AgentState)) if ref in (row.id, row.name)]
        if not found:
            raise NotFound(f"there is no agent {ref!r}", hint="see `atoll agent list`")
        return found[0]

    async def _move(self, ref: str, state: AgentState, by: str) -> Agent:
        row = await self.get(ref)
        async with self.plane.store.transaction() as tx:
            return await tx.update(replace(row, state=state, reason=Reason.USER, message=f"by {by}"))

    async def cordon(self, ref: str, by: str, deadline_s: float | None = None) -> Agent:
        row = await self._move(ref, AgentState.DRAINING, by)
        async with self.plane.store.transaction() as tx:
            return await tx.update(replace(row, drain_until=None if deadline_s is None else NOW + deadline_s))

    async def uncordon(self, ref: str, by: str) -> Agent:
        return await self._move(ref, AgentState.READY, by)

    async def remove(self, ref: str, by: str) -> Agent:
        return await self._move(ref, AgentState.LEFT, by)

    async def revoke(self, ref: str, by: str) -> Agent:
        return await self._move(ref, AgentState.REVOKED, by)

    def live(self, agent: str, /) -> FakeLive | None:
        return self.links.get(agent)


Noun = TypeVar("Noun", Site, Group, Provider)


class FakeNouns(Generic[Noun]):
    def __init__(self, plane: "FakePlane", kind: type[Noun]) -> None:
        self.plane = plane
        self.kind: type[Noun] = kind

    async def list(self) -> list[Noun]:
        async with self.plane.store.transaction() as tx:
            return await tx.find(self.kind)

    async def get(self, name: str) -> Noun:
        async with self.plane.store.transaction() as tx:
            row = await tx.get(self.kind, name)
        if row is None:
            raise NotFound(f"there is no {self.kind.__name__.lower()} {name!r}")
        return row

    async def create(self, row: Noun) -> Noun:
        async with self.plane.store.transaction() as tx:
            return await tx.insert(row)

    async def apply(self, row: Noun) -> tuple[Noun, bool]:
        async with self.plane.store.transaction() as tx:
            before = await tx.get(self.kind, row.name)
            if before is None:
                return await tx.insert(row), True
            return await tx.update(replace(row, version=before.version)), False

    async def delete(self, name: str) -> None:
        await self.get(name)
        async with self.plane.store.transaction() as tx:
            await tx.delete(self.kind, name)


class FakeGroups(FakeNouns[Group]):
    async def plans(self, name: str, limit: int) -> list[Plan]:
        step = Step(action=Action.LAUNCH, group=name, reason=Reason.DEMAND, message="for one", shape=SHAPE)
        note = Note(group=name, reason=Reason.STEADY, message="nothing to do")
        return [Plan(id="p-1", generation=1, at=NOW, steps=(step,), notes=(note,))]

    async def resize(self, name: str, *, least: int | None, most: int | None, by: str) -> Group:
        row = await self.get(name)
        size = Size(min=row.size.min if least is None else least, max=row.size.max if most is None else most)
        return (await self.apply(replace(row, size=size)))[0]

    async def terminate(self, name: str, *, now: bool, by: str, deadline_s: float | None = None) -> Group:
        self.plane.terminated.append((name, now, by, deadline_s))
        return await self.resize(name, least=0, most=0, by=by)


class FakeDriver:
    async def doctor(self) -> list[Checked]:
        return [Checked(check="credential", ok=True, message="works")]


class FakeProviders(FakeNouns[Provider]):
    async def driver(self, name: str) -> Driver:
        driver: Any = FakeDriver()
        return driver  # type: ignore[no-any-return]

    async def shapes(self, name: str) -> Sequence[Shape]:
        return [SHAPE]

    async def rotate(self, name: str, credentials: Mapping[str, object], *, by: str) -> Provider:
        row = await self.get(name)
        if credentials.get("key") == "wrong":
            raise Conflict("the new credentials do not work", hint="the old ones stay in use")
        return (await self.apply(replace(row, settings=row.settings | {"credentials": "sealed"})))[0]


class FakeInstances:
    def __init__(self, plane: "FakePlane") -> None:
        self.plane = plane

    async def list(self, *, group: str = "", provider: str = "", states: Sequence[Any] = ()) -> list[Instance]:
        where: Any = {key: value for key, value in (("group", group), ("provider", provider)) if value}
        async with self.plane.store.transaction() as tx:
            return await tx.find(Instance, **where)


@dataclass
class FakeJoined:
    agent: Agent
    certificate: str


class FakeTokens:
    def __init__(self, plane: "FakePlane") -> None:
        self.plane = plane
        self.good = {API_TOKEN: "ada"}
        self.roles: dict[str, tuple[str, ...]] = {API_TOKEN: ("admin",)}

    def _row(self, secret: str, kind: TokenKind, **fields: Any) -> Token:
        return Token(id=hashlib.sha256(secret.encode()).hexdigest(), kind=kind, created_at=NOW, **fields)

    async def create_join(self, *, site: str, group: str, uses: int, ttl_s: float, owner: str) -> tuple[Token, str]:
        secret = self.plane.chance.token_bytes(16).hex()
        row = self._row(
            secret, TokenKind.JOIN, site=site, group=group, uses_left=uses, expires_at=NOW + ttl_s, owner=owner
        )
        async with self.plane.store.transaction() as tx:
            return await tx.insert(row), secret

    async def create_api(self, owner: str, roles: Sequence[str] = ()) -> tuple[Token, str]:
        secret = "atk_" + self.plane.chance.token_bytes(16).hex()
        self.good[secret] = owner
        self.roles[secret] = tuple(roles)
        async with self.plane.store.transaction() as tx:
            return await tx.insert(self._row(secret, TokenKind.API, owner=owner, roles=tuple(roles))), secret

    async def authenticate(self, secret: str) -> Token:
        if secret not in self.good:
            raise Unauthorized("this token is not valid", hint="see `atoll login`")
        return self._row(secret, TokenKind.API, owner=self.good[secret], roles=self.roles.get(secret, ()))

    async def standing(self, owner: str, token: str = "") -> tuple[str, ...] | None:
        found = [secret for secret, name in self.good.items() if name == owner]
        found = [each for each in found if token in ("", hashlib.sha256(each.encode()).hexdigest())]
        return tuple(role for secret in found for role in self.roles.get(secret, ())) if found else None

    async def list(self) -> list[Token]:
        async with self.plane.store.transaction() as tx:
            return await tx.find(Token)

    async def delete(self, id_prefix: str) -> None:
        rows = [row for row in await self.list() if row.id.startswith(id_prefix)]
        if len(rows) != 1:
            raise NotFound(f"there is no token {id_prefix}")
        async with self.plane.store.transaction() as tx:
            await tx.delete(Token, rows[0].id)

    async def renew(self, certificate: str, csr: str) -> str:
        return f"{certificate} renewed"

    async def join(self, secret: str, csr: str, name: str, facts: dict[str, str]) -> FakeJoined:
        async with self.plane.store.transaction() as tx:
            token = await tx.consume(hashlib.sha256(secret.encode()).hexdigest(), NOW)
            if token is None:
                raise Unauthorized("this join token was used or has expired", hint="make another one")
            agent = await tx.insert(Agent(id="a-new", name=name, site=token.site, group=token.group, facts=facts))
        return FakeJoined(agent, f"certificate for {csr}")


class FakeExplain:
    def __init__(self, plane: "FakePlane") -> None:
        self.plane = plane

    async def session(self, project: str, ref: str) -> FakeWhy:
        row = await self.plane.sessions.get(project, ref)
        events = [e for e in await self.plane.store.events(0) if e.key == row.id]
        return FakeWhy("session", row.id, row.name, row.state, decisions=[(NOW, DECISION)], events=events)

    async def agent(self, ref: str) -> FakeWhy:
        row = await self.plane.agents.get(ref)
        return FakeWhy("agent", row.id, row.name, row.state)

    async def group(self, name: str) -> FakeWhy:
        row = await self.plane.groups.get(name)
        steps: list[tuple[float, str, Step | Note | Move]] = [
            (NOW, "p-1", Note(group=name, reason=Reason.STEADY, message="well", session="s-1"))
        ]
        return FakeWhy("group", row.name, row.name, "", steps=steps)


class FakeOffers:
    async def search(self, spec: SessionSpec, *, project: str, owner: str) -> Decision:
        return DECISION


class FakeUsages:
    async def summary(self, since: float) -> FakeUsage:
        return FakeUsage(since, [FakeUsageRow()])


class FakeSweeper:
    async def sweep(self, provider: str, dry_run: bool) -> Sequence[FakeFound]:
        return [FakeFound(action="none" if dry_run else "terminate")]


class FakeHealth:
    async def look(self, name: str) -> Health:
        ceiling = Ceiling(provider=name, name="vcpus", limit=16, committed=4, counts="cpu", shapes=("c*",))
        finding = Finding(
            provider=name, instance="i-1", provider_id="m-1", state="running", finding="nobody owns it", action="report"
        )
        return Health(
            provider=Provider(name=name, kind="sim"),
            live=1,
            credentials_age_s=60.0,
            limits=((ceiling, 0.0),),
            pauses=(Pause(what="create calls", why="AUTH: wrong key", left_s=12.0),),
            swept=Sweep(at=NOW, findings=(finding,)),
        )


class FakeLinks:
    def __init__(self) -> None:
        self.owing: set[str] = set()

    def owes(self, run: str) -> bool:
        return run in self.owing

    def accept(self) -> asyncio.BaseProtocol:
        raise Unavailable("no agents here")

    @property
    def returning(self) -> bool:
        return False

    def live(self, agent: str) -> LiveAgent | None:
        return None

    def send(self, agent: str, message: wire.Message) -> bool:
        return False


class FakeMoves:
    """Moves that begin, and go no further."""

    def __init__(self, plane: "FakePlane") -> None:
        self.plane = plane

    async def request(self, project: str, ref: str, to: str, *, by: str) -> Session:
        row = await self.plane.sessions.get(project, ref)
        if row.spec.checkpoint is None:
            raise Conflict(f"{row.name} cannot be moved: it takes no checkpoints")
        moving = Moving(reason=Reason.USER, message=f"asked for by {by}", site=to)
        return await self.plane.change(row, message=f"is asked for a checkpoint, to go on at {to}", moving=moving)


class FakePlane:
    """All of it."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.logs = MemoryLogs()
        self.bus = LocalBus()
        self.clock = FakeClock()
        self.chance = FakeChance()
        self.config = ControlConfig(authority=FakeAuthority(), agent_url="https://127.0.0.1:8700", secret_key=b"k" * 32)
        self.sessions = FakeSessions(self)
        self.agents = FakeAgents(self)
        self.linkfacts = FakeLinkFacts(self.agents.links)
        self.metrics = FakeMetrics()
        self.sites = FakeNouns(self, Site)
        self.groups = FakeGroups(self, Group)
        self.providers = FakeProviders(self, Provider)
        self.instances = FakeInstances(self)
        self.tokens = FakeTokens(self)
        self.rotation = FakeRotation()
        self.offers = FakeOffers()
        self.why = FakeExplain(self)
        self.usage = FakeUsages()
        self.sweeper = FakeSweeper()
        self.health = FakeHealth()
        self.terminated: list[tuple[str, bool, str, float | None]] = []
        self.links = FakeLinks()
        self.streams = FakeStreams(self.clock, self.chance)
        self.moves = FakeMoves(self)
        self.feeds: dict[str, Feed] = {}
        self.changes = changes = Changes(self.store, self.bus, self.clock, Steps())
        self.records = StreamRecords(changes, self.streams.log)
        self.policies = Policies(changes, lambda: None)
        self.sharing = Sharing(changes, public=True)
        self.approvals = Approvals(changes, self.policies, lambda: None)
        self.budgets = Budgets(changes, lambda: None)
        self.relays = Relays(changes, self.config, self.chance, self.clock.now)
        self.meshes = Meshes(changes, FakeLinks(), self.clock, self.config, lambda: "atoll-1")
        self.prices = Prices(changes, self.chance, lambda row: self.feeds.get(row.name), self.verify)

    async def verify(self, content: bytes, signature: str) -> str:
        if signature != f"ops signed {hashlib.sha256(content).hexdigest()}":
            raise Forbidden("it is signed by nobody who is trusted here")
        return "ops"

    async def status(self) -> FakeStatus:
        rows = self.store.rows(Session)
        counts: dict[str, int] = {}
        for row in rows:
            counts[str(row.state)] = counts.get(str(row.state), 0) + 1
        return FakeStatus(sessions=counts, rev=await self.store.last_rev())

    async def change(self, row: Session, **fields: Any) -> Session:
        """Change a session and tell it."""
        async with self.store.transaction() as tx:
            now = await tx.get(Session, row.id)
            assert now is not None
            saved = await tx.update(replace(now, **fields))
            await tx.append(
                Event(
                    kind="session", key=row.id, name=row.name, state=saved.state, at=NOW, reason=saved.reason,
                    message=saved.message,
                )
            )  # fmt: skip
        self.bus.publish("events")
        return saved

    async def furnish(self) -> Agent:
        """Make a site, a group, a provider and two agents, of which one is connected."""
        slots = Slots(4000, 8 * GIB, 0, (Gpu("L4", 2000, 24 * GIB),))
        async with self.store.transaction() as tx:
            await tx.insert(Site(name="local", price=micros(0.1)))
            await tx.insert(Group(name="local", site="local"))
            await tx.insert(Group(name="burst", site="sim", kind=GroupKind.ELASTIC, provider="sim"))
            await tx.insert(Provider(name="sim", kind="sim", settings={"api_secret": "x", "zones": ["a"]}))
            await tx.insert(Instance(id="i-1", provider="sim", group="burst", site="sim", shape=SHAPE))
            agent = await tx.insert(Agent(id="a-1", name="desk", site="local", group="local", capacity=slots))
            await tx.insert(Agent(id="a-2", name="attic", site="local", group="local", capacity=slots))
        self.agents.links["a-1"] = FakeLive()
        return agent
