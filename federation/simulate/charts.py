"""Charts as SVG text: lines, points and areas on two axes; colours are the page's own (CSS classes `c0` to `c7`)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape

WIDTH, HEIGHT = 560, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 18, 14, 42
_NAME_HIGH, _NAME_WIDE = 13.0, 130.0
COLOURS = 8
Point = tuple[float, float]
Text = Callable[[float], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """Points in order: `joined` by a line unless told otherwise, `marks` shows each with its name, `area` fills below.

    `colour` is the number of a CSS class.
    """

    name: str
    points: Sequence[Point]
    colour: int = 0
    names: Sequence[str] = ()
    joined: bool = True
    marks: bool = False
    area: bool = False


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: its ends, where it has ticks, how these are written, and its title; `log` for a logarithmic one."""

    low: float
    high: float
    ticks: Sequence[float]
    text: Text
    title: str
    log: bool = False

    def place(self, value: float) -> float:
        """Return where a value is, 0..1."""
        if self.log:
            low, high = math.log(self.low), math.log(self.high)
            return (math.log(max(value, self.low)) - low) / (high - low)
        return (value - self.low) / (self.high - self.low)


def linear(values: Sequence[float], text: Text, title: str, *, zero: bool = True) -> Axis:
    """Return an axis for these values with round ticks, from 0 unless told otherwise."""
    top, bottom = max(values, default=1.0), 0.0 if zero else min(values, default=0.0)
    if top - bottom <= 1e-9 * max(top, 1.0):
        top = bottom + 1.0
    step = _round_step((top - bottom) / 5)
    low, high = math.floor(bottom / step) * step, math.ceil(top / step - 1e-9) * step
    count = round((high - low) / step)
    return Axis(low, high, [low + n * step for n in range(count + 1)], text, title)


def seconds(high: float, title: str) -> Axis:
    """Return a logarithmic axis of durations from a second to `high`."""
    marks = (1, 10, 60, 300, 1800, 3600, 6 * 3600, 86400, 7 * 86400, 28 * 86400)
    top = next((mark for mark in marks[1:] if mark >= high), max(high, 2.0))
    return Axis(1.0, float(top), [float(m) for m in marks if m <= top], duration_text, title, log=True)


def dates(low: float, high: float) -> Axis:
    """Return an axis of Unix times, with ticks at round hours or days (UTC)."""
    span = max(high - low, 1.0)
    steps = (60, 300, 900, 3600, 3 * 3600, 6 * 3600, 12 * 3600, 86400, 2 * 86400, 7 * 86400, 14 * 86400, 30 * 86400)
    step = next((step for step in steps if span / step <= (8 if step >= 86400 else 5)), span / 8)
    first = math.ceil(low / step) * step
    form = "%b %-d" if step >= 86400 else "%b %-d %H:%M"
    ticks = [first + n * step for n in range(int((low + span - first) // step) + 1)]
    return Axis(low, low + span, ticks, lambda at: datetime.fromtimestamp(at, UTC).strftime(form), "")


def chart(lines: Sequence[Line], x: Axis, y: Axis, label: str, *, height: int = HEIGHT) -> str:
    """Return a chart as SVG; `label` is told to those who cannot see it."""
    taken: list[Point] = []
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}" class="chart">',
        *_grid(x, y, height),
        *(part for line in lines for part in _line(line, x, y, height, taken)),
        "</svg>",
    ]
    return "".join(parts)


def binned(
    times: Sequence[float], values: Sequence[float], low: float, high: float, bins: int = 360
) -> list[tuple[float, float]]:
    """Return the means of a step function over equal spans of time, each at its middle."""
    width = max(high - low, 1e-9) / bins
    area = [0.0] * bins
    for n, at in enumerate(times):
        begin, end = max(at, low), min(times[n + 1] if n + 1 < len(times) else high, high)
        while begin < end:
            number = min(bins - 1, int((begin - low) / width))
            edge = end if number == bins - 1 else min(end, low + (number + 1) * width)
            if edge <= begin:  # an edge that is not told apart from the next bin's beginning
                number, edge = number + 1, min(end, low + (number + 2) * width)
            area[min(bins - 1, number)] += values[n] * (edge - begin)
            begin = edge
    return [(low + (n + 0.5) * width, amount / width) for n, amount in enumerate(area)]


def duration_text(value: float) -> str:
    """Return seconds for an axis: `90s`, `5m`, `2h`, `3d`."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}s"


def number_text(value: float) -> str:
    """Return a number for an axis: `1,500`, `0.25`."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == round(value) else f"{value:.3g}"


def _grid(x: Axis, y: Axis, height: int) -> list[str]:
    bottom = height - _BOTTOM
    parts = []
    for tick in y.ticks:
        at = _y(y, tick, height)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(
            f'<text class="tick" x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{escape(y.text(tick))}</text>'
        )
    for tick in x.ticks:
        at = _x(x, tick)
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{bottom}"/>')
        parts.append(
            f'<text class="tick" x="{at:.1f}" y="{bottom + 16}" text-anchor="middle">{escape(x.text(tick))}</text>'
        )
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    if x.title:
        parts.append(f'<text class="title" x="{middle}" y="{height - 4}" text-anchor="middle">{escape(x.title)}</text>')
    if y.title:
        centre = (_TOP + bottom) / 2
        place = f'x="12" y="{centre}" transform="rotate(-90 12 {centre})"'
        parts.append(f'<text class="title" {place} text-anchor="middle">{escape(y.title)}</text>')
    return parts


def _line(line: Line, x: Axis, y: Axis, height: int, taken: list[Point]) -> list[str]:
    spots = [(_x(x, a), _y(y, b, height)) for a, b in line.points]
    if not spots:
        return []
    path = " ".join(f"{'L' if n else 'M'}{a:.1f} {b:.1f}" for n, (a, b) in enumerate(spots))
    tip = f"<title>{escape(line.name)}</title>"
    parts = []
    if line.area:
        floor = height - _BOTTOM
        closed = f"{path} L{spots[-1][0]:.1f} {floor} L{spots[0][0]:.1f} {floor} Z"
        parts.append(f'<path class="area c{line.colour}" d="{closed}">{tip}</path>')
    if line.joined and len(spots) > 1:
        parts.append(f'<path class="line c{line.colour}" d="{path}">{tip}</path>')
    if line.marks:
        parts += _marks(line, spots, taken)
    return parts


def _marks(line: Line, spots: Sequence[Point], taken: list[Point]) -> list[str]:
    """Return points with their names; a name that would be written over another goes beside it."""
    parts = []
    for n, (a, b) in enumerate(spots):
        name = line.names[n] if n < len(line.names) else line.name
        left = a > WIDTH * 0.66
        down, step = b - 7, _NAME_HIGH if b < HEIGHT / 2 else -_NAME_HIGH
        while any(abs(down - other) < _NAME_HIGH and abs(a - at) < _NAME_WIDE for at, other in taken):
            down += step
        taken.append((a, down))
        place = f'x="{a + (-8 if left else 8):.1f}" y="{down:.1f}" text-anchor="{"end" if left else "start"}"'
        tip = f"<title>{escape(name)}</title>"
        parts.append(f'<circle class="mark c{line.colour}" cx="{a:.1f}" cy="{b:.1f}" r="4">{tip}</circle>')
        parts.append(f'<text class="name" {place}>{escape(name)}</text>')
    return parts


def _x(axis: Axis, value: float) -> float:
    return _LEFT + axis.place(value) * (WIDTH - _LEFT - _RIGHT)


def _y(axis: Axis, value: float, height: int) -> float:
    return height - _BOTTOM - axis.place(value) * (height - _TOP - _BOTTOM)


def _round_step(rough: float) -> float:
    size = 10.0 ** math.floor(math.log10(max(rough, 1e-12)))
    return next(step * size for step in (1, 2, 2.5, 5, 10) if step * size >= rough * (1 - 1e-9))
