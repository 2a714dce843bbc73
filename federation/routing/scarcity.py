"""Scarcity: an opportunity price on GPUs that others wait for and cannot do without.

Cheapest-first alone starves: sessions that any GPU would do for take the cheap models, and sessions that need just
these then find none. So GPUs of a model that are left are counted against those that waiting sessions with less
choice need. As long as enough remain nothing is added; from there on such a GPU costs a session with more choice as
much again as the dearest place it could take instead, so that it goes elsewhere where there is room, and still gets
it where there is none: it was first in the list.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from atoll.offer import Demand
from federation.routing.bins import Make
from federation.routing.capacity import Capacity
from federation.routing.lens import Dear, Lens, is_choosy
from federation.routing.rules import Rules

HEADROOM = 1.6
"""GPUs kept for each that is needed: what is free in sum does not fit everyone, being spread over machines."""

Models = tuple[str, ...]
"""The GPU models that a session can use, sorted."""


@dataclass(slots=True)
class Need:
    """What waiting sessions that can use only certain models still want (milli), and how it is split over these."""

    milli: int = 0
    split: dict[str, float] = field(default_factory=dict)


class Scarcity:
    """Who needs what of one call's demands; `decided` must be told of each, so that it is not counted any longer.

    Models of which all demands together could not take too much are left out from the start.
    """

    def __init__(self, capacity: Capacity, demands: Sequence[Demand], rules: Rules) -> None:
        self._weight = rules.scarcity
        self._needs: dict[Models, Need] = {}
        self._makes: dict[str, list[Make]] = {}
        self._stricter: dict[Models, list[Need]] = {}
        self._contended: set[str] = set()
        self._terms: dict[Lens, tuple[Dear | None, Need | None]] = {}
        choosy = [demand for demand in demands if is_choosy(demand)] if self._weight > 0 and len(demands) > 1 else []
        if choosy:
            left = self._left(capacity)
            wanted = sum([demand.request.gpu.milli * demand.nodes for demand in demands])
            self._contended = {model for model in left if left[model] < wanted * HEADROOM}
            if self._contended:
                self._count(capacity, choosy, left)

    def seen_by(self, lens: Lens) -> Dear | None:
        """Return what scarcity adds for demands of this kind, or None where it adds nothing anywhere."""
        return self._terms_of(lens)[0] if self._needs else None

    def decided(self, demand: Demand, lens: Lens) -> None:
        """Note that a demand waits no longer, or waits in vain."""
        if self._needs and lens.choosy and (need := self._terms_of(lens)[1]):
            need.milli -= demand.request.gpu.milli * demand.nodes

    def _terms_of(self, lens: Lens) -> tuple[Dear | None, Need | None]:
        """Return what scarcity adds for demands of this kind, and the need that they are counted in."""
        terms = self._terms.get(lens)
        if terms is None:
            terms = self._terms[lens] = self._dear(lens), self._needs.get(lens.models) if lens.choosy else None
        return terms

    def _dear(self, lens: Lens) -> Dear | None:
        milli = lens.request.gpu.milli
        needs = self._stricter_than(lens.models) if milli else None
        if not needs or self._contended.isdisjoint(lens.models):
            return None
        added = round(self._weight * lens.most)
        return lambda ladder: added if self._is_short(ladder.part.slots.gpu[0].model, needs, milli) else 0

    def _is_short(self, model: str, needs: Sequence[Need], milli: int) -> bool:
        """Say whether too little is left for `needs` of a model's GPUs once `milli` are taken."""
        if model not in self._contended:
            return False
        needed = sum([need.milli * need.split.get(model, 0.0) for need in needs])
        return needed > 0 and self._free(model) - milli < needed * HEADROOM

    def _free(self, model: str) -> int:
        """Return what open agents have free of a model; of agents with several, all their GPUs count for each."""
        return sum([make.free for make in self._makes[model]])

    def _left(self, capacity: Capacity) -> dict[str, float]:
        """Return what is free of each model."""
        for make in capacity.makes():
            for model in make.models:
                self._makes.setdefault(model, []).append(make)
        return {model: float(self._free(model)) for model in sorted(self._makes)}

    def _count(self, capacity: Capacity, choosy: Sequence[Demand], left: dict[str, float]) -> None:
        for demand in choosy:
            models = capacity.lens(demand).models
            if models and len(models) < len(self._makes):
                need = self._needs.setdefault(models, Need())
                need.milli += demand.request.gpu.milli * demand.nodes
        for models in sorted(self._needs, key=lambda models: (len(models), models)):
            self._split(models, left)

    def _split(self, models: Models, left: dict[str, float]) -> None:
        """Split what sessions of these models want by what is left of each; those with less choice have had theirs."""
        need = self._needs[models]
        there = sum(max(0.0, left[model]) for model in models)
        for model in models:
            need.split[model] = max(0.0, left[model]) / there if there else 1.0 / len(models)
            left[model] -= need.milli * need.split[model]

    def _stricter_than(self, models: Models) -> list[Need]:
        """Return the needs of sessions that cannot use all of these models."""
        found = self._stricter.get(models)
        if found is None:
            mine = set(models)
            found = [need for other, need in self._needs.items() if not mine.issubset(other)]
            self._stricter[models] = found
        return found
