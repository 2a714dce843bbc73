"""The book: what a driver asks for a shape's price. Pure: a price list, and the account's own rules on top."""

from collections.abc import Mapping
from dataclasses import replace

from atoll.instance import Shape
from atoll.price import PriceList, PriceRules

__all__ = ["Book", "PriceRules", "committed"]

CURRENCY = "USD"
"""What the installation counts in."""


class Book:
    """Answers one question: what does this shape cost here, now?"""

    def __init__(self, listed: PriceList | None = None, rules: PriceRules | None = None) -> None:
        self.rules = rules or PriceRules()
        self.label = listed.label if listed else ""
        """What a shape's `catalogue` records."""
        self.at = listed.at if listed else None
        """The list's date, in Unix seconds; None where there is no list."""
        self._amounts = {p.key: p.amount for p in listed.prices} if listed else {}
        self._dropped = {r.price.key for r in listed.remarks if r.dropped} if listed else set()
        self._rate = self.rules.rate or 1.0

    def price(self, shape: str, zone: str, spot: bool, *, told: int | None = None) -> int | None:
        """Return micro-units an hour; None when nobody knows, which is never cheap.

        `told` is what the cloud itself said beside the shape, where it does (an OpenStack flavor's extra
        spec, the pretend cloud's products): used when the list has no price, and not for what a check of
        the list has dropped.
        """
        if own := self.rules.overrides.get(shape):
            return own
        if (shape, zone, spot) in self._dropped:
            return None
        listed = self._amounts.get((shape, zone, spot)) or self._amounts.get((shape, "", spot))
        if listed is None and (shape, "", spot) in self._dropped:
            return None
        amount = listed * self._rate if listed else told
        if not amount or amount <= 0:
            return None
        return max(1, round(amount * (1 - self.rules.discount) if not spot else amount))


def committed(shape: Shape, rules: PriceRules, live: Mapping[str, int]) -> Shape:
    """Return a shape at its commitment's price while fewer than the committed machines are live.

    `live` counts the provider's live on-demand machines by shape name. Spot is never committed.
    """
    for commitment in rules.commitments:
        if commitment.shape == shape.name and not shape.spot and live.get(shape.name, 0) < commitment.count:
            return replace(shape, price=commitment.price)
    return shape
