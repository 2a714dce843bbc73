"""Sites, groups and providers: objects that people name, create, change and delete."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Generic, TypeVar

from atoll.agent import Agent
from atoll.errors import Conflict, Invalid, NotFound
from atoll.group import Group, GroupKind, Provider, Size
from atoll.ids import check_name
from atoll.instance import Instance, Shape
from atoll.mesh import Mesh
from atoll.plan import Plan
from atoll.price import PriceList
from atoll.site import Site
from atoll.states import KEPT, InstanceState, Reason
from federation.control.agents import Agents, cordon
from federation.control.catalog import Catalog
from federation.control.changes import Change, Changes
from federation.control.hours import check_zone
from federation.control.sealing import check_clear
from providers.errors import ProviderError
from providers.port import Driver

N = TypeVar("N", Site, Group, Provider)
LIVE = [str(state) for state in InstanceState if state is not InstanceState.GONE]
"""Instance states that may cost money."""
EMPTY = [state for state in LIVE if state not in (InstanceState.JOINED, InstanceState.DRAINING)]
"""Those of them in which no session runs."""


class Named(Generic[N]):
    """The use cases that sites, groups and providers share."""

    def __init__(self, kind: type[N], changes: Changes, on_change: Callable[[], None]) -> None:
        self._kind: type[N] = kind
        self._noun = kind.__name__.lower()
        self._changes = changes
        self._on_change = on_change

    async def get(self, name: str) -> N:
        """Return one; raise `NotFound` with a near name."""
        async with self._changes.look() as tx:
            return await self._get(Change(tx, 0.0), name)

    async def create(self, row: N) -> N:
        """Add one; raise `Conflict` when the name is taken, `Invalid` when it refers to what is not there."""
        async with self._changes.commit(f"{self._noun}.create") as change:
            if await change.tx.get(self._kind, row.name):
                raise Conflict(
                    f"{self._noun} {row.name!r} exists already", hint=f"see `atoll describe {self._noun} {row.name}`"
                )
            row = await self._insert(change, self._kept(row, None))
        self._on_change()
        return row

    async def apply(self, row: N) -> tuple[N, bool]:
        """Make it be as given; return it and whether it was created. An equal one is left alone."""
        async with self._changes.commit(f"{self._noun}.apply") as change:
            have = await change.tx.get(self._kind, row.name)
            if have is None:
                return await self._insert(change, self._kept(row, None)), True
            wanted = replace(self._kept(row, have), created_at=have.created_at, version=have.version)
            if wanted == have:
                return have, False
            await self._check(change, wanted, have)
            saved = await change.tx.update(wanted)
            await self._follow(change, saved)
            await change.event(self._noun, row.name, "changed", name=row.name)
        self._on_change()
        return saved, False

    async def delete(self, name: str) -> None:
        """Remove one; raise `Conflict` with the list of what still depends on it."""
        async with self._changes.commit(f"{self._noun}.delete") as change:
            row = await self._get(change, name)
            blockers = await self._dependents(change, row)
            if blockers:
                shown = ", ".join(blockers[:8]) + (" …" if len(blockers) > 8 else "")
                raise Conflict(f"{self._noun} {name!r} is in use by {shown}", hint=self._way_out(row))
            await change.tx.delete(self._kind, name)
            await self._follow(change, row, deleted=True)
            await change.event(self._noun, name, "deleted", name=name)
        self._on_change()

    async def _insert(self, change: Change, row: N) -> N:
        check_name(row.name, self._noun)
        await self._check(change, row, None)
        saved = await change.tx.insert(replace(row, created_at=change.now))
        await change.event(self._noun, row.name, "created", name=row.name)
        return saved

    async def _get(self, change: Change, name: str) -> N:
        row: N | None = await change.tx.get(self._kind, name)
        if row is None:
            near = difflib.get_close_matches(name, [r.name for r in await change.tx.find(self._kind)], 1)
            hint = f"did you mean {near[0]!r}?" if near else f"see `atoll get {self._noun}s`"
            raise NotFound(f"there is no {self._noun} {name!r}", hint=hint)
        return row

    async def _check(self, change: Change, row: N, have: N | None) -> None:
        """Raise when `row` may not be; `have` is the one it would replace."""

    def _kept(self, row: N, have: N | None) -> N:  # noqa: ARG002
        """Return `row` as it is to be stored in place of `have`."""
        return row

    async def _follow(self, change: Change, row: N, *, deleted: bool = False) -> None:
        """Bring other rows in line with one that was changed or deleted."""

    async def _dependents(self, change: Change, row: N) -> list[str]:  # noqa: ARG002
        """Return what would be left dangling."""
        return []

    def _way_out(self, row: N) -> str:  # noqa: ARG002
        """Return the hint for one that others depend on."""
        return "remove those first"

    async def list(self) -> list[N]:
        """Return all, oldest first."""
        async with self._changes.look() as tx:
            return await tx.find(self._kind)


class Sites(Named[Site]):
    """Places. What their price is, their registered machines cost from then on."""

    async def _follow(self, change: Change, row: Site, *, deleted: bool = False) -> None:
        if deleted:
            return
        for agent in await change.tx.find(Agent, site=row.name, state=list(KEPT)):
            if not agent.instance and agent.price != row.price:
                await change.tx.update(replace(agent, price=row.price))

    async def _dependents(self, change: Change, row: Site) -> list[str]:
        groups = await change.tx.find(Group, site=row.name)
        agents = await change.tx.find(Agent, site=row.name, state=list(KEPT))
        meshes = [mesh for mesh in await change.tx.find(Mesh) if row.name in {end.site for end in mesh.ends}]
        joined = [f"the mesh of {mesh.name.replace('+', ' and ')}" for mesh in meshes]
        return [f"group {g.name}" for g in groups] + [f"agent {a.name}" for a in agents] + joined


class Groups(Named[Group]):
    """Groups; an elastic one must name a provider that is there."""

    def __init__(self, changes: Changes, agents: Agents, on_change: Callable[[], None]) -> None:
        super().__init__(Group, changes, on_change)
        self._agents = agents

    async def resize(self, name: str, *, least: int | None, most: int | None, by: str) -> Group:
        """Change the bounds of an elastic group; None leaves one as it is."""
        async with self._changes.commit("group.resize") as change:
            row = await self._elastic(change, name)
            size = Size(min=row.size.min if least is None else least, max=row.size.max if most is None else most)
            wanted = replace(row, size=size)
            await self._check(change, wanted, row)
            row = await self._resized(change, wanted, f"{size.min} to {size.max} machines, by {by}")
        self._on_change()
        return row

    async def terminate(self, name: str, *, now: bool, by: str, deadline_s: float | None = None) -> Group:
        """Close an elastic group: its size becomes 0..0, so that nothing comes back before it is resized.

        Its agents take no more sessions and go when they are empty; what is cold or still coming ends now.
        After `deadline_s` seconds sessions there that can take a checkpoint and are not protected are moved elsewhere.
        With `now` every instance is ended at once, whatever runs there: those sessions are queued again, if
        they may be retried, once their machine is seen gone.
        """
        if now and deadline_s is not None:
            raise Invalid("now or with a deadline, not both", hint="leave one of them out")
        why = f"group {name} was terminated by {by}"
        async with self._changes.commit("group.terminate") as change:
            row = await self._elastic(change, name)
            row = await self._resized(change, replace(row, size=Size(min=0, max=0)), why)
            until = None if deadline_s is None else change.now + deadline_s
            drained = [
                await cordon(change, agent, why, until)
                for agent in await change.tx.find(Agent, group=name, state=list(KEPT))
            ]
            for instance in await change.tx.find(Instance, group=name, state=LIVE if now else EMPTY):
                await change.end(instance, Reason.USER, why)
        for agent in drained:
            self._agents.tell_cordon(agent)
        self._on_change()
        return row

    async def _elastic(self, change: Change, name: str) -> Group:
        row = await self._get(change, name)
        if row.kind is not GroupKind.ELASTIC:
            raise Conflict(
                f"group {name!r} has no provider: its machines are yours to size and to end",
                hint="see `atoll agent cordon` and `atoll agent remove`",
            )
        return row

    async def _resized(self, change: Change, row: Group, message: str) -> Group:
        saved = await change.tx.update(row)
        await change.event("group", row.name, "changed", name=row.name, reason=Reason.USER, message=message)
        return saved

    async def plans(self, name: str, limit: int = 20) -> list[Plan]:
        """Return the newest plans that touch this group, newest first."""
        async with self._changes.look() as tx:
            plans = await tx.find(Plan, newest=True, limit=500)
        return [p for p in plans if name in {x.group for x in p.steps} | {x.group for x in p.notes}][:limit]

    async def _check(self, change: Change, row: Group, have: Group | None) -> None:
        if row.kind is GroupKind.ELASTIC and not await change.tx.get(Provider, row.provider):
            known = [p.name for p in await change.tx.find(Provider)]
            raise Invalid(
                f"group {row.name!r} names provider {row.provider!r}, which is not there",
                hint=f"known: {', '.join(known)}" if known else "add one first: atoll provider add sim",
            )
        if not 0 <= row.size.min <= row.size.max:
            raise Invalid(f"size is {row.size.min}..{row.size.max}", hint="it must be 0 <= min <= max")
        for hours in (*row.hours, *(time.hours for time in row.pools.hot_times)):
            check_zone(hours.zone)
        if have and (have.kind, have.provider, have.site) != (row.kind, row.provider, row.site):
            raise Conflict("kind, provider and site of a group cannot change", hint="create another group")
        if not await change.tx.get(Site, row.site):
            check_name(row.site, "site")
            await change.tx.insert(Site(name=row.site, created_at=change.now))
            await change.event("site", row.site, "created", name=row.site)

    async def _dependents(self, change: Change, row: Group) -> list[str]:
        live = await change.tx.find(Instance, group=row.name, state=LIVE)
        agents = await change.tx.find(Agent, group=row.name, state=list(KEPT))
        return [f"instance {i.id}" for i in live] + [f"agent {a.name}" for a in agents if not a.instance]

    def _way_out(self, row: Group) -> str:
        if row.kind is GroupKind.ELASTIC:
            return f"end them first: atoll group terminate {row.name} (add --now to end what runs there)"
        return "remove those first"


class Providers(Named[Provider]):
    """Cloud accounts; `driver` makes the port of one."""

    def __init__(self, changes: Changes, catalog: Catalog, on_change: Callable[[], None]) -> None:
        super().__init__(Provider, changes, on_change)
        self._catalog = catalog

    async def driver(self, name: str) -> Driver:
        """Return the driver of a provider."""
        return self._catalog.driver(await self.get(name))

    async def rotate(self, name: str, credentials: Mapping[str, object], *, by: str) -> Provider:
        """Replace a provider's credentials once its driver's doctor finds the new ones well.

        Raises `Conflict`, and the old ones stay, when it does not. What is being launched goes on.
        """
        if not check_clear(credentials):
            raise Invalid("no credentials were given", hint="atoll provider rotate NAME --set credentials.KEY=@FILE")
        have = await self.get(name)
        wanted = self._catalog.closed(replace(have, settings=have.settings | {"credentials": dict(credentials)}), have)
        await self._well(wanted)
        async with self._changes.commit("provider.rotate") as change:
            now = await self._get(change, name)
            if now.version != have.version:
                raise Conflict(f"provider {name!r} changed meanwhile", hint="rotate again")
            saved = await change.tx.update(wanted)
            await change.event("provider", name, "rotated", name=name, reason=Reason.USER, message=f"by {by}")
        self._on_change()
        return saved

    async def _well(self, row: Provider) -> None:
        """Raise `Conflict` unless the driver's doctor finds everything well with this row."""
        try:
            found = await self._catalog.trial(row).doctor()
        except ProviderError as error:
            raise Conflict(
                f"the new credentials of {row.name} do not work: {error.message}", hint="the old ones stay in use"
            ) from error
        if bad := [f"{finding.check}: {finding.message}" for finding in found if not finding.ok]:
            raise Conflict(
                f"the new credentials of {row.name} do not work: {'; '.join(bad)}", hint="the old ones stay in use"
            )

    def _kept(self, row: Provider, have: Provider | None) -> Provider:
        return self._catalog.closed(row, have)

    async def shapes(self, name: str) -> list[Shape]:
        """Return what the provider can make, with prices."""
        return list(await self._catalog.shapes(await self.get(name)))

    async def _check(self, change: Change, row: Provider, have: Provider | None) -> None:  # noqa: ARG002
        if have and have.kind != row.kind:
            raise Conflict("the kind of a provider cannot change", hint="add another provider")
        self._catalog.trial(row)

    async def _follow(self, change: Change, row: Provider, *, deleted: bool = False) -> None:
        if deleted:
            await change.tx.delete(PriceList, row.name)

    async def _dependents(self, change: Change, row: Provider) -> list[str]:
        live = await change.tx.find(Instance, provider=row.name, state=LIVE)
        groups = await change.tx.find(Group, provider=row.name)
        return [f"instance {i.id}" for i in live] + [f"group {g.name}" for g in groups]

    def _way_out(self, row: Provider) -> str:  # noqa: ARG002
        return "first, for each group: atoll group terminate GROUP --now, then atoll group delete GROUP"
