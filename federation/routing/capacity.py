"""The capacity index: every agent's free slots and every launchable shape, changed event by event, searched fast."""

from collections.abc import Iterator, Sequence

from atoll.instance import Shape
from atoll.offer import Demand
from atoll.slots import Slots
from federation.routing.bins import BIN_SIZE, Bin, BinKind, Key, Launchable, Make, MakeKind, Row, Seat, Standby, key_of
from federation.routing.cost import SiteTerms
from federation.routing.lens import Lens, LensKey, lens_key
from federation.routing.rules import PLAIN, Rules

__all__ = ["Capacity", "Launchable", "Seat", "Standby"]

LENSES = 1024
"""How many kinds of demand keep their view of the index between calls."""
LOG_SIZE = 4096
"""Events kept; a lens that missed more looks at every make anew."""


class Capacity:
    """All seats and launchables. A changed seat costs a few microseconds; nothing is rebuilt per call.

    Each kind of demand looks through a lens of its own, kept until `LENSES` newer kinds have come. What happened
    since its last look it reads from a log: bins that have more free, and makes that gained or lost a bin.
    """

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}
        self._makes: dict[MakeKind, Make] = {}
        self._made = 0
        self._launchables: dict[str, tuple[Launchable, ...]] = {}
        self.standbys: tuple[Standby, ...] = ()
        """The machines that are on their way or stopped, of all groups: `set_standbys` says which."""
        self._sites: dict[str, SiteTerms] = {}
        self._rules = PLAIN
        self._lenses: dict[LensKey, Lens] = {}
        self._shape_version = 0
        self.launch_version = 0
        """Rises with every change of what may be launched."""
        self._log: list[Bin | Make] = []
        self._log_start = 0
        self._tried: dict[str, Row] = {}
        self._undone = False

    # -- what there is ----------------------------------------------------------------------------

    def put_seat(self, seat: Seat) -> None:
        """Add the seat of an agent, or replace it."""
        make_kind = MakeKind(seat.capacity, seat.spot, seat.labels, seat.driver, seat.interruptions)
        kind = BinKind(seat.site, seat.group, seat.price, seat.owned, seat.provider, seat.shape)
        row = self._rows.get(seat.agent)
        if row is not None:
            if row.bin.kind == kind and row.bin.make.kind == make_kind:
                self._change(row, seat)
                return
            self._leave(row)
        home = self._home(make_kind, kind)
        self._rows[seat.agent] = row = Row(seat, home)
        home.add(row)
        self._note(home)

    def drop_seat(self, agent: str) -> None:
        """Forget an agent; an unknown one is no error."""
        row = self._rows.pop(agent, None)
        if row is not None:
            self._leave(row)

    def seat(self, agent: str) -> Seat | None:
        """Return an agent's seat as last put, or None."""
        row = self._rows.get(agent)
        return row.seat if row else None

    def row(self, agent: str) -> Row | None:
        """Return an agent's entry, with what a trial has left free, or None."""
        self._settle()
        return self._rows.get(agent)

    def seats(self) -> Iterator[Seat]:
        """Yield all seats."""
        return (row.seat for row in self._rows.values())

    def set_site(self, site: str, *, region: str = "", egress: int = 0) -> None:
        """Say in what region a site is, and what a GiB costs (micro-units) that leaves it: unknown and 0 until said."""
        terms = SiteTerms(region, egress)
        if self._sites.get(site, SiteTerms()) != terms:
            self._sites[site] = terms
            self._lenses.clear()

    def region(self, site: str) -> str:
        """Return a site's region, empty where unknown."""
        found = self._sites.get(site)
        return found.region if found else ""

    def set_launchables(self, group: str, launchables: Sequence[Launchable]) -> None:
        """Replace what `group` may launch (empty: nothing). Only new shapes or prices cost more than a look."""
        before = self._launchables.get(group, ())
        after = tuple(launchables)
        if before == after:
            return
        self.launch_version += 1
        if [_lasting(one) for one in before] != [_lasting(one) for one in after]:
            self._shape_version += 1
        if after:
            self._launchables[group] = after
        else:
            del self._launchables[group]

    def launchables(self) -> Iterator[Launchable]:
        """Yield all launchables, group by group."""
        return (launchable for offered in self._launchables.values() for launchable in offered)

    def launchable(self, group: str, index: int) -> Launchable:
        """Return one launchable by its place in its group's list."""
        return self._launchables[group][index]

    def set_standbys(self, standbys: Sequence[Standby]) -> None:
        """Say anew which machines are on their way or stopped, of all groups: nothing is kept of them between calls."""
        self.standbys = tuple(standbys)

    @property
    def considered(self) -> int:
        """How many agents, shapes, and machines on their way or stopped there are."""
        return len(self._rows) + sum(map(len, self._launchables.values())) + len(self.standbys)

    def makes(self) -> Iterator[Make]:
        """Yield all makes, each with its bins."""
        self._settle()
        return iter(self._makes.values())

    def bins(self) -> Iterator[Bin]:
        """Yield all bins."""
        return (home for make in self._makes.values() for alike in make.by_kind.values() for home in alike)

    # -- what a demand sees -----------------------------------------------------------------------

    def use(self, rules: Rules) -> None:
        """Weigh offers by these rules from now on; other rules than before cost every kind of demand a new look."""
        if rules is not self._rules and (rules != self._rules or rules.judge is not self._rules.judge):
            self._lenses.clear()
        self._rules = rules

    def lens(self, demand: Demand) -> Lens:
        """Return the up-to-date view that demands like this one share."""
        if self._undone:
            self._settle()
        key = lens_key(demand, self._rules.reads)
        lens = self._lenses.get(key)
        if lens is None:
            if len(self._lenses) >= LENSES:
                del self._lenses[next(iter(self._lenses))]
            lens = self._lenses[key] = Lens(demand, self._rules, self._sites)
        return self.renew(lens)

    def renew(self, lens: Lens) -> Lens:
        """Return a view after it has taken in what happened since its last look."""
        end = self._log_start + len(self._log)
        if lens.seen < self._log_start:
            lens.see_all(self._makes.values())
        elif lens.seen != end:
            lens.see(dict.fromkeys(self._log[lens.seen - self._log_start :]))
        lens.seen = end
        if lens.shapes != self._shape_version:
            lens.see_launchables(self.launchables(), self._shape_version)
        return lens

    def first(self, lens: Lens) -> Row | None:
        """Return the cheapest open agent that fits, or None."""
        found = lens.find()
        return found[0] if found else None

    def fitting(self, lens: Lens, each: int = BIN_SIZE) -> Iterator[Row]:
        """Yield open agents that fit, cheapest first and at most `each` of a bin; nothing may change meanwhile."""
        return (row for row, _, _ in lens.fitting(each))

    # -- trials -----------------------------------------------------------------------------------

    def take(self, row: Row, lens: Lens) -> None:
        """Take a member's slots from an agent for the time of a trial, until `undo`."""
        gpu, cpu, memory, disk, agent = row.key
        request, home, free = lens.request, row.bin, row.free
        if home.make.mixed and (taken := free.take(request)) is not None:
            free = free - taken
        key = (gpu - request.gpu.milli, cpu - request.cpu, memory - request.memory, disk - request.disk, agent)
        home.move(row, free, key)
        self._tried[agent] = row

    def limit(self, row: Row, free: Slots) -> None:
        """Show so much of an open agent as free for the time of a trial, until `undo`."""
        before, home = row.key, row.bin
        key = (free.gpu_milli, free.cpu, free.memory, free.disk, row.seat.agent)
        home.move(row, free, key)
        self._tried[key[4]] = row
        if home.make.mixed or _gained(before, key):
            self._note(home)

    def undo(self) -> None:
        """End a trial: what its agents have free is what their seats say.

        That is seen to at the next look: until then most seats have been put as the trial left them, for a caller
        acts on what was decided, and nothing of these needs to be given back and taken anew.
        """
        self._undone = bool(self._tried)

    def _settle(self) -> None:
        if not self._undone:
            return
        for row in self._tried.values():
            home, seat, key = row.bin, row.seat, key_of(row.seat)
            if row.key != key or home.make.mixed:
                home.move(row, seat.free, key)
                self._note(home)
            row.free = seat.free
        self._tried.clear()
        self._undone = False

    # -- inside -----------------------------------------------------------------------------------

    def _change(self, row: Row, seat: Seat) -> None:
        before, after, was_open, home = row.key, key_of(seat), row.seat.open, row.bin
        if was_open is seat.open and seat.agent in self._tried:
            row.seat = seat
            if before == after and not home.make.mixed:
                row.free = seat.free
                del self._tried[seat.agent]
            return
        if was_open is seat.open and before == after and not home.make.mixed:
            row.seat, row.free = seat, seat.free
            return
        self._tried.pop(seat.agent, None)
        home.remove(row)
        row.seat, row.free, row.key = seat, seat.free, after
        home.add(row)
        if was_open is not seat.open or (seat.open and (home.make.mixed or _gained(before, after))):
            self._note(home)

    def _leave(self, row: Row) -> None:
        home, make = row.bin, row.bin.make
        self._tried.pop(row.seat.agent, None)
        home.remove(row)
        row.leave()
        if home.rows:
            return
        make.remove(home)
        if not make.by_kind:
            del self._makes[make.kind]
        self._note(make)

    def _home(self, make_kind: MakeKind, kind: BinKind) -> Bin:
        make = self._makes.get(make_kind)
        if make is None:
            make = self._makes[make_kind] = Make(make_kind, self._made)
            self._made += 1
        for home in reversed(make.by_kind.get(kind, ())):
            if len(home.rows) < BIN_SIZE:
                return home
        home = Bin(make, kind, self._made)
        self._made += 1
        make.add(home)
        self._note(make)
        return home

    def _note(self, event: Bin | Make) -> None:
        if len(self._log) >= LOG_SIZE:
            half = LOG_SIZE // 2
            del self._log[:half]
            self._log_start += half
        self._log.append(event)


def _gained(before: Key, after: Key) -> bool:
    """Say whether there is more of anything."""
    return after[0] > before[0] or after[1] > before[1] or after[2] > before[2] or after[3] > before[3]


def _lasting(launchable: Launchable) -> tuple[str, str, Shape, object, object]:
    """Return what decides whom a launchable could serve and at what cost, unlike its room and what blocks it now."""
    return (launchable.site, launchable.provider, launchable.shape, launchable.labels, launchable.driver)
