"""Rows of a benchmark: measured, judged against a target, printed as a table and kept as JSON."""

import argparse
import json
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
"""Traces and price lists beside the checkout; benchmarks say so where they are absent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measure: ours, a peer's in the same run, and whether the target (on ours or on the ratio) is met."""

    measure: str
    unit: str
    ours: float
    peer: str = ""
    theirs: float | None = None
    ratio: float | None = None
    better: str = "higher"
    target: str = ""
    met: bool | None = None


def row(
    measure: str,
    unit: str,
    ours: float,
    *,
    peer: str = "",
    theirs: float | None = None,
    better: str = "higher",
    target: float | None = None,
    of: str = "ours",
) -> Row:
    """Return a row; `target` bounds `ours` or the `ratio` (ours / theirs) from below or, if lower is better, above."""
    ratio = ours / theirs if theirs else None
    if target is None:
        return Row(measure=measure, unit=unit, ours=ours, peer=peer, theirs=theirs, ratio=ratio, better=better)
    judged = ratio if of == "ratio" else ours
    sign = ">=" if better == "higher" else "<="
    met = judged is not None and (judged >= target if better == "higher" else judged <= target)
    text = f"{of} {sign} {target:g}"
    return Row(
        measure=measure,
        unit=unit,
        ours=ours,
        peer=peer,
        theirs=theirs,
        ratio=ratio,
        better=better,
        target=text,
        met=met,
    )


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table."""
    lines = [
        "| measure | unit | ours | peer | theirs | ratio | better | target | met |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in rows:
        met = {None: "", True: "yes", False: "**no**"}[one.met]
        lines.append(
            f"| {one.measure} | {one.unit} | {_number(one.ours)} | {one.peer} | {_number(one.theirs)} "
            f"| {_number(one.ratio)} | {one.better} | {one.target} | {met} |"
        )
    return "\n".join(lines)


def main(
    description: str, run: Callable[[bool], tuple[list[Row], list[str]]], argv: Sequence[str] | None = None
) -> int:
    """Parse `--quick` and `--json FILE`, run, print notes and table, write the rows; return the exit code."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="one seed and the smallest sizes that mean something")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there")
    options = parser.parse_args(argv)
    rows, notes = run(options.quick)
    sys.stdout.write(f"Python {platform.python_version()}, {platform.machine()}\n")
    for note in notes:
        sys.stdout.write(f"- {note}\n")
    sys.stdout.write("\n" + table(rows) + "\n")
    if options.json:
        options.json.write_text(json.dumps([asdict(one) for one in rows], indent=1) + "\n", encoding="utf-8")
    return 0


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
