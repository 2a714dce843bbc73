"""What documents say of money: the `prices` of a provider and the `price` of a site, read and written."""

from typing import Any

from atoll import duration
from atoll.errors import Invalid
from atoll.fields import Fields, compact, money_text
from atoll.price import Commitment, PriceRules, Stale, Upkeep

_PLAIN = PriceRules()


def price_rules(doc: Fields) -> PriceRules:
    """Return the rules of a provider's `prices`; raise `Invalid` naming the key at fault.

    `{discount: 0.1, overrides: {g5.xlarge: 0.9}, commitments: [{shape: m5.large, count: 4, price: 0.05}],
    stale_after: 7d, stale: warn, update: 24h, rate: 1.08}`, every key optional.
    """
    rules = PriceRules(
        discount=_number(doc, "discount", 0.0, high=0.99),
        overrides=_overrides(doc.section("overrides")),
        commitments=_commitments(doc),
        stale_after_s=doc.seconds("stale_after", _PLAIN.stale_after_s, low=60),
        stale=Stale(doc.choice("stale", [each.value for each in Stale], Stale.WARN.value)),
        update_s=doc.seconds("update", _PLAIN.update_s, low=60),
        rate=_number(doc, "rate", 0.0, high=1e6),
    )
    doc.done()
    return rules


def dump_price_rules(rules: PriceRules) -> dict[str, Any]:
    """Return the document of price rules: what is not the default."""
    return compact(
        {
            "discount": rules.discount or None,
            "overrides": {shape: money_text(amount) for shape, amount in rules.overrides.items()},
            "commitments": [
                {"shape": each.shape, "count": each.count, "price": money_text(each.price)}
                for each in rules.commitments
            ],
            "stale_after": _changed(rules.stale_after_s, _PLAIN.stale_after_s),
            "stale": rules.stale.value if rules.stale is not _PLAIN.stale else "",
            "update": _changed(rules.update_s, _PLAIN.update_s),
            "rate": rules.rate or None,
        }
    )


def site_price(doc: Fields) -> tuple[int, Upkeep | None]:
    """Return a site's price an hour in micro-units, and the upkeep it follows from where the document has one.

    `price` is units an hour, `{per_hour: 0.12}`, or `{power: 400W, tariff: 0.25, purchase: 12000, years: 4}`.
    """
    value = doc.raw("price")
    if value is None or isinstance(value, int | float):
        return doc.money("price", 0) or 0, None
    price = doc.section("price")
    if price.raw("power") is None and price.raw("purchase") is None:
        amount = price.money("per_hour", None)
        if amount is None:
            raise price.missing("per_hour", "write per_hour: 0.12, or power: 400W with tariff: 0.25")
        price.done()
        return amount, None
    price.refuse(("per_hour",), "the price follows from power and purchase", "remove one of the two")
    upkeep = Upkeep(
        watts=_watts(price),
        tariff=price.money("tariff", 0) or 0,
        purchase=price.money("purchase", 0) or 0,
        years=_number(price, "years", 4.0, low=0.1, high=100),
    )
    price.done()
    return upkeep.per_hour, upkeep


def dump_site_price(price: int, upkeep: Upkeep | None) -> Any:
    """Return the `price` of a site's document; None for a place that costs nothing."""
    if upkeep is None:
        return money_text(price) if price else None
    return {
        "power": f"{upkeep.watts}W",
        "tariff": money_text(upkeep.tariff),
        **compact({"purchase": money_text(upkeep.purchase) if upkeep.purchase else None}),
        "years": upkeep.years,
    }


def _overrides(doc: Fields) -> dict[str, int]:
    names = list(doc.names())
    found = {name: doc.money(name, None) or 0 for name in names}
    for name, amount in found.items():
        _above_zero(f"{doc.path}.{name}", amount)
    return found


def _commitments(doc: Fields) -> tuple[Commitment, ...]:
    listed = doc.raw("commitments")
    if listed is None:
        return ()
    if not isinstance(listed, list | tuple):
        raise Invalid(f"{doc.path}.commitments must be a list", hint="begin each with `- shape: NAME`")
    found = []
    for number, item in enumerate(listed):
        fields = Fields(item, f"{doc.path}.commitments[{number}]")
        shape = fields.text("shape")
        if not shape:
            raise fields.missing("shape", "name the machine type")
        price = fields.money("price", None) or 0
        _above_zero(f"{fields.path}.price", price)
        found.append(Commitment(shape=shape, count=fields.integer("count", 1, low=1, high=1_000_000), price=price))
        fields.done()
    names = [each.shape for each in found]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise Invalid(f"{doc.path}.commitments names {twice!r} twice", hint="add the counts up")
    return tuple(found)


def _above_zero(path: str, amount: int) -> None:
    if amount <= 0:
        raise Invalid(f"{path} must be above 0", hint="a price of 0 never wins; write a small one, like 0.001")


def _number(doc: Fields, key: str, default: float, *, low: float = 0.0, high: float) -> float:
    value = doc.raw(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise Invalid(f"{doc.path}.{key} cannot be {value!r}", hint=f"a number between {low:g} and {high:g}")
    return float(value)


def _watts(doc: Fields) -> int:
    value = doc.raw("power")
    text = str(value if value is not None else 0).strip()
    number = text.removesuffix("kW").removesuffix("W").strip()
    try:
        watts = float(number) * (1000 if text.endswith("kW") else 1)
    except ValueError:
        watts = -1.0
    if isinstance(value, bool) or not 0 <= watts <= 1e6:
        raise Invalid(f"{doc.path}.power cannot be {value!r}", hint="write it like 400W or 1.2kW")
    return round(watts)


def _changed(seconds: float, default: float) -> str | None:
    return None if seconds == default else duration.text(seconds)
