"""The hot pool's size from a group's own history: how many sessions usually come while a machine starts.

It is the newsvendor's problem. To hold a machine ready for as long as a launch takes costs its price c for that time;
if a session comes that takes it, it saves that session the same time's waiting, worth w. So the n-th machine is worth
launching ahead while P(at least n sessions come) >= c / (c + w), both a second: the time itself cancels out. One
that has just become empty saves the money for another's start, too: it is worth keeping while that chance is at least
c / (2c + w). The chance is counted in the same stretch of the week, and those beside it, of the weeks before, and
in the last hour. `bench/predict.py` says when it pays.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil

from atoll.money import HOUR
from atoll.offer import WAIT_VALUE
from atoll.slots import Request

WEEK_S = 7 * 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """How to look at the past: `reach` stretches of `step_s` (about a start) to each side of now, in the last `weeks`.

    `recent` stretches just before now count too, each as often as there are weeks: days differ.
    """

    step_s: float = 180.0
    reach: int = 6
    weeks: int = 4
    recent: int = 20


@dataclass(slots=True)
class Arrivals:
    """How many sessions of the hot pool's size came in each stretch of time; what is older than needed is forgotten."""

    habits: Habits = Habits()
    begun_at: float | None = None
    counts: Counter[int] = field(default_factory=Counter)

    def note(self, at: float, sessions: int = 1) -> None:
        """Count sessions that came at `at` (Unix seconds)."""
        if self.begun_at is None:
            self.begun_at = at
        self.counts[self._stretch(at)] += sessions

    def forget(self, now: float) -> None:
        """Drop what no prediction will look at again."""
        habits = self.habits
        oldest = self._stretch(now - habits.weeks * WEEK_S) - habits.reach
        for stretch in [each for each in self.counts if each < oldest]:
            del self.counts[stretch]

    def samples(self, now: float, window_s: float) -> list[int]:
        """Return how many came in windows of `window_s` like the one that begins now: the same time in other weeks."""
        habits = self.habits
        if self.begun_at is None:
            return []
        width = max(1, round(window_s / habits.step_s))
        first, here = self._stretch(self.begun_at), self._stretch(now)
        found: list[int] = []
        for week in range(1, habits.weeks + 1):
            middle = self._stretch(now - week * WEEK_S)
            starts = range(middle - habits.reach, middle + habits.reach + 1)
            found += [self._sum(start, width) for start in starts if start > first and start + width <= here]
        recent = [self._sum(here - width - n, width) for n in range(habits.recent) if here - width - n > first]
        return found + recent * habits.weeks

    def _sum(self, start: int, width: int) -> int:
        return sum(self.counts[stretch] for stretch in range(start, start + width))

    def _stretch(self, at: float) -> int:
        return int(at // self.habits.step_s)


@dataclass(frozen=True, slots=True)
class Ready:
    """How many sessions should be able to start at once: `ahead` by launching for them, `keep` by not ending."""

    ahead: int = 0
    keep: int = 0


def ready_slots(samples: Sequence[int], price: int, *, wait_value: float = WAIT_VALUE, least: int = 20) -> Ready:
    """Return what to hold ready, by how many sessions came in windows like the one that begins now.

    `price` is what one hot slot costs (micro-units an hour), `wait_value` the worth of a second's waiting
    (micro-units). Fewer than `least` samples say nothing, and neither does a slot without a price.
    """
    if len(samples) < max(1, least) or price <= 0:
        return Ready()
    ranked, a_second = sorted(samples, reverse=True), price / HOUR
    return Ready(
        ahead=_reached(ranked, a_second / (a_second + wait_value)),
        keep=_reached(ranked, a_second / (2 * a_second + wait_value)),
    )


def units(request: Request, hot: Request) -> int:
    """Return how many sessions of the hot pool's size one of this size counts as; 0: it has no use for the pool."""
    if request.gpu.milli and not hot.gpu.milli:
        return 0
    pairs = ((request.cpu, hot.cpu), (request.memory, hot.memory), (request.gpu.milli, hot.gpu.milli))
    return max(1, *(-(-asked // each) for asked, each in pairs if each))


def _reached(ranked: Sequence[int], share: float) -> int:
    """Return the largest number that at least this share of the samples (and one at the least) reach."""
    return ranked[max(1, ceil(share * len(ranked))) - 1]
