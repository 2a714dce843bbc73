"""Durations as people write them: `90s`, `10m`, `1h30m`, `7d`."""

import re

from atoll.errors import Invalid

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")


def parse(value: str | float) -> float:
    """Return the seconds of `10m`, `1h30m`, `45` or 45; raise `Invalid` for anything else or a negative amount."""
    if isinstance(value, str):
        text = value.strip()
        parts = _PART.findall(text)
        if parts and "".join(number + unit for number, unit in parts) == text:
            return sum(float(number) * _SECONDS[unit] for number, unit in parts)
        value = _number(text)
    if not 0 <= value < 1e10:
        raise Invalid(f"{value!r} is not a duration", hint="it must be 0 or more, and finite")
    return float(value)


def text(seconds: float) -> str:
    """Return whole seconds exactly and short, as `parse` reads them: `1h30m`, `45s`; others as `0.25s`."""
    if seconds != int(seconds) or seconds < 1:
        from decimal import Decimal  # exact and without an exponent, which `parse` does not know

        return f"{Decimal(repr(seconds)):f}s"
    rest, parts = int(seconds), []
    for unit in ("d", "h", "m", "s"):
        count, rest = divmod(rest, int(_SECONDS[unit]))
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts)


def rough(seconds: float) -> str:
    """Return a duration for tables, two units at most: `0.4s`, `12s`, `3m20s`, `2d4h`."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f}s"
    for big, small, size in (("d", "h", 86400), ("h", "m", 3600), ("m", "s", 60)):
        if seconds >= size:
            whole, rest = divmod(int(seconds), size)
            less = rest // int(_SECONDS[small])
            return f"{whole}{big}{less}{small}" if less else f"{whole}{big}"
    return f"{int(seconds)}s"


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise Invalid(f"{text!r} is not a duration", hint="write it like 90s, 10m, 1h30m or 7d") from None
