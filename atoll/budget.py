"""A budget: how much may be spent in a period, and what is done as that is neared."""

from dataclasses import dataclass
from enum import StrEnum


class Period(StrEnum):
    """How long an amount has to last; `total` is for ever."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    TOTAL = "total"


class Do(StrEnum):
    """What is done when a part of a budget is spent or committed, from mild to hard."""

    NOTIFY = "notify"  # an event
    OWNED_ONLY = "owned_only"  # nothing more on machines that are paid for by the hour
    HOLD = "hold"  # nothing more at all that costs money
    STOP = "stop"  # and what runs and costs money is stopped, after a grace


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What is done once `at` of the amount (1.0 is all of it) is spent or committed."""

    at: float
    do: Do


STAGES = (Stage(at=0.8, do=Do.NOTIFY), Stage(at=1.0, do=Do.HOLD))
"""The stages where a document names none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """`amount` micro-units in each `period` (of the calendar of `zone`) for `project` (empty: the installation).

    A project is charged what its sessions cost, on own machines too; the installation, what its clouds' machines cost.
    `grace_s` is how long after a `stop` is reached preemptible sessions are stopped, and as long after that the
    others. `stage` is what was last done, at `stage_at`, in the period that began at `began`: state, not part of its
    document.
    """

    name: str
    amount: int
    project: str = ""
    period: Period = Period.MONTH
    zone: str = "UTC"
    stages: tuple[Stage, ...] = STAGES
    grace_s: float = 600.0
    stage: Do | None = None
    stage_at: float = 0.0
    began: float = 0.0
    created_at: float = 0.0
    version: int = 0

    def limit(self, *, paid: bool) -> int | None:
        """Return up to what total new work is admitted, in micro-units; None: without limit.

        The earliest stage counts that forbids it: `owned_only` forbids work on `paid` machines, `hold` and `stop` all
        that costs money: of a project, everything; of the installation, what is on paid machines.
        """
        if not paid and not self.project:
            return None
        bars = {Do.HOLD, Do.STOP} | ({Do.OWNED_ONLY} if paid else set())
        return min((self.part(stage) for stage in self.stages if stage.do in bars), default=None)

    def part(self, stage: Stage) -> int:
        """Return how much of the amount a stage begins at, in micro-units."""
        return int(self.amount * stage.at)

    def reached(self, spent: int, committed: int) -> Do | None:
        """Return the hardest stage that is reached; `stop` counts only what is spent."""
        order = list(Do)
        found = [
            stage.do
            for stage in self.stages
            if (spent if stage.do is Do.STOP else spent + committed) >= self.part(stage)
        ]
        return max(found, key=order.index, default=None)
