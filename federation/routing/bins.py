"""Bins: up to 256 agents that are alike but for what they have free, sorted so that the tightest fit is found first.

Agents of one site and group with equal capacity and price cost a session the same, so the router
ranks bins, not agents. Within a bin, free amounts are kept as sorted integer keys: GPUs first, so that
a session without a GPU takes an agent whose GPUs are used up, then cores.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass

from atoll.instance import Shape
from atoll.slots import Request, Slots
from atoll.states import Reason

BIN_SIZE = 256
"""Bounds the walk over agents that are too full in the later parts of their key."""

Key = tuple[int, int, int, int, str]
"""Free gpu (milli, all models), cpu (milli), memory and disk (bytes), and the agent's id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """One agent as the router sees it.

    `price` is micro-units an hour for the whole machine. A seat that is not `open` takes nothing now,
    for `why_closed` and `message`, but still counts as capable of what its `capacity` holds.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Launchable:
    """A shape that a group may launch. `room` is how many more instances the group may have now.

    `blocked` (with `message`) says why it is not asked for now: a recent no-capacity, quota, throttle.
    """

    group: str
    site: str
    provider: str
    shape: Shape
    room: int
    blocked: Reason = Reason.NONE
    message: str = ""


class Row:
    """An agent's entry: its seat as last put, its bin, and what is free now (within a trial: less than the seat's).

    `free` follows a trial only in a bin of several GPU models, where the key alone does not tell what fits.
    """

    __slots__ = ("bin", "free", "key", "seat")

    def __init__(self, seat: Seat, home: "Bin") -> None:
        self.seat = seat
        self.bin = home
        self.free = seat.free
        self.key = key_of(seat.agent, seat.free)


def key_of(agent: str, free: Slots) -> Key:
    """Return the sort key of an agent with this much free."""
    return (free.gpu_milli, free.cpu, free.memory, free.disk, agent)


BinKind = tuple[str, str, Slots, int, bool]
"""Site, group, capacity, price, spot: equal for all agents of a bin."""


class Bin:
    """Up to `BIN_SIZE` agents of one kind; `number` is its place in the index, `size` that of its capacity."""

    __slots__ = ("capacity", "group", "kind", "mixed", "number", "order", "price", "rows", "site", "size", "spot")

    def __init__(self, kind: BinKind, number: int, size: int) -> None:
        self.kind = kind
        self.site, self.group, self.capacity, self.price, self.spot = kind
        self.number = number
        self.size = size
        self.mixed = len(self.capacity.gpu) > 1
        self.rows: dict[str, Row] = {}
        self.order: list[Key] = []

    def add(self, row: Row) -> None:
        """Take in an agent; only an open one can be found."""
        self.rows[row.seat.agent] = row
        if row.seat.open:
            insort(self.order, row.key)

    def remove(self, row: Row) -> None:
        """Let go of an agent."""
        del self.rows[row.seat.agent]
        if row.seat.open:
            del self.order[bisect_left(self.order, row.key)]

    def move(self, row: Row, free: Slots, key: Key) -> None:
        """Change what an open agent has free."""
        order = self.order
        del order[bisect_left(order, row.key)]
        insort(order, key)
        row.free = free
        row.key = key

    def first(self, request: Request) -> Row | None:
        """Return the open agent that `request` fits most tightly, or None; call only where a whole agent could."""
        if self.mixed:
            return next(self.fitting(request), None)
        cpu, memory, disk = request.cpu, request.memory, request.disk
        order = self.order
        for at in range(bisect_left(order, (request.gpu.milli, cpu)), len(order)):
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
                if not self.mixed or row.free.take(request) is not None:
                    yield row
