"""The book: what a driver asks for a shape's price. Pure: a price list, and the account's own rules on top."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from atoll.price import PriceList


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceRules:
    """What an account pays other than the list says.

    `overrides` are amounts an hour (micro-units) by shape name and win over everything; `discount` is
    the part taken off the list's on-demand prices, 0..1.
    """

    discount: float = 0.0
    overrides: Mapping[str, int] = field(default_factory=dict)


class Book:
    """Answers one question: what does this shape cost here, now?"""

    def __init__(self, listed: PriceList | None = None, rules: PriceRules | None = None) -> None:
        self._rules = rules or PriceRules()
        self.label = listed.label if listed else ""
        """What a shape's `catalogue` records."""
        self._amounts = {(p.shape, p.zone, p.spot): p.amount for p in listed.prices} if listed else {}

    def price(self, shape: str, zone: str, spot: bool, *, told: int | None = None) -> int | None:
        """Return micro-units an hour; None when nobody knows, which is never cheap.

        `told` is what the cloud itself said beside the shape, where it does (an OpenStack flavor's extra
        spec, the pretend cloud's products): used when the list has no price.
        """
        if own := self._rules.overrides.get(shape):
            return own
        amount = self._amounts.get((shape, zone, spot)) or self._amounts.get((shape, "", spot)) or told
        if not amount or amount <= 0:
            return None
        return round(amount * (1 - self._rules.discount)) if not spot else amount
