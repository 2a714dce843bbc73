"""The simulated world: machines, what runs on them, and what they cost, as the router and the planner see it.

Everything that changes a machine goes through `World`, which keeps the router's index, the planner's views and the
accounts up to date: no look at all machines is made for a decision.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from atoll.group import Group, GroupKind
from atoll.instance import Shape
from atoll.offer import WAIT_VALUE, OfferKind
from atoll.slots import Slots
from atoll.states import AgentState, Reason
from autoscaler.limits import Ceiling, Limits
from autoscaler.pools import predict
from autoscaler.predict import Arrivals, Ready
from autoscaler.view import AgentView, ColdView, GroupView, PendingView
from federation.control.arrivals import pools
from federation.control.hours import hot_count, next_change, open_now
from federation.routing.capacity import Capacity, Launchable, Seat, Standby
from federation.simulate.ledger import Ledger
from federation.simulate.model import Job, Machine, MachineUse, Options, Setup
from federation.simulate.places import Launched, Member, Place, Task, billed
from federation.simulate.refusals import Refusals

FORGET_S = 3600.0
"""How often what is too old to predict from is dropped."""


class World:
    """All places and launches. Times are passed in and never go back.

    `changes` counts whatever a plan depends on beside the waiting sessions and the time.
    """

    def __init__(self, setup: Setup, options: Options, began: float, wait_value: int = WAIT_VALUE) -> None:
        self.capacity = Capacity()
        self.awaited: dict[str, list[Task]] = {}
        """Who is to be served by what machine, as the last plan says, by instance."""
        self._wait_value = wait_value
        for site in setup.sites:
            self.capacity.set_site(site.name, region=site.labels.get("region", ""), egress=site.egress)
        self.groups = {group.name: _with_idle(group, options.idle_s) for group in setup.groups}
        self.places: dict[str, Place] = {}
        self.ledger = Ledger(setup, began)
        self.gone: list[MachineUse] = []
        self.changes = 0
        self.refusals = Refusals(setup, options)
        self._setup = setup
        self._labels = _labels(setup)
        self._open = {name: open_now(group.hours, began) for name, group in self.groups.items()}
        self._opens_at = {name: next_change(group.hours, began) for name, group in self.groups.items() if group.hours}
        self._shapes = {name: _offered(group, setup) for name, group in self.groups.items()}
        self._start_s = {name: max((s.start_s for s in of), default=0.0) for name, of in self._shapes.items()}
        self._room: dict[str, tuple[int, dict[str, str]]] = {}
        self._arrivals = {pool: Arrivals() for pool in pools(self.groups.values())}
        self._forgot_at = began
        self._members: dict[str, dict[str, Place]] = {name: {} for name in self.groups}
        self._launched: dict[str, dict[str, Launched]] = {name: {} for name in self.groups}
        self._pending: dict[str, dict[str, Launched]] = {name: {} for name in self.groups}
        self._empty: dict[str, Place] = {}
        self._draining: set[str] = set()
        self._grew_at: dict[str, float] = {}
        self._dirty: dict[str, Place] = {}
        prices = {site.name: site.price for site in setup.sites}
        for machine in setup.machines:
            self._add_fixed(machine, prices[machine.site], began)
        self.settle(began)

    # -- what the router sees ---------------------------------------------------------------------

    def settle(self, now: float) -> Capacity:
        """Bring the router's index up to date with this moment and return it."""
        for name, group in self.groups.items():
            if group.hours and self._open[name] is not open_now(group.hours, now):
                self._open[name] = not self._open[name]
                self._opens_at[name] = next_change(group.hours, now)
                self._dirty.update(self._members[name])
        for place in self._dirty.values():
            self._seat(place)
        self._dirty.clear()
        for group in self.groups.values():
            if group.kind is GroupKind.ELASTIC:
                self._offer(group, now)
        self.capacity.set_standbys(self._standbys(now))
        return self.capacity

    def _seat(self, place: Place) -> None:
        if place.id not in self.places:
            self.capacity.drop_seat(place.id)
            return
        closed, why = Reason.NONE, ""
        if place.state is AgentState.DRAINING:
            closed, why = Reason.AWAITING_ACKNOWLEDGEMENT, "is being emptied"
        elif not self._open[place.group]:
            closed, why = Reason.OUTSIDE_HOURS, "takes no sessions at this hour"
        shape, launched = place.shape, place.machine is not None
        self.capacity.put_seat(
            Seat(
                agent=place.id,
                site=place.site,
                group=place.group,
                capacity=place.capacity,
                free=place.free,
                price=place.price,
                spot=shape.spot,
                open=closed is Reason.NONE,
                why_closed=closed,
                message=why,
                opens_at=self._opens_at[place.group] if closed is Reason.OUTSIDE_HOURS else None,
                labels=self._labels[place.group],
                driver=place.driver or self.groups[place.group].driver,
                owned=not launched,
                provider=shape.provider,
                shape=shape.name if launched else "",
                interruptions=shape.interruptions,
            )
        )

    def _offer(self, group: Group, now: float) -> None:
        room = self._free(group)
        ceilings, blocked = self._ceilings(group), self.refusals.blocked(self._shapes[group.name], now)
        if not ceilings and self._room.get(group.name) == (room, blocked):
            return
        self._room[group.name] = (room, blocked)
        limits = Limits(ceilings)
        offered = []
        for shape in self._shapes[group.name]:
            why, text = Reason.NONE, ""
            if shape.key in blocked:
                why, text = Reason.BACKOFF, blocked[shape.key]
            elif short := limits.short(group.provider, shape):
                why, text = Reason.QUOTA, short.text(shape)
            offered.append(
                Launchable(
                    group=group.name,
                    site=group.site,
                    provider=group.provider,
                    shape=shape,
                    room=room,
                    blocked=why,
                    message=text,
                    labels=self._labels[group.name],
                    driver=group.driver,
                )
            )
        self.capacity.set_launchables(group.name, offered)

    def _standbys(self, now: float) -> list[Standby]:
        """Return the machines that are on their way, with what is over on them, and those that are stopped."""
        found = []
        for name, machines in self._launched.items():
            coming, group = self._pending[name], self.groups[name]
            stopped = [(key, machine) for key, machine in machines.items() if machine.stopped]
            room = self._free(group) if coming or stopped else 0
            for key, machine in (*coming.items(), *stopped):
                shape, waiting = machine.shape, self._expecting(key) if key in coming else []
                due = machine.since + shape.start_s - now
                found.append(
                    Standby(
                        group=name,
                        site=group.site,
                        provider=group.provider,
                        shape=shape,
                        room=room,
                        labels=self._labels[name],
                        driver=group.driver,
                        instance=key,
                        kind=OfferKind.PENDING if key in coming else OfferKind.COLD,
                        start_s=max(0.0, due) if key in coming else shape.start_s,
                        free=_left(shape.slots, waiting),
                        sessions=tuple(task.job.id for task in waiting),
                    )
                )
        return found

    def _free(self, group: Group) -> int:
        """Return how many machines more a group may have running."""
        return max(0, group.size.max - sum(not machine.stopped for machine in self._launched[group.name].values()))

    def _ceilings(self, group: Group) -> tuple[Ceiling, ...]:
        """Return the limits of the group's account with what all launched machines of that provider take of them."""
        given = self._setup.limits.get(group.provider, ())
        if not given:
            return ()
        beside = [
            machine.shape
            for name, machines in self._launched.items()
            if self.groups[name].provider == group.provider
            for machine in machines.values()
        ]
        return tuple(replace(c, committed=c.committed + sum(c.takes(shape) for shape in beside)) for c in given)

    # -- what the planner sees --------------------------------------------------------------------

    def views(self, now: float, *, gangs: bool) -> list[GroupView]:
        """Return the planner's views.

        Of a fixed group, whose agents a plan lends to gangs only, agents are drawn where a gang waits.
        """
        return [self._view(group, now, gangs) for group in self.groups.values()]

    def _expecting(self, instance: str) -> list[Task]:
        """Return who still waits of those that a machine is to serve."""
        return [task for task in self.awaited.get(instance, ()) if task.waits]

    def came(self, job: Job) -> None:
        """A job was submitted: groups that predict their hot pools learn from it."""
        for pool, arrivals in self._arrivals.items():
            if count := pool.units(job.request, job.nodes, job.sites, job.groups):
                arrivals.note(job.at, count)

    def _predicted(self, view: GroupView, now: float) -> Ready:
        if now - self._forgot_at > FORGET_S:
            self._forgot_at = now
            for arrivals in self._arrivals.values():
                arrivals.forget(now)
        found = (arrivals for pool, arrivals in self._arrivals.items() if pool.group == view.group.name)
        return next((predict(view, arrivals, now, self._wait_value) for arrivals in found), Ready())

    def _view(self, group: Group, now: float, gangs: bool) -> GroupView:
        name, elastic = group.name, group.kind is GroupKind.ELASTIC
        members = self._members[name].values() if elastic or gangs else ()
        view = GroupView(
            group=group,
            agents=tuple(place.seen or self._agent(place, now) for place in members),
            pending=tuple(
                PendingView(instance=key, shape=machine.shape, sessions=tuple(t.job.id for t in self._expecting(key)))
                for key, machine in self._pending[name].items()
            ),
            cold=tuple(ColdView(instance=key, shape=m.shape) for key, m in self._launched[name].items() if m.stopped),
            shapes=self._shapes[name],
            blocked=self.refusals.blocked(self._shapes[name], now),
            limits=self._ceilings(group),
            since_growth_s=now - self._grew_at.get(name, -1e9),
            hot=hot_count(group, now) if elastic and group.pools.hot_times else None,
        )
        return replace(view, predicted=self._predicted(view, now)) if group.pools.predict else view

    def _agent(self, place: Place, now: float) -> AgentView:
        """Return the planner's view of an agent; a busy one's holds until something changes there.

        What runs there is told only where it may move: where the group consolidates, or something has a deadline.
        """
        tells = self.groups[place.group].scale_down.consolidate or any(
            task.job.deadline_s is not None for task in place.tasks.values()
        )
        view = AgentView(
            id=place.id,
            instance=place.machine.id if place.machine else "",
            shape=place.shape,
            capacity=place.capacity,
            free=place.free,
            sessions=tuple(place.holding),
            protected=any(task.protected(now) for task in place.tasks.values()),
            running=tuple(
                task.view(now, self._start_s[place.group])
                for task in place.tasks.values()
                if tells and task.job.checkpoint
            ),
            idle_s=0.0 if place.holding else now - place.idle_since,
            paid_s=_paid_s(place, now),
            state=place.state,
            epoch=place.epoch,
            cordon_epoch=place.cordon_epoch,
            acknowledged_epoch=place.acknowledged_epoch,
        )
        if place.holding and not tells:
            place.seen = view
        return view

    def offered(self, group: Group) -> tuple[Shape, ...]:
        """Return the shapes that a group may launch, to be had now or not."""
        return self._shapes[group.name]

    @property
    def restless(self) -> bool:
        """Say whether time alone may change what the planner wants: a machine is empty, or on its way out."""
        return bool(self._empty or self._draining)

    @property
    def booting(self) -> int:
        """How many machines are on their way."""
        return sum(map(len, self._pending.values()))

    def live(self) -> Iterator[Launched]:
        """Yield all launched machines that are not gone."""
        for machines in self._launched.values():
            yield from machines.values()

    def next_idle(self, now: float) -> float | None:
        """Return when the next empty machine will have been idle for as long as its group says, None for none."""
        found = None
        for place in self._empty.values():
            rules = self.groups[place.group].scale_down
            at = max(
                _after(place.idle_since, rules.idle_s),
                _after(self._grew_at.get(place.group, -1e18), rules.cooldown_s),
            )
            if at > now and (found is None or at < found):
                found = at
        return found

    # -- sessions ---------------------------------------------------------------------------------

    def hold(self, task: Task, members: Iterable[Member], now: float) -> None:
        """Give a task the slots of these members; the router saw that they are free."""
        for member in members:
            place = member.place
            free = place.free - member.slots
            if min(free.cpu, free.memory, free.disk) < 0 or any(gpu.milli < 0 for gpu in free.gpu):
                raise AssertionError(f"{task.job.id} does not fit on {place.id}: {place.free} free")
            place.free = free
            place.holding[task.job.id] = member.slots
            place.tasks[task.job.id] = task
            self._empty.pop(place.id, None)
            self._touch(place)
            self.ledger.use(place.site, member.slots, 1, now)

    def release(self, task: Task, members: Iterable[Member], now: float) -> None:
        """Take the slots back; a machine that is gone has given up its own already."""
        for member in members:
            place = member.place
            if self.places.get(place.id) is not place:
                continue
            place.free = place.free + place.holding.pop(task.job.id)
            del place.tasks[task.job.id]
            if not place.holding:
                place.idle_since = now
                if place.machine is not None:
                    self._empty[place.id] = place
            self._touch(place)
            self.ledger.use(place.site, member.slots, -1, now)

    def _touch(self, place: Place) -> None:
        self._dirty[place.id] = place
        place.seen = None
        self.changes += 1

    # -- machines ---------------------------------------------------------------------------------

    def launch(self, instance: str, group: Group, shape: Shape, now: float) -> Launched:
        """Order a machine: it costs from now on, unless there is none to be had: who orders it learns that later."""
        machine = Launched(instance, group, shape, launched_at=now, since=now)
        machine.refused = self.refusals.refuses(shape, instance, now)
        self._launched[group.name][instance] = machine
        self._begin(machine, now)
        return machine

    def refuse(self, machine: Launched, now: float) -> float:
        """The cloud had no capacity for a machine; return when its shape is asked for again."""
        del self._pending[machine.group.name][machine.id]
        del self._launched[machine.group.name][machine.id]
        self.changes += 1
        return self.refusals.failed(machine.shape, now)

    def start(self, instance: str, group: str, now: float) -> Launched:
        """Start a stopped machine."""
        machine = self._launched[group][instance]
        machine.stopped = False
        machine.since = now
        self._begin(machine, now)
        return machine

    def _begin(self, machine: Launched, now: float) -> None:
        machine.starts += 1
        self.changes += 1
        self._pending[machine.group.name][machine.id] = machine
        self._grew_at[machine.group.name] = now
        if not machine.refused:
            self.ledger.capacity(machine.group.site, machine.shape.slots, 1, now)

    def join(self, machine: Launched, now: float) -> Place:
        """A machine's agent has registered."""
        del self._pending[machine.group.name][machine.id]
        if machine.joined_at is None:
            machine.joined_at = now
            self.refusals.made(machine.shape)
        shape, group = machine.shape, machine.group
        place = Place(f"a-{machine.id}", group.site, group.name, shape.slots, shape.price or 0, shape, machine)
        place.free, place.idle_since = shape.slots, now
        machine.place = place
        self.places[place.id] = self._members[group.name][place.id] = self._empty[place.id] = place
        self._touch(place)
        return place

    def drain(self, place: Place) -> int:
        """Close an agent to new sessions; return the epoch it has to acknowledge."""
        place.state = AgentState.DRAINING
        place.epoch += 1
        place.cordon_epoch = place.epoch
        self._draining.add(place.id)
        self._touch(place)
        return place.cordon_epoch

    def acknowledge(self, place: Place, epoch: int) -> None:
        """The agent has confirmed that it takes nothing more."""
        place.acknowledged_epoch = epoch
        place.seen = None
        self.changes += 1

    def undrain(self, place: Place) -> None:
        """Open an agent again."""
        place.state = AgentState.READY
        place.epoch += 1
        self._draining.discard(place.id)
        self._touch(place)

    def stop(self, machine: Launched, now: float) -> None:
        """Stop an empty machine: it keeps its disk, and costs nothing here."""
        self._leave(machine, now)
        machine.stopped = True

    def end(self, machine: Launched, now: float, *, reclaimed: bool = False) -> list[str]:
        """End a machine; return the sessions that held slots on it (none, but where a cloud reclaims it)."""
        held = list(machine.place.holding) if machine.place else []
        self._pending[machine.group.name].pop(machine.id, None)
        if not machine.stopped:
            self._leave(machine, now)
        del self._launched[machine.group.name][machine.id]
        use = MachineUse(
            id=machine.id,
            group=machine.group.name,
            site=machine.group.site,
            shape=machine.shape,
            launched_at=machine.launched_at,
            joined_at=machine.joined_at,
            ended_at=now,
            cost=machine.paid,
            reclaimed=reclaimed,
        )
        self.gone.append(use)
        return held

    def _leave(self, machine: Launched, now: float) -> None:
        place = machine.place
        if place is not None:
            for slots in place.holding.values():
                self.ledger.use(place.site, slots, -1, now)
            del self.places[place.id], self._members[place.group][place.id]
            self._empty.pop(place.id, None)
            self._draining.discard(place.id)
            self._touch(place)
            machine.place = None
        self.changes += 1
        paid = billed(machine.shape, now - machine.since)
        machine.paid += paid
        self.ledger.pay(machine.group.site, paid)
        self.ledger.capacity(machine.group.site, machine.shape.slots, -1, now)

    def _add_fixed(self, machine: Machine, price: int, now: float) -> None:
        key, site, has = machine.id, machine.site, machine.capacity
        shape = Shape(provider="", name=key, zone=site, slots=has, price=price or None)
        place = Place(key, site, machine.group, has, price, shape, free=has, driver=machine.driver, idle_since=now)
        self.places[key] = self._members[machine.group][key] = place
        self.ledger.capacity(site, has, 1, now)
        self._touch(place)


def _paid_s(place: Place, now: float) -> float:
    """Return for how long a machine is paid for already: what is left of the period its cloud charges by."""
    period = place.shape.billing_s
    if place.machine is None or period <= 1.0 or place.holding:
        return 0.0
    return period - (now - place.machine.since) % period


def _left(whole: Slots, tasks: Iterable[Task]) -> Slots:
    """Return what a member of each of these tasks leaves of a machine."""
    for task in tasks:
        if taken := whole.take(task.demand.request):
            whole = whole - taken
    return whole


def _labels(setup: Setup) -> dict[str, tuple[tuple[str, str], ...]]:
    """Return what the agents of each group are labelled with: by their site, and by the group."""
    sites = {site.name: site.labels for site in setup.sites}
    return {group.name: tuple(sorted((sites[group.site] | group.labels).items())) for group in setup.groups}


def _offered(group: Group, setup: Setup) -> tuple[Shape, ...]:
    shapes: Sequence[Shape] = setup.shapes.get(group.provider, ()) if group.kind is GroupKind.ELASTIC else ()
    return tuple(
        shape
        for shape in shapes
        if (not group.shapes or shape.name in group.shapes) and (group.spot is None or shape.spot == group.spot)
    )


def _after(since: float, seconds: float) -> float:
    """Return the first time at which `seconds` have passed, also as a difference of rounded numbers shows it."""
    at = since + seconds
    while at - since < seconds:
        at = math.nextafter(at, math.inf)
    return at


def _with_idle(group: Group, idle_s: float | None) -> Group:
    if idle_s is None or group.kind is not GroupKind.ELASTIC:
        return group
    return replace(group, scale_down=replace(group.scale_down, idle_s=idle_s, cooldown_s=min(idle_s, 30.0)))
