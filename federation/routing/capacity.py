"""The capacity index: every agent's free slots and every launchable shape, changed event by event, searched fast."""

from collections.abc import Iterator, Sequence

from atoll.instance import Shape
from atoll.offer import Demand
from atoll.slots import Slots
from federation.routing.bins import BIN_SIZE, Bin, BinKind, Launchable, Row, Seat
from federation.routing.lens import Lens, LensKey, lens_key

__all__ = ["Capacity", "Launchable", "Seat"]

LENSES = 1024
"""How many kinds of demand keep their view of the index between calls."""
LOG_SIZE = 4096
"""Growth events kept; a lens that missed more searches everything once."""


class Capacity:
    """All seats and launchables. A changed seat costs a few microseconds; nothing is rebuilt per call.

    Only a bin's first and last agent change its structure: then each kind of demand ranks the bins
    again the next time it is asked for.
    """

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}
        self._bins: list[Bin | None] = []
        self._free_numbers: list[int] = []
        self._by_kind: dict[BinKind, list[Bin]] = {}
        self._sizes: dict[Slots, int] = {}
        self._launchables: dict[str, tuple[Launchable, ...]] = {}
        self._shapes: dict[str, tuple[tuple[str, Shape], ...]] = {}
        self._lenses: dict[LensKey, Lens] = {}
        self._structure = 0
        self._shape_version = 0
        self._grown: list[int] = []
        self._epoch = 0

    def put_seat(self, seat: Seat) -> None:
        """Add the seat of an agent, or replace it."""
        kind = (seat.site, seat.group, seat.capacity, seat.price, seat.spot)
        row = self._rows.get(seat.agent)
        if row is not None and row.bin.kind == kind:
            self._change(row, seat)
            return
        if row is not None:
            self._leave(row)
        home = self._home(kind)
        self._rows[seat.agent] = row = Row(seat, home)
        home.add(row)
        self._note_growth(home)

    def drop_seat(self, agent: str) -> None:
        """Forget an agent; an unknown one is no error."""
        row = self._rows.pop(agent, None)
        if row is not None:
            self._leave(row)

    def seat(self, agent: str) -> Seat | None:
        """Return an agent's seat as last put, or None."""
        row = self._rows.get(agent)
        return row.seat if row else None

    def seats(self) -> Iterator[Seat]:
        """Yield all seats."""
        return (row.seat for row in self._rows.values())

    def set_launchables(self, group: str, launchables: Sequence[Launchable]) -> None:
        """Replace what `group` may launch (empty: nothing). Only new shapes or prices cost more than a look."""
        shapes = tuple((launchable.site, launchable.shape) for launchable in launchables)
        if shapes != self._shapes.get(group, ()):
            self._shape_version += 1
        if launchables:
            self._launchables[group] = tuple(launchables)
            self._shapes[group] = shapes
        else:
            self._launchables.pop(group, None)
            self._shapes.pop(group, None)

    def launchables(self) -> Iterator[Launchable]:
        """Yield all launchables, group by group."""
        return (launchable for offered in self._launchables.values() for launchable in offered)

    def launchable(self, group: str, index: int) -> Launchable:
        """Return one launchable by its place in its group's list."""
        return self._launchables[group][index]

    @property
    def considered(self) -> int:
        """How many agents and shapes there are."""
        return len(self._rows) + sum(map(len, self._launchables.values()))

    def bins(self) -> Iterator[Bin]:
        """Yield all bins with agents."""
        return (home for home in self._bins if home is not None)

    def lens(self, demand: Demand) -> Lens:
        """Return the up-to-date view that demands like this one share."""
        key = lens_key(demand)
        lens = self._lenses.get(key)
        if lens is None:
            if len(self._lenses) >= LENSES:
                del self._lenses[next(iter(self._lenses))]
            lens = self._lenses[key] = Lens(key)
        if lens.structure != self._structure:
            lens.see_bins(self._bins, self._structure)
        elif lens.epoch != self._epoch:
            lens.open = (1 << len(lens.order)) - 1
        elif lens.seen != len(self._grown):
            lens.see_growth(set(self._grown[lens.seen :]))
        lens.epoch, lens.seen = self._epoch, len(self._grown)
        if lens.shapes != self._shape_version:
            lens.see_launchables(self._launchables.items(), self._shape_version)
        return lens

    def first(self, lens: Lens) -> Row | None:
        """Return the cheapest open agent that fits, or None."""
        bins, order, request = self._bins, lens.order, lens.request
        while lens.open:
            low = lens.open & -lens.open
            home = bins[order[low.bit_length() - 1]]
            row = home.first(request) if home is not None else None
            if row is not None:
                return row
            lens.open ^= low
        return None

    def fitting(self, lens: Lens) -> Iterator[Row]:
        """Yield all open agents that fit, cheapest first; the index must not change meanwhile."""
        mask = lens.open
        while mask:
            low = mask & -mask
            mask ^= low
            home = self._bins[lens.order[low.bit_length() - 1]]
            if home is not None:
                yield from home.fitting(lens.request)

    def take(self, row: Row, lens: Lens) -> None:
        """Take a member's slots from an agent for the time of a trial, until `undo`."""
        gpu, cpu, memory, disk, agent = row.key
        request = lens.request
        free = row.free
        if row.bin.mixed and (taken := free.take(request)) is not None:
            free = free - taken
        key = (gpu - request.gpu.milli, cpu - request.cpu, memory - request.memory, disk - request.disk, agent)
        row.bin.move(row, free, key)

    def undo(self, row: Row) -> None:
        """Give an agent back what its seat says, after a trial."""
        row.bin.move(row, row.seat.free, (*_amounts(row.seat), row.seat.agent))
        self._note_growth(row.bin)

    def _change(self, row: Row, seat: Seat) -> None:
        before, was_open = row.key, row.seat.open
        row.bin.remove(row)
        row.seat, row.free = seat, seat.free
        row.key = after = (*_amounts(seat), seat.agent)
        row.bin.add(row)
        if seat.open and (
            not was_open or row.bin.mixed or any(b > a for a, b in zip(before[:4], after[:4], strict=True))
        ):
            self._note_growth(row.bin)

    def _leave(self, row: Row) -> None:
        home = row.bin
        home.remove(row)
        if not home.rows:
            self._bins[home.number] = None
            self._free_numbers.append(home.number)
            alike = self._by_kind[home.kind]
            alike.remove(home)
            if not alike:
                del self._by_kind[home.kind]
            self._structure += 1

    def _home(self, kind: BinKind) -> Bin:
        alike = self._by_kind.setdefault(kind, [])
        for home in reversed(alike):
            if len(home.rows) < BIN_SIZE:
                return home
        if self._free_numbers:
            number = self._free_numbers.pop()
        else:
            number = len(self._bins)
            self._bins.append(None)
        home = Bin(kind, number, self._sizes.setdefault(kind[2], len(self._sizes)))
        self._bins[number] = home
        alike.append(home)
        self._structure += 1
        return home

    def _note_growth(self, home: Bin) -> None:
        if len(self._grown) >= LOG_SIZE:
            self._grown.clear()
            self._epoch += 1
        self._grown.append(home.number)


def _amounts(seat: Seat) -> tuple[int, int, int, int]:
    free = seat.free
    return (free.gpu_milli, free.cpu, free.memory, free.disk)
