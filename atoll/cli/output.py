"""What the CLI prints: tables for terminals and people, JSON and YAML that mirror the REST objects."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

from atoll import duration

_COLOURS = {"red": "31", "green": "32", "yellow": "33", "blue": "34", "dim": "2", "bold": "1"}
_STATES = {
    "running": "green", "succeeded": "green", "joined": "green", "ready": "green", "up": "green",
    "queued": "yellow", "provisioning": "yellow", "starting": "yellow", "booting": "yellow", "draining": "yellow",
    "pending": "yellow", "degraded": "yellow", "down": "red",
    "failed": "red", "lost": "red", "held": "red", "expired": "red", "interrupted": "red",
    "gone": "dim", "cancelled": "dim", "left": "dim",
}  # fmt: skip
Columns = Mapping[str, Callable[[Any], str]]


def colourful(stream: IO[str]) -> bool:
    """Whether a stream is a terminal that wants colour."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str, stream: IO[str] | None = None) -> str:
    """Return `text` in a colour where the stream (default: stdout) shows colours."""
    code = _COLOURS.get(colour)
    return f"\x1b[{code}m{text}\x1b[0m" if code and colourful(stream or sys.stdout) else text


def paint_state(state: str, width: int = 0) -> str:
    """Return a state in its colour, padded."""
    return paint(f"{state:<{width}}", _STATES.get(state, ""))


def paint_error(message: str, advice: str) -> str:
    """Return the lines of an error for stderr."""
    text = f"{paint('error:', 'red', sys.stderr)} {' '.join(message.split())}\n"
    return text + (f"{paint('hint:', 'blue', sys.stderr)} {' '.join(advice.split())}\n" if advice else "")


def note(text: str) -> None:
    """Tell a person something that is not output: on stderr, dim."""
    sys.stderr.write(paint(text, "dim", sys.stderr) + "\n")
    sys.stderr.flush()


def show(what: Any, form: str, columns: Columns | None = None, empty: str = "") -> None:
    """Print views in the form asked for; `columns` make the table, `empty` is told when there is nothing."""
    if form == "json":
        print(to_json(what))
    elif form == "yaml":
        print(to_yaml(what), end="")
    elif isinstance(what, Sequence) and columns is not None:
        if what:
            print(table(what, columns), end="")
        elif empty:
            note(empty)
    else:
        print(to_yaml(what), end="")


def to_json(what: Any) -> str:
    """Return views as indented JSON, as the REST API has them."""
    import msgspec

    return msgspec.json.format(msgspec.json.encode(what), indent=2).decode()


def to_line(what: Any) -> str:
    """Return a view as JSON on one line."""
    import msgspec

    return msgspec.json.encode(what).decode()


def to_yaml(what: Any) -> str:
    """Return views as YAML."""
    import msgspec
    import yaml

    text: str = yaml.safe_dump(msgspec.to_builtins(what), sort_keys=False, allow_unicode=True)
    return text


def table(rows: Sequence[Any], columns: Columns) -> str:
    """Return rows as a table; on a terminal with colours, states are coloured and nothing is cut."""
    cells = [list(columns), *([_plain(cell(row)) for cell in columns.values()] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    lines = [_line(cells[0], widths, lambda text, _: paint(text, "bold"))]
    lines += [_line(line, widths, lambda text, word: paint(text, _STATES.get(word, ""))) for line in cells[1:]]
    return "".join(lines)


def _line(line: Sequence[str], widths: Sequence[int], colour: Callable[[str, str], str]) -> str:
    padded = [f"{text:<{width}}" for text, width in zip(line, widths, strict=True)]
    padded[-1] = line[-1]
    return "  ".join(colour(text, word) for text, word in zip(padded, line, strict=True)).rstrip() + "\n"


def _plain(text: str) -> str:
    # Names and messages may come from others: no control character reaches the terminal.
    return "".join(c if c.isprintable() else "?" for c in text) or "-"


def money(amount: float) -> str:
    """Return units for people: four decimals below 1."""
    return f"{amount:.4f}" if abs(amount) < 1 else f"{amount:,.2f}"


def size(amount: int) -> str:
    """Return bytes for people: `1.5GiB`."""
    value = float(amount)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.4g}{unit}"
        value /= 1024
    return f"{value:.4g}TiB"


def slots(view: Any) -> str:
    """Return a `SlotsView` for people: `2 cpu 4GiB 1xL4`."""
    gpus = "".join(f" {gpu.count:g}x{gpu.model}" for gpu in view.gpu if gpu.count)
    return f"{view.cpu:g} cpu {size(view.memory)}{gpus}"


def ago(then: float | None, now: float) -> str:
    """Return how long ago a moment was."""
    return "-" if then is None else duration.rough(max(0.0, now - then))
