"""The simulated world: machines, what runs on them, and what they cost, as the router and the planner see it.

Everything that changes a machine goes through `World`, which keeps the router's index, the planner's views and the
accounts up to date: no look at all machines is made for a decision.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from atoll.group import Group, GroupKind
from atoll.instance import Shape
from atoll.slots import Slots
from atoll.states import AgentState, Reason
from autoscaler.limits import Ceiling, Limits
from autoscaler.view import AgentView, ColdView, GroupView, PendingView
from federation.control.hours import hot_count, open_now
from federation.routing.capacity import Capacity, Launchable, Seat
from federation.simulate.ledger import Ledger
from federation.simulate.model import MachineUse, Options, Setup
from federation.simulate.places import Launched, Member, Place, Task, billed


class World:
    """All places and launches. Times are passed in and never go back.

    `changes` counts whatever a plan depends on beside the waiting sessions and the time.
    """

    def __init__(self, setup: Setup, options: Options, began: float) -> None:
        self.capacity = Capacity()
        for site in setup.sites:
            self.capacity.set_site(site.name, region=site.labels.get("region", ""), egress=site.egress)
        self.groups = {group.name: _with_idle(group, options.idle_s) for group in setup.groups}
        self.places: dict[str, Place] = {}
        self.ledger = Ledger(setup, began)
        self.gone: list[MachineUse] = []
        self.changes = 0
        self._setup = setup
        self._labels = _labels(setup)
        self._open = {name: open_now(group.hours, began) for name, group in self.groups.items()}
        self._shapes = {name: _offered(group, setup) for name, group in self.groups.items()}
        self._room: dict[str, int] = {}
        self._members: dict[str, dict[str, Place]] = {name: {} for name in self.groups}
        self._launched: dict[str, dict[str, Launched]] = {name: {} for name in self.groups}
        self._pending: dict[str, dict[str, Launched]] = {name: {} for name in self.groups}
        self._empty: dict[str, Place] = {}
        self._draining: set[str] = set()
        self._grew_at: dict[str, float] = {}
        self._dirty: dict[str, Place] = {}
        prices = {site.name: site.price for site in setup.sites}
        for machine in setup.machines:
            self._add_fixed(machine.id, machine.site, machine.group, machine.capacity, prices[machine.site], began)
        self.settle(began)

    # -- what the router sees ---------------------------------------------------------------------

    def settle(self, now: float) -> Capacity:
        """Bring the router's index up to date with this moment and return it."""
        for name, group in self.groups.items():
            if group.hours and self._open[name] is not open_now(group.hours, now):
                self._open[name] = not self._open[name]
                self._dirty.update(self._members[name])
        for place in self._dirty.values():
            self._seat(place)
        self._dirty.clear()
        for group in self.groups.values():
            if group.kind is GroupKind.ELASTIC:
                self._offer(group)
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
                labels=self._labels[place.group],
                driver=self.groups[place.group].driver,
                owned=not launched,
                provider=shape.provider,
                shape=shape.name if launched else "",
                interruptions=shape.interruptions,
            )
        )

    def _offer(self, group: Group) -> None:
        room = max(0, group.size.max - sum(not m.stopped for m in self._launched[group.name].values()))
        ceilings = self._ceilings(group)
        if not ceilings and self._room.get(group.name) == room:
            return
        self._room[group.name] = room
        limits = Limits(ceilings)
        offered = []
        for shape in self._shapes[group.name]:
            short = limits.short(group.provider, shape)
            offered.append(
                Launchable(
                    group=group.name,
                    site=group.site,
                    provider=group.provider,
                    shape=shape,
                    room=room,
                    blocked=Reason.QUOTA if short else Reason.NONE,
                    message=short.text(shape) if short else "",
                    labels=self._labels[group.name],
                    driver=group.driver,
                )
            )
        self.capacity.set_launchables(group.name, offered)

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

    def views(self, awaits: dict[str, list[str]], now: float, *, gangs: bool) -> list[GroupView]:
        """Return the planner's views; `awaits` are the instances that each waiting session was told to expect.

        Of a fixed group, whose agents a plan lends to gangs only, agents are drawn where a gang waits.
        """
        expecting: dict[str, list[str]] = {}
        for session, instances in awaits.items():
            for instance in instances:
                expecting.setdefault(instance, []).append(session)
        return [self._view(group, expecting, now, gangs) for group in self.groups.values()]

    def _view(self, group: Group, expecting: dict[str, list[str]], now: float, gangs: bool) -> GroupView:
        name, elastic = group.name, group.kind is GroupKind.ELASTIC
        members = self._members[name].values() if elastic or gangs else ()
        return GroupView(
            group=group,
            agents=tuple(place.seen or self._agent(place, now) for place in members),
            pending=tuple(
                PendingView(instance=key, shape=machine.shape, sessions=tuple(expecting.get(key, ())))
                for key, machine in self._pending[name].items()
            ),
            cold=tuple(ColdView(instance=key, shape=m.shape) for key, m in self._launched[name].items() if m.stopped),
            shapes=self._shapes[name],
            limits=self._ceilings(group),
            since_growth_s=now - self._grew_at.get(name, -1e9),
            hot=hot_count(group, now) if elastic and group.pools.hot_times else None,
        )

    def _agent(self, place: Place, now: float) -> AgentView:
        """Return the planner's view of an agent; a busy one's holds until something changes there.

        What runs there is told only where the group consolidates: nothing else moves for the planner.
        """
        tells = self.groups[place.group].scale_down.consolidate
        view = AgentView(
            id=place.id,
            instance=place.machine.id if place.machine else "",
            shape=place.shape,
            capacity=place.capacity,
            free=place.free,
            sessions=tuple(place.holding),
            protected=any(task.job.protect for task in place.tasks.values()),
            running=tuple(task.view(now) for task in place.tasks.values() if task.job.checkpoint) if tells else (),
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
        """Order a machine: it costs from now on."""
        machine = Launched(instance, group, shape, launched_at=now, since=now)
        self._launched[group.name][instance] = machine
        self._begin(machine, now)
        return machine

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
        self.ledger.capacity(machine.group.site, machine.shape.slots, 1, now)

    def join(self, machine: Launched, now: float) -> Place:
        """A machine's agent has registered."""
        del self._pending[machine.group.name][machine.id]
        if machine.joined_at is None:
            machine.joined_at = now
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

    def _add_fixed(self, key: str, site: str, group: str, capacity: Slots, price: int, now: float) -> None:
        shape = Shape(provider="", name=key, zone=site, slots=capacity, price=price or None)
        place = Place(key, site, group, capacity, price, shape, free=capacity, idle_since=now)
        self.places[key] = self._members[group][key] = place
        self.ledger.capacity(site, capacity, 1, now)
        self._touch(place)


def _paid_s(place: Place, now: float) -> float:
    """Return for how long a machine is paid for already: what is left of the period its cloud charges by."""
    period = place.shape.billing_s
    if place.machine is None or period <= 1.0 or place.holding:
        return 0.0
    return period - (now - place.machine.since) % period


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
