"""Makes and bins: agents that are alike, sorted so that the cheapest place and the tightest fit are found first.

Agents of one make can run the same sessions: the router looks at makes, not agents. Those of one site, group and
price also cost a session the same: they share bins of up to 256. Within a bin, free amounts are kept as sorted
integer keys: GPUs first, so that a session without a GPU takes an agent whose GPUs are used up, then cores.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from atoll.instance import Shape
from atoll.offer import OfferKind
from atoll.slots import Request, Slots
from atoll.states import Reason
from atoll.value import value

BIN_SIZE = 256
"""Bounds the walk over agents that are too full in the later parts of their key."""

Key = tuple[int, int, int, int, str]
"""Free gpu (milli, all models), cpu (milli), memory and disk (bytes), and the agent's id."""

NOTHING: Key = (0, 0, 0, 0, "")
"""The key of no agent: less than any."""

Labels = tuple[tuple[str, str], ...]


@value(kw_only=True)
class Seat:
    """One agent as the router sees it.

    `price` is micro-units an hour for the whole machine. A seat that is not `open` takes nothing now,
    for `why_closed` and `message`, but still counts as capable of what its `capacity` holds. `labels` are those of
    its site, group and own together, `driver` its GPU driver as numbers (empty: unknown). `owned` machines are paid
    for anyway; others have the `provider` and `shape` (a machine type's name) they came from, and spot ones are
    taken away `interruptions` times an hour as far as known. One outside its hours `opens_at` a time (Unix seconds).
    """

    agent: str
    site: str
    group: str
    capacity: Slots
    free: Slots
    price: int = 0
    spot: bool = False
    open: bool = True
    why_closed: Reason = Reason.NONE
    message: str = ""
    labels: Labels = ()
    driver: tuple[int, ...] = ()
    owned: bool = True
    provider: str = ""
    shape: str = ""
    interruptions: float | None = None
    opens_at: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Launchable:
    """A shape that a group may launch. `room` is how many more instances the group may have now.

    `blocked` (with `message`) says why it is not asked for now: a recent no-capacity, quota, throttle. `labels` and
    `driver` are what its agents would have, as in `Seat`.
    """

    group: str
    site: str
    provider: str
    shape: Shape
    room: int
    blocked: Reason = Reason.NONE
    message: str = ""
    labels: Labels = ()
    driver: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Standby(Launchable):
    """A machine of an elastic group that is no agent (yet): PENDING, on its way, or COLD, stopped.

    It is there in `start_s` seconds once it is wanted. `free` is what is left of it after what was promised to the
    waiting `sessions` that it was launched for. A stopped one needs `room` in its group.
    """

    instance: str
    kind: OfferKind
    start_s: float
    free: Slots
    sessions: tuple[str, ...] = ()


class MakeKind(NamedTuple):
    """What all agents of a make have in common."""

    capacity: Slots
    spot: bool
    labels: Labels
    driver: tuple[int, ...]
    interruptions: float | None


class BinKind(NamedTuple):
    """What all agents of a bin have in common beside their make."""

    site: str
    group: str
    price: int
    owned: bool
    provider: str
    shape: str


class Row:
    """An agent's entry: its seat as last put, its bin, and what is free now (within a trial: less than the seat's).

    `free` follows a trial only in a bin of several GPU models, where the key alone does not tell what fits.
    """

    __slots__ = ("bin", "free", "key", "seat")

    def __init__(self, seat: Seat, home: "Bin") -> None:
        self.seat = seat
        self.bin = home
        self.free = seat.free
        self.key = key_of(seat)

    def leave(self) -> None:
        """Fit nothing any more: the agent is gone from the index."""
        self.key = (-1, -1, -1, -1, self.seat.agent)


def key_of(seat: Seat) -> Key:
    """Return the sort key of what a seat has free."""
    free = seat.free
    return (free.gpu_milli, free.cpu, free.memory, free.disk, seat.agent)


class Make:
    """All bins of agents that can run the same; `number` tells makes apart.

    `free` are the GPUs (milli) that its open agents have free, `models` which they have; `mixed`: several.
    """

    __slots__ = ("_most", "_ordered", "_rank", "by_kind", "capacity", "free", "kind", "mixed", "models", "number")

    def __init__(self, kind: MakeKind, number: int) -> None:
        self.kind = kind
        self.capacity = kind.capacity
        self.number = number
        self.models = tuple(gpu.model for gpu in kind.capacity.gpu if gpu.milli)
        self.mixed = len(kind.capacity.gpu) > 1
        self.free = 0
        self._most: Key | None = NOTHING
        self.by_kind: dict[BinKind, list[Bin]] = {}
        self._ordered: list[Bin] | None = None
        self._rank: dict[Bin, int] = {}

    @property
    def bins(self) -> "list[Bin]":
        """All bins, cheapest first; sorted anew only after one came or went."""
        if self._ordered is None:
            every = (home for alike in self.by_kind.values() for home in alike)
            self._ordered = sorted(every, key=lambda home: (home.price, home.site, home.group, home.number))
            self._rank = {home: rank for rank, home in enumerate(self._ordered)}
        return self._ordered

    @property
    def rank(self) -> "dict[Bin, int]":
        """The place of each bin in `bins`, as of when that was last asked for."""
        return self._rank

    @property
    def most(self) -> Key:
        """The largest key of its open agents; `NOTHING` without any."""
        if self._most is None:
            every = (home.order[-1] for alike in self.by_kind.values() for home in alike if home.order)
            self._most = max(every, default=NOTHING)
        return self._most

    def changed(self, before: Key, after: Key) -> None:
        """Note that an open agent's key was `before` and is `after`; `NOTHING` for an agent that came or went."""
        self.free += after[0] - before[0]
        if self._most is not None:
            if after > self._most:
                self._most = after
            elif before == self._most:
                self._most = None

    def add(self, home: "Bin") -> None:
        """Take in a new bin."""
        self.by_kind.setdefault(home.kind, []).append(home)
        self._ordered = None

    def remove(self, home: "Bin") -> None:
        """Let go of an empty bin."""
        alike = self.by_kind[home.kind]
        alike.remove(home)
        if not alike:
            del self.by_kind[home.kind]
        self._ordered = None


class Bin:
    """Up to `BIN_SIZE` agents of one make, site, group and price."""

    __slots__ = ("group", "kind", "make", "number", "order", "price", "rows", "site")

    def __init__(self, make: Make, kind: BinKind, number: int) -> None:
        self.make = make
        self.kind = kind
        self.site, self.group, self.price = kind.site, kind.group, kind.price
        self.number = number
        self.rows: dict[str, Row] = {}
        self.order: list[Key] = []

    def add(self, row: Row) -> None:
        """Take in an agent; only an open one can be found."""
        self.rows[row.seat.agent] = row
        if row.seat.open:
            insort(self.order, row.key)
            self.make.changed(NOTHING, row.key)

    def remove(self, row: Row) -> None:
        """Let go of an agent."""
        del self.rows[row.seat.agent]
        if row.seat.open:
            del self.order[bisect_left(self.order, row.key)]
            self.make.changed(row.key, NOTHING)

    def move(self, row: Row, free: Slots, key: Key) -> None:
        """Change what an open agent has free."""
        order, before = self.order, row.key
        del order[bisect_left(order, before)]
        insort(order, key)
        self.make.changed(before, key)
        row.free = free
        row.key = key

    def first(self, request: Request) -> Row | None:
        """Return the open agent that `request` fits most tightly, or None; call only where a whole agent could."""
        order, cpu = self.order, request.cpu
        start = bisect_left(order, (request.gpu.milli, cpu))
        if start == len(order):
            return None
        if self.make.mixed:
            return next(self.fitting(request), None)
        memory, disk = request.memory, request.disk
        for at in range(start, len(order)):
            key = order[at]
            if key[1] >= cpu and key[2] >= memory and key[3] >= disk:
                return self.rows[key[4]]
        return None

    def fitting(self, request: Request) -> Iterator[Row]:
        """Yield all open agents that `request` fits, tightest first; the bin must not change meanwhile."""
        cpu, memory, disk = request.cpu, request.memory, request.disk
        order = self.order
        for at in range(bisect_left(order, (request.gpu.milli, cpu)), len(order)):
            key = order[at]
            if key[1] >= cpu and key[2] >= memory and key[3] >= disk:
                row = self.rows[key[4]]
                if not self.make.mixed or row.free.take(request) is not None:
                    yield row
