"""The queue: which waiting session is looked at next: by priority, then deadline, fair share and queue time.

Fair share is dominant resource fairness (Ghodsi et al., NSDI 2011): of the projects with the highest priority
waiting, the next session is of the one whose dominant share is least, and what it gets counts at once
(progressive filling). A project's dominant share is the largest part of any one kind of slots (cores, memory,
GPUs) that its sessions hold of all there are, divided by the project's weight.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import heapify, heappop, heapreplace

from atoll.offer import Demand
from atoll.slots import Gpu, Slots

URGENT_S = 600.0
"""A session with less slack than this to its deadline goes first (or a quarter of its run time, if that is more)."""

Place = tuple[float, str, int]
"""A session's place in its project's line: when it was queued, its id, and its number among the demands."""


class Ledger:
    """What each project holds, and its dominant share of `whole`; `weights` are 1 where not given."""

    def __init__(self, whole: Slots, weights: Mapping[str, float]) -> None:
        self._whole = _kinds(whole)
        self._weights = weights
        self._held: dict[str, list[int]] = {}

    def add(self, project: str, amount: Slots, count: int = 1) -> None:
        """Count `count` times `amount` as held by `project`."""
        held = self._held.setdefault(project, [0, 0, 0])
        held[0] += amount.cpu * count
        held[1] += amount.memory * count
        if amount.gpu:
            held[2] += amount.gpu_milli * count

    def share(self, project: str) -> float:
        """Return the dominant share of `project` over its weight; a kind of which there is nothing does not count."""
        held = self._held.get(project)
        if held is None:
            return 0.0
        most = max((part / there for part, there in zip(held, self._whole, strict=True) if there > 0), default=0.0)
        return most / max(self._weights.get(project, 1.0), 1e-9)


def in_turn(demands: Sequence[Demand], ledger: Ledger, now: float) -> Iterator[int]:
    """Yield the numbers of `demands`, next first.

    Before asking for the next, the caller adds to `ledger` what the last one got (and nothing else): what is
    yielded then follows from it. Equal demands in another order are yielded in the same order.
    """
    levels: dict[int, list[int]] = {}
    for number, demand in enumerate(demands):
        levels.setdefault(demand.priority, []).append(number)
    for priority in sorted(levels, reverse=True):
        late: list[tuple[float, Place]] = []
        lines: dict[str, list[Place]] = {}
        for number in levels[priority]:
            demand = demands[number]
            place = (demand.queued_at, demand.session, number)
            if demand.due_at is not None and is_urgent(demand, now):
                late.append((demand.due_at - demand.expected_s, place))
            else:
                lines.setdefault(demand.project, []).append(place)
        for _, place in sorted(late):
            yield place[2]
        yield from _fairly(lines, ledger)


def is_urgent(demand: Demand, now: float) -> bool:
    """Say whether a session can still meet its deadline, but not for much longer.

    It then goes before others of its priority, whatever its project holds. One that is too late gains nothing.
    """
    if demand.due_at is None:
        return False
    slack = demand.due_at - now - demand.expected_s
    return 0.0 <= slack <= max(URGENT_S, demand.expected_s / 4)


def _fairly(lines: dict[str, list[Place]], ledger: Ledger) -> Iterator[int]:
    for line in lines.values():
        line.sort(reverse=True)
    if len(lines) == 1:
        yield from (place[2] for line in lines.values() for place in reversed(line))
        return
    heap = [(ledger.share(project), line.pop(), project) for project, line in lines.items()]
    heapify(heap)
    while heap:
        _, place, project = heap[0]
        yield place[2]
        if line := lines[project]:
            heapreplace(heap, (ledger.share(project), line.pop(), project))
        else:
            heappop(heap)


def _kinds(amount: Slots) -> tuple[int, int, int]:
    return amount.cpu, amount.memory, amount.gpu_milli if amount.gpu else 0


def whole_of(machines: Iterable[tuple[Slots, int]], wanted: Iterable[Slots]) -> Slots:
    """Return all there is of `machines` (a capacity and how many); of a kind they lack, all that is `wanted`.

    Where there are no machines yet (all are launched on demand) projects are compared by what they ask for.
    """
    there, asked = [0, 0, 0], [0, 0, 0]
    for capacity, count in machines:
        for kind, part in enumerate(_kinds(capacity)):
            there[kind] += part * count
    if not all(there):
        for amount in wanted:
            for kind, part in enumerate(_kinds(amount)):
                asked[kind] += part
    cpu, memory, gpu = (have or want for have, want in zip(there, asked, strict=True))
    return Slots(cpu, memory, 0, (Gpu("", gpu),))
