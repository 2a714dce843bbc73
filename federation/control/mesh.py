"""Meshes: sites joined by WireGuard between gateways that their owners permit, kept so round by round."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from msgspec import structs

from atoll.agent import Agent
from atoll.clock import Clock
from atoll.errors import Invalid, NotFound
from atoll.mesh import End, Mesh, base_network, check_apart, check_subnet, check_versions, mesh_name, site_network
from atoll.site import Site
from atoll.states import AgentState, Reason
from atoll.suggest import hint
from federation.control.changes import Change, Changes
from federation.control.config import ControlConfig
from federation.control.liveagent import LiveAgent
from federation.control.peering import Heard, judged, sane, settled, told
from tunnel import wire

SUBNETS = 32
"""Most networks that a site gives to one mesh."""
_CHANGING = "the gateways are told of the change"
_PATIENCE_S = 10.0
"""How long a gateway may take to carry out a change before its mesh is judged all the same."""
_MEMBERS = (AgentState.READY, AgentState.DRAINING)


class Reach(Protocol):
    """What is used of the agents' links: `federation.control.links.Links` fits."""

    @property
    def returning(self) -> bool:
        """Whether agents of the process before are still coming back."""
        ...

    def live(self, agent: str) -> LiveAgent | None:
        """Return the agent's registered link."""
        ...

    def send(self, agent: str, message: wire.Message) -> bool:
        """Send to a connected agent."""
        ...


@dataclass(frozen=True, slots=True)
class EndStanding:
    """How an end is: its gateway's name, and what that one's interface last said of the other (None: nothing)."""

    end: End
    agent_name: str
    connected: bool
    peer: wire.MeshPeerStatus | None
    handshake_s: float | None


@dataclass(frozen=True, slots=True)
class Standing:
    """How a mesh is."""

    mesh: Mesh
    ends: tuple[EndStanding, EndStanding]


@dataclass(frozen=True, slots=True)
class _Word:
    """What an agent last said, on which link, and when (monotonic)."""

    live: LiveAgent
    status: wire.MeshStatus
    at: float


@dataclass(frozen=True, slots=True)
class _Told:
    """What an agent was last told, on which link, and when (monotonic)."""

    live: LiveAgent
    wanted: wire.MeshWanted
    at: float


class Meshes:
    """Use cases of meshes, and the round that keeps them. Where there are none, a round reads and writes nothing."""

    def __init__(
        self, changes: Changes, links: Reach, clock: Clock, config: ControlConfig, installation: Callable[[], str]
    ) -> None:
        self._changes = changes
        self._links = links
        self._clock = clock
        self._config = config
        self._installation = installation
        self._rows: list[Mesh] | None = None
        self._words: dict[str, _Word] = {}
        self._told: dict[str, _Told] = {}
        self._serial = 0
        self.on_change: Callable[[], None] = lambda: None

    async def up(self, site: str, other: str, subnets: Mapping[str, Sequence[str]], *, by: str) -> Standing:
        """Join two sites, or change which of their own networks the other may reach; idempotent.

        Raises `NotFound` for an unknown site, `Invalid` for networks that may not be carried or that overlap.
        """
        name = mesh_name(site, other)
        given = _subnets(name.split("+"), subnets)
        try:
            async with self._changes.commit("mesh.up") as change:
                rows = await change.tx.find(Mesh)
                have = next((row for row in rows if row.name == name), None)
                taken = {end.site: end.networks for row in rows for end in row.ends}
                ends = []
                for number, each in enumerate(name.split("+")):
                    await _need(change, each)
                    taken[each] = taken.get(each) or self._networks(each, taken)
                    end = have.ends[number] if have else End(site=each, networks=taken[each])
                    check_versions(given[each], end.networks)
                    ends.append(replace(end, subnets=given[each]))
                others = [row for row in rows if row.name != name]
                wanted = Mesh(name=name, ends=(ends[0], ends[1]), created_at=change.now, since=change.now)
                check_apart(sorted({(e.site, n) for row in (*others, wanted) for e in row.ends for n in e.reached}))
                if have is None:
                    await change.tx.insert(wanted)
                elif have.ends != wanted.ends:
                    pending = replace(wanted, message=_CHANGING, created_at=have.created_at, version=have.version)
                    await change.tx.update(pending)
                if have is None or have.ends != wanted.ends:
                    verb = "changed" if have else "created"
                    await change.event("mesh", name, verb, name=name, reason=Reason.USER, message=f"by {by}")
        finally:
            self._rows = None
        self.on_change()
        return await self.get(site, other)

    async def down(self, site: str, other: str, *, by: str) -> None:
        """Part two sites: their gateways remove it now, or when they are connected again."""
        row = await self._row(site, other)
        try:
            async with self._changes.commit("mesh.down") as change:
                await change.tx.delete(Mesh, row.name)
                await change.event("mesh", row.name, "deleted", name=row.name, reason=Reason.USER, message=f"by {by}")
        finally:
            self._rows = None
        self.on_change()

    async def rotate(self, site: str, other: str, *, by: str) -> Standing:
        """Have both gateways make new keys now, and use them once the other knows them."""
        name = (await self._row(site, other)).name
        try:
            async with self._changes.commit("mesh.rotate") as change:
                row = await change.tx.get(Mesh, name)
                if row is not None:
                    first, second = row.ends
                    ends = (replace(first, keyed_at=0.0), replace(second, keyed_at=0.0))
                    await change.tx.update(replace(row, ends=ends))
                    await change.event("mesh", name, "rotated", name=name, reason=Reason.USER, message=f"by {by}")
        finally:
            self._rows = None
        self.on_change()
        return await self.get(site, other)

    async def get(self, site: str, other: str) -> Standing:
        """Return how one is; raise `NotFound`."""
        row = await self._row(site, other)
        reports, _ = await self._look([row])
        return _standing(row, reports)

    def _networks(self, site: str, taken: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
        """Return the prefixes of a site that has none yet: of IPv6, and of IPv4 where that is configured."""
        ranges = [base_network(self._config.mesh_network, self._installation())]
        if self._config.mesh_network4:
            ranges.append(base_network(self._config.mesh_network4))
        used = [each for networks in taken.values() for each in networks]
        return tuple(site_network(each, site, used) for each in ranges)

    def heard(self, live: LiveAgent, status: wire.MeshStatus) -> None:
        """An agent said how its interface is: remembered until it says something else."""
        status = sane(status, self._keys_of_others(live.id))
        before = self._words.get(live.id)
        self._words[live.id] = _Word(live, status, self._clock.monotonic())
        if before is None or before.live is not live or _essence(before.status) != _essence(status):
            self.on_change()

    def _keys_of_others(self, agent: str) -> set[str]:
        """Return the keys that are other agents', as stored; of those not stored yet, as they were said first."""
        ends = [end for row in self._rows or () for end in row.ends]
        mine = {key for end in ends if end.agent == agent for key in (end.key, end.next)}
        theirs = {key for end in ends if end.agent != agent for key in (end.key, end.next)}
        said = {k for other, word in self._words.items() if other != agent for k in (word.status.key, word.status.next)}
        return (theirs | (said - mine)) - {""}

    async def round(self) -> None:
        """Choose gateways, keep their keys and how each mesh stands, and tell gateways what has changed for them."""
        rows = await self._load()
        if not rows and not self._words:
            return
        reports, members = await self._look(rows)
        now = self._clock.now()
        returning = self._links.returning
        rows = await self._keep(rows, [settled(row, reports, members, now, returning=returning) for row in rows])
        self._tell(rows, reports, now)
        await self._keep(rows, [row if self._unclear(row, reports) else judged(row, reports, now) for row in rows])

    async def _keep(self, rows: list[Mesh], wanted: list[Mesh]) -> list[Mesh]:
        """Store what differs; return what is stored."""
        if rows == wanted:
            return rows
        try:
            async with self._changes.commit("mesh.round") as change:
                self._rows = [await _save(change, old, new) for old, new in zip(rows, wanted, strict=True)]
        except BaseException:
            self._rows = None
            raise
        return self._rows

    def _unclear(self, row: Mesh, reports: Mapping[str, Heard]) -> bool:
        """Say whether it cannot be known yet how a mesh is: agents are coming back, or a change is under way."""
        if self._links.returning and any(end.agent and end.agent not in reports for end in row.ends):
            return True
        return row.message == _CHANGING and any(self._busy(end.agent, reports) for end in row.ends)

    def _busy(self, agent: str, reports: Mapping[str, Heard]) -> bool:
        """Say whether a gateway has yet to carry out what it was told, or is to be told."""
        before = self._told.get(agent)
        if agent not in reports or not reports[agent].connected or before is None:
            return False
        return (
            reports[agent].status.serial != before.wanted.serial and self._clock.monotonic() - before.at < _PATIENCE_S
        )

    def _tell(self, rows: Sequence[Mesh], reports: Mapping[str, Heard], now: float) -> None:
        for agent, heard in reports.items():
            live = self._words[agent].live if agent in self._words else None
            if live is None or not heard.connected:
                continue
            wanted = told(agent, rows, reports, now, self._config.mesh_rotate_s)
            before = self._told.get(agent)
            known = before.wanted if before is not None and before.live is live else None
            if known is not None and structs.replace(wanted, serial=known.serial) == known:
                continue
            if wanted.addresses or heard.status.key or known is not None:
                self._serial += 1
                wanted = structs.replace(wanted, serial=self._serial)
                self._links.send(agent, wanted)
                self._told[agent] = _Told(live, wanted, self._clock.monotonic())

    async def _look(self, rows: Sequence[Mesh]) -> tuple[dict[str, Heard], set[str]]:
        """Return what each agent last said, and which agents may be gateways."""
        concerned = {*self._words, *(end.agent for row in rows for end in row.ends if end.agent)}
        reports, members = {}, set()
        async with self._changes.look() as tx:
            found = {agent: await tx.get(Agent, agent) for agent in sorted(concerned)}
        for agent, row in found.items():
            if row is not None and row.state in _MEMBERS:
                members.add(agent)
            word = self._words.get(agent)
            if word is None or row is None:
                continue
            connected = agent in members and word.live.connected and self._links.live(agent) is word.live
            if not connected and agent not in members:
                del self._words[agent]
                self._told.pop(agent, None)
                continue
            reports[agent] = Heard(
                agent=agent,
                name=row.name,
                site=row.site,
                connected=connected,
                status=word.status,
                age=self._clock.monotonic() - word.at,
                came_from=word.live.link.address,
            )
        return reports, members

    async def _load(self) -> list[Mesh]:
        if self._rows is None:
            async with self._changes.look() as tx:
                self._rows = await tx.find(Mesh)
        return self._rows

    async def _row(self, site: str, other: str) -> Mesh:
        name = mesh_name(site, other)
        rows = await self._load()
        for row in rows:
            if row.name == name:
                return row
        there = ", ".join(row.name.replace("+", " and ") for row in rows)
        raise NotFound(
            f"there is no mesh between {site} and {other}",
            hint=f"there are: {there}" if there else f"join them: atoll mesh up {site} {other}",
        )

    async def list(self) -> list[Standing]:
        """Return how all meshes are, by name."""
        rows = sorted(await self._load(), key=lambda row: row.name)
        reports, _ = await self._look(rows)
        return [_standing(row, reports) for row in rows]


async def _need(change: Change, site: str) -> None:
    if await change.tx.get(Site, site) is None:
        names = [row.name for row in await change.tx.find(Site)]
        raise NotFound(f"there is no site {site!r}", hint=hint(site, names, "see `atoll site list`"))


async def _save(change: Change, old: Mesh, new: Mesh) -> Mesh:
    if new == old:
        return old
    saved = await change.tx.update(new)
    if (old.state, old.message) != (new.state, new.message):
        await change.event("mesh", new.name, new.state, name=new.name, message=new.message)
    return saved


def _subnets(sites: Sequence[str], given: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    for site, subnets in given.items():
        if site not in sites:
            raise Invalid(f"site {site!r} is not of this mesh", hint=f"it joins {' and '.join(sites)}")
        if len(subnets) > SUBNETS:
            raise Invalid(
                f"{len(subnets)} networks of {site} are too many", hint=f"at most {SUBNETS}; join them to less"
            )
    return {site: tuple(sorted({check_subnet(each) for each in given.get(site, ())})) for site in sites}


def _essence(status: wire.MeshStatus) -> tuple[object, ...]:
    """Return what of a status may change what is to be done."""
    peers = tuple(sorted((peer.key, peer.seen_s >= 0) for peer in status.peers))
    subnets = tuple(status.subnets)
    return (
        status.serial,
        status.unable,
        status.error,
        status.endpoint,
        subnets,
        status.port,
        status.key,
        status.next,
        peers,
    )


def _standing(row: Mesh, reports: Mapping[str, Heard]) -> Standing:
    first, second = row.ends
    return Standing(row, (_end_standing(first, second, reports), _end_standing(second, first, reports)))


def _end_standing(end: End, other: End, reports: Mapping[str, Heard]) -> EndStanding:
    heard = reports.get(end.agent)
    if heard is None:
        return EndStanding(end, end.agent, False, None, None)
    keys = {key for key in (other.key, other.next) if key}
    peers = [peer for peer in heard.status.peers if peer.key in keys]
    peer = min(peers, key=lambda each: (each.seen_s < 0, each.seen_s), default=None)
    return EndStanding(end, heard.name, heard.connected, peer, heard.seen(keys))
