"""Improvement: better machines for what was packed, for as long as there is time.

The contents that packing found are the columns of a covering program: how many machines of each content hold all
sessions at the least cost? Its solution, rounded down to whole machines, with what is left over packed greedily, is
mostly better than any packing that the contents are from. Its duals say which kinds are hard to place well: packing by
them, drawn more or less towards the worths that packed best, finds new contents, and so on (column generation with a
heuristic for the pricing problem; Vance et al. 1994 for the rounding).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from autoscaler.bound import Worth
from autoscaler.cover import Cover, Key
from autoscaler.packing import THOROUGH, TRIES, Batch, Room, buy, contents, judge
from autoscaler.simplex import Covering
from autoscaler.whole import Whole

_ROUNDS_UP = (0.8, 0.5, 2.0)
"""Parts of a machine from which it is bought whole, round by round."""
_GOLDEN = 0.381966
"""Fractions of its multiples are spread evenly: how much of the worths that packed best is mixed into the duals."""
_PLAIN_ROUNDS = 4
"""Rounds before worths are shaken, and contents looked for more thoroughly, so as not to find the same ones again."""
_SHAKE = 0.1
_IDLE_ROUNDS = 16
"""Rounds without gain after which there is nothing more to be had."""


TIGHTEN_S, TIGHTEN = 2.0, 0.3
"""From how many seconds on, and for what part of them, a tighter bound is looked for."""


@dataclass(frozen=True, slots=True)
class Found:
    """What to buy, how that was found, and a bound on its hourly price in micro-units (0: none was sought)."""

    batches: Sequence[Batch]
    method: str
    bound: int


def search(cover: Cover, found: Worth, start: Sequence[Batch], whole: Room, left: Callable[[], float]) -> Found:
    """Look for something better than `start` for the seconds that `left` tells, and for a tighter bound on it."""
    seconds = left()
    reserve = seconds * TIGHTEN if seconds >= TIGHTEN_S else 0.0
    improvement = Improvement(cover, found, start, whole)
    best = improvement.run(lambda: left() - reserve)
    method = f"column generation, {improvement.rounds} rounds" if improvement.rounds else "greedy"
    bound = Whole(cover, improvement.contents()).bound(left) if reserve else 0.0
    return Found(best, method, max(0, int(bound * (1 - 1e-9))))


class Improvement:
    """One search for something better, from `start`; `rounds` counts what was done."""

    def __init__(self, cover: Cover, found: Worth, start: Sequence[Batch], whole: Room) -> None:
        self.best = list(start)
        self.rounds = 0
        self._cover, self._found, self._whole = cover, found, whole
        self._judged = judge(cover, start)
        self._pool: dict[Key, float] = {}
        self._steady = list(found.kinds)
        self._program = Covering[Key](cover.counts, [self._alone(k) for k in range(len(cover.kinds))])
        self._learn(start)

    def contents(self) -> list[Key]:
        """Return the contents that the program's solution is made of, and those of one kind alone."""
        used = [key for key, _ in self._program.solution()]
        return sorted({*used, *(self._alone(k)[2] for k in range(len(self._cover.kinds)))})

    def run(self, left: Callable[[], float]) -> list[Batch]:
        """Go on until `left` (seconds) says 0, or nothing new turns up; return the best found."""
        idle = 0
        while idle < _IDLE_ROUNDS and left() > 0 and not self._judged[0]:
            idle = 0 if self.round(left) else idle + 1
        return self.best

    def round(self, left: Callable[[], float]) -> bool:
        """Solve for the contents known, round, and look for new ones; return whether anything became cheaper."""
        cost, judged = self._program.cost, self._judged
        self._solve(left)
        if left() > 0 or self.rounds == 0:
            self._try(self._rounded(_ROUNDS_UP[self.rounds % len(_ROUNDS_UP)]))
        if left() > 0:
            kinds = self._worths()
            tries = THOROUGH if self.rounds > _PLAIN_ROUNDS and self.rounds % 2 else TRIES
            if self._try(buy(self._cover, self._found, kinds, self._cover.counts, self._whole, tries)):
                self._steady = kinds
        self.rounds += 1
        return self._program.cost < cost * (1 - 1e-6) or self._judged < judged

    def _worths(self) -> list[float]:
        """Return worths to pack by in this round: the duals with more or less of what packed best."""
        mix = self.rounds * _GOLDEN % 1.0
        shake = _SHAKE if self.rounds >= _PLAIN_ROUNDS else 0.0
        worths = []
        for k, (steady, dual) in enumerate(zip(self._steady, self._program.duals, strict=True)):
            aside = (k * 0.754877 + self.rounds * 0.569840) % 1.0 - 0.5  # spread evenly over kinds and rounds
            worths.append(max(1e-9, (mix * steady + (1 - mix) * dual) * (1 + shake * aside)))
        return worths

    def _try(self, batches: list[Batch]) -> bool:
        """Learn the contents of a plan, and keep it if it is the best."""
        self._learn(batches)
        judged = judge(self._cover, batches)
        if judged >= self._judged:
            return False
        self._judged, self.best = judged, batches
        return True

    def _learn(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            self._pool.setdefault((batch.offering, tuple(sorted(batch.content))), batch.cost)

    def _alone(self, k: int) -> tuple[float, float, Key]:
        """Return the cheapest machine full of one kind: its cost, how many it holds, and its content."""
        best: tuple[float, float, float, Key] | None = None
        for o in range(len(self._cover.able)):
            if k in self._cover.shares[o]:
                content = next(contents(self._cover, o, [[k]], self._cover.counts))
                cost, count = self._cover.cost(o, content), content[0][1]
                if best is None or cost / count < best[0]:
                    best = (cost / count, cost, count, (o, content))
        if best is None:
            raise ValueError(f"no machine may hold {self._cover.kinds[k].example}")
        return best[1:]

    def _solve(self, left: Callable[[], float]) -> None:
        """Find the least cost that the contents known allow."""
        program = self._program
        while left() > 0:
            duals = program.duals
            better = []
            for key, cost in self._pool.items():
                value = sum([duals[k] * count for k, count in key[1]])
                if value > cost * (1 + 1e-5):
                    better.append((cost / value, key, cost))
            better.sort()
            entered = 0
            for _, key, cost in better[:120]:
                entered += program.enter(cost, key[1], key)
                if entered == 20:
                    break
            if not entered:
                break

    def _rounded(self, part: float) -> list[Batch]:
        """Return whole machines: the solution's rounded down, or up from this part on, and greedy ones for the rest."""
        cover, room, left = self._cover, Room(self._whole.room, self._whole.limits), list(self._cover.counts)
        batches: list[Batch] = []
        solution = sorted(self._program.solution(), key=lambda each: (-(each[1] % 1.0), each[0]))
        for (o, content), amount in solution:
            times = int(amount + 1e-9)
            times += amount - times > part
            times = room.take(cover.able[o], min(times, *(left[k] // count for k, count in content)))
            if times:
                for k, count in content:
                    left[k] -= times * count
                batches.append(Batch(o, content, times, cover.cost(o, content)))
        return batches + buy(cover, self._found, self._steady, left, room)
