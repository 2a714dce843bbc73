"""Spot or on-demand for a session with a deadline, and what to say where spot was wanted and on-demand is had.

The rules are those of Uniform Progress (Wu et al., "Can't Be Late: Optimizing Spot Instance Savings under Deadlines",
NSDI 2024). With C the whole work, c(t) what is left of it, R(t) the time left and d what a changeover takes:

- safety net: a session that runs nowhere goes on demand, to the end, once R(t) < c(t) + 2d: one changeover for this
  start, and one in reserve for the spot machine that would be taken away. To the reserve we add the work that such an
  interruption costs.
- uniform progress: one that runs nowhere takes spot where there is some; else it goes on demand if it is behind the
  straight line to C at its deadline, and waits for spot if it is not.
- taking risks: one on spot stays there for as long as it may. It burns no slack by running.
- hysteresis: one on demand goes back to spot only once it is as far as the line will be in 2d. One that cannot be
  moved stays on demand: it rather waits for spot while the safety net allows it (going on demand early pays only for
  those that come back).

It needs no knowledge of how often spot machines are taken away. One thing is ours: the paper's line begins at the
submission, which buys on-demand time early that much slack would have made needless (dearer than "spot until the last
moment" where the slack is as long as the work). Ours begins later by S * S / T, for a slack S in a window of T: hardly
for a tight deadline, by half the slack where that is half the window. `bench/spot.py` has both.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from atoll.group import Group
from atoll.instance import Shape
from atoll.offer import Demand
from autoscaler.demand import PLAIN, Terms, may_use


class Paid(StrEnum):
    """How a session runs, or is to run, on paid machines."""

    NOT = "not"  # it waits
    SPOT = "spot"
    ON_DEMAND = "on-demand"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How far a session with a deadline has come. Times are Unix seconds, the rest is seconds.

    It was submitted at `since` with `work_s` to do, has `left_s` left, and should be done at `due_at`. `changeover_s`
    is what it takes to be running on another machine, until this is noticed included, and `rework_s` what an
    interruption may cost: without checkpoints all that has been done. Only one that is `movable` comes back to spot.
    """

    since: float
    due_at: float
    work_s: float
    left_s: float
    changeover_s: float
    rework_s: float = 0.0
    movable: bool = True

    def may_risk(self, now: float) -> bool:
        """Say whether it would still be in time on demand if a spot machine taken now were taken away again."""
        return self.due_at - now >= self.left_s + 2 * self.changeover_s + self.rework_s

    def may_wait(self, now: float) -> bool:
        """Say whether to wait for spot: one that would stay on demand to the end waits as long as it may."""
        return not self.movable or self.ahead(now)

    def ahead(self, now: float, margin_s: float = 0.0) -> bool:
        """Say whether it is as far as uniform progress would be `margin_s` later."""
        window = self.due_at - self.since
        slack = max(0.0, window - self.work_s)
        late = slack * slack / window if slack else 0.0
        passed = now + margin_s - self.since - late
        return self.work_s - self.left_s >= self.work_s * min(1.0, max(0.0, passed) / max(1e-9, window - late))


def choose(pace: Pace, now: float, *, on: Paid, spot: bool) -> Paid:
    """Return how a session should run from now on; `on` is how it runs, `spot` whether there is a spot machine for it.

    `Paid.NOT` is to wait for one.
    """
    if on is Paid.SPOT and spot:
        return Paid.SPOT
    if not pace.may_risk(now):
        return Paid.ON_DEMAND
    if on is Paid.ON_DEMAND:
        back = spot and pace.movable and pace.ahead(now, 2 * pace.changeover_s)
        return Paid.SPOT if back else Paid.ON_DEMAND
    if spot:
        return Paid.SPOT
    return Paid.NOT if pace.may_wait(now) else Paid.ON_DEMAND


def with_deadline(demand: Demand, pace: Pace | None, now: float, *, offered: bool) -> Demand:
    """Return a waiting session's demand with what its deadline rules out: spot when there is no slack left for it.

    While it may wait for spot, paid on-demand machines are ruled out instead (own ones never are), if spot is
    `offered` to it at all (see `offers_spot`). A demand without a deadline, or one that refuses spot, is returned as
    it is.
    """
    if pace is None or not demand.spot:
        return demand
    if not pace.may_risk(now):
        return replace(demand, spot=False)
    return replace(demand, on_demand=not (offered and pace.may_wait(now)))


def offers_spot(demand: Demand, groups: Iterable[tuple[Group, Sequence[Shape]]], terms: Terms = PLAIN) -> bool:
    """Say whether some elastic group has a spot shape for this demand, even if it cannot be had at the moment."""
    return any(
        shape.spot and shape.price and may_use(demand, group, shape, terms)
        for group, shapes in groups
        for shape in shapes
    )


def fallback(shape: Shape, shapes: Sequence[Shape], blocked: Mapping[str, str]) -> str:
    """Say which cheaper spot offer of this on-demand shape's machine type cannot be had now, and why; else nothing."""
    if shape.spot:
        return ""
    refused = [
        other
        for other in shapes
        if other.spot and other.name == shape.name and other.key in blocked and (other.price or 0) < (shape.price or 0)
    ]
    if not refused:
        return ""
    best = min(refused, key=lambda other: (other.price or 0, other.key))
    return f"instead of {best.key}: {blocked[best.key]}"
