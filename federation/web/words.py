"""Numbers as people read them on the pages."""

import shlex
from collections.abc import Sequence


def money(units: float) -> str:
    """Return an amount: four decimals below 1, two from there on."""
    return f"{units:.4f}" if 0 < abs(units) < 1 else f"{units:,.2f}"


def size(amount: float) -> str:
    """Return bytes in the unit that fits: `1.5 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(amount) < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def span(seconds: float) -> str:
    """Return a duration: `4.2 s`, `3 min 5 s`, `2 h 10 min`, `3 d 4 h`."""
    seconds = max(0.0, seconds)
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def command(words: Sequence[str]) -> str:
    """Return a command as one line of shell."""
    return shlex.join(words)
