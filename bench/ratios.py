"""Draws the ratios of a benchmark's rows as bars: `python -m bench.ratios ROWS.json >PLOT.svg`.

Bars to the right of the middle are measures where ours is better than the peer, on a logarithmic scale; a tick marks
the target. Rows without a peer are left out.
"""

import json
import sys
from html import escape
from math import log2
from pathlib import Path
from typing import Any

WIDTH, LINE, LABEL, EDGE, MOST = 900, 16, 430, 60, 4.0
GOOD, BAD, INK = "#2a7", "#c54", "#333"


def advantage(row: dict[str, Any], ratio: float) -> float:
    """Return how many times doubled ours is better at a ratio (negative: worse), within what is drawn."""
    better = log2(max(ratio, 1e-6))
    return max(-MOST, min(MOST, better if row["better"] == "higher" else -better))


def draw(rows: list[dict[str, Any]]) -> str:
    """Return an SVG with a bar for each row that has a peer."""
    shown = [row for row in rows if row["peer"] and row["ratio"]]
    height = LINE * (len(shown) + 3)
    middle, unit = LABEL + (WIDTH - LABEL - EDGE) / 2, (WIDTH - LABEL - EDGE) / 2 / MOST
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        f'font-size="10" fill="{INK}"><rect width="100%" height="100%" fill="#fff"/>'
    ]
    for power in range(-int(MOST), int(MOST) + 1):
        at = middle + power * unit
        name = f"{2**power}×" if power >= 0 else f"1/{2**-power}"
        parts.append(f'<path d="M{at:.1f},{LINE * 1.5}V{height - LINE}" stroke="{"#888" if power == 0 else "#eee"}"/>')
        parts.append(f'<text x="{at:.1f}" y="{LINE}" text-anchor="middle">{name}</text>')
    for number, row in enumerate(shown, start=2):
        parts.append(_bar(row, number * LINE, middle, unit))
    return "".join([*parts, f'<text x="{LABEL}" y="{height - 3}">← worse than the peer · better →</text></svg>\n'])


def _bar(row: dict[str, Any], top: float, middle: float, unit: float) -> str:
    length = advantage(row, row["ratio"]) * unit
    colour = GOOD if length >= 0 else BAD
    left = min(middle, middle + length)
    name = f"{row['measure']}, beside {row['peer']}"
    bar = f'<rect x="{left:.1f}" y="{top}" width="{max(1.0, abs(length)):.1f}" height="{LINE - 4}" fill="{colour}"/>'
    label = f'<text x="{LABEL - 20}" y="{top + LINE - 6}" text-anchor="end">{escape(name)}</text>'
    end = middle + length + (4 if length >= 0 else -4)
    anchor = "start" if length >= 0 else "end"
    value = f'<text x="{end:.1f}" y="{top + LINE - 6}" text-anchor="{anchor}">{row["ratio"]:.2f}</text>'
    return label + bar + value + _target(row, top, middle, unit)


def _target(row: dict[str, Any], top: float, middle: float, unit: float) -> str:
    words = str(row["target"]).split()
    if len(words) != 3 or words[0] != "ratio":
        return ""
    at = middle + advantage(row, float(words[2])) * unit
    return f'<path d="M{at:.1f},{top - 1}V{top + LINE - 3}" stroke="{INK}" stroke-width="2"/>'


if __name__ == "__main__":
    sys.stdout.write(draw(json.loads(Path(sys.argv[1]).read_text())))
