"""A covering linear program whose columns are found as they are needed: revised simplex with an explicit inverse.

Minimise the cost of columns x >= 0 such that row k is covered `counts[k]` times. A column covers a few rows only, so
that one pivot costs some hundred microseconds for a hundred rows; no library is needed (Dantzig and Orchard-Hays 1954;
Gilmore and Gomory 1961 for columns found by a knapsack).
"""

from collections.abc import Sequence
from typing import Generic, TypeVar

Tag = TypeVar("Tag")
Column = Sequence[tuple[int, float]]
"""Which rows a column covers, and how often."""

_ZERO = 1e-9


class Covering(Generic[Tag]):
    """The program with the columns that are in its basis; `duals` are the rows' prices, never negative."""

    def __init__(self, counts: Sequence[float], first: Sequence[tuple[float, float, Tag]]) -> None:
        """Begin with a column for each row: its cost, how often it covers the row, and what to call it."""
        size = len(counts)
        self.duals = [cost / times for cost, times, _ in first]
        self._inverse = [[0.0] * size for _ in range(size)]
        for row, (_, times, _) in enumerate(first):
            self._inverse[row][row] = 1.0 / times
        self._amounts = [count / times for count, (_, times, _) in zip(counts, first, strict=True)]
        self._costs = [cost for cost, _, _ in first]
        self._tags: list[Tag | None] = [tag for _, _, tag in first]

    @property
    def cost(self) -> float:
        """The cost of the solution so far."""
        return sum(cost * amount for cost, amount in zip(self._costs, self._amounts, strict=True))

    def solution(self) -> list[tuple[Tag, float]]:
        """Return the columns that the solution uses, and how much of each."""
        pairs = zip(self._tags, self._amounts, strict=True)
        return [(tag, amount) for tag, amount in pairs if tag is not None and amount > _ZERO]

    def enter(self, cost: float, column: Column, tag: Tag) -> bool:
        """Take a column in; False, and nothing changed, where it would not make the solution cheaper."""
        if not self._pivot(cost, column, tag):
            return False
        for row, dual in enumerate(self.duals):  # covering more than is asked costs nothing
            if dual < -_ZERO:
                self._pivot(0.0, [(row, -1.0)], None)
        return True

    def _pivot(self, cost: float, column: Column, tag: Tag | None) -> bool:
        saving = cost - sum([self.duals[row] * times for row, times in column])
        if saving > -_ZERO * max(1.0, abs(cost)):
            return False
        inverse, amounts = self._inverse, self._amounts
        steps = [sum([line[row] * times for row, times in column]) for line in inverse]
        most, leaves = 0.0, -1
        for at, step in enumerate(steps):
            if step > _ZERO and (leaves < 0 or amounts[at] < most * step):
                most, leaves = amounts[at] / step, at
        if leaves < 0:
            return False
        scale = 1.0 / steps[leaves]
        pivot = inverse[leaves] = [value * scale for value in inverse[leaves]]
        for at, step in enumerate(steps):
            if at != leaves and (step > 1e-12 or step < -1e-12):
                inverse[at] = [value - step * part for value, part in zip(inverse[at], pivot)]  # noqa: B905
                amounts[at] = max(0.0, amounts[at] - step * most)
        amounts[leaves] = most
        self.duals = [dual + saving * part for dual, part in zip(self.duals, pivot)]  # noqa: B905
        self._costs[leaves], self._tags[leaves] = cost, tag
        return True
