"""How long to wait before dialling again: full jitter, so that a lost control plane meets no herd (I17)."""

from atoll.clock import Chance

FIRST_S = 0.2
LONGEST_S = 30.0
STABLE_S = 60.0
"""A link must have stood this long before its loss counts as the first again."""


class Backoff:
    """The waits between the dials of one agent."""

    def __init__(self, chance: Chance) -> None:
        self._chance = chance
        self._ceiling = FIRST_S
        self._floor = 0.0

    def next(self) -> float:
        """Return the seconds to wait now: random up to a ceiling that doubles from 0.2 to 30 s each time."""
        wait = self._floor + self._chance.uniform(0.0, self._ceiling)
        self._ceiling = min(LONGEST_S, self._ceiling * 2)
        self._floor = 0.0
        return wait

    def succeeded_for(self, seconds: float) -> None:
        """Tell how long a link stood: the ceiling starts anew only after `STABLE_S`."""
        if seconds >= STABLE_S:
            self._ceiling = FIRST_S

    def retry_after(self, seconds: float) -> None:
        """Honour the control plane's wish: the next wait is at least this long."""
        self._floor = max(0.0, seconds)
