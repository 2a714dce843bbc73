"""Money as integers: micro-units of one currency, so that sums are exact."""

from functools import lru_cache

PER_UNIT = 1_000_000
"""Micro-units in one unit (1 USD = 1,000,000)."""

HOUR = 3600.0


def micros(amount: float) -> int:
    """Return an amount in units (0.526 USD) as micro-units (526,000), rounded to nearest."""
    return round(amount * PER_UNIT)


def cost(price: int, seconds: float) -> int:
    """Return what `seconds` at `price` micro-units an hour cost, in micro-units, rounded up."""
    if seconds <= 0 or price <= 0:
        return 0
    return -int(-price * seconds // HOUR)


@lru_cache(maxsize=4096)
def text(amount: int, currency: str = "USD") -> str:
    """Return an amount for people: `0.0123 USD`; four decimals below 1, two from there on."""
    units = amount / PER_UNIT
    return f"{units:.4f} {currency}" if abs(units) < 1 else f"{units:,.2f} {currency}"
