"""The report of one or several replays: a table for terminals, plain values for JSON, one HTML page with charts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atoll import money
from federation.simulate import charts
from federation.simulate.charts import Line
from federation.simulate.model import Outcome, Series

TEMPLATE = Path(__file__).with_name("report.html")
_TAIL = 0.1
"""For how much longer than jobs came charts go on: few long ones would squeeze the rest."""
PARTS = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One replay: the policy's name, and what came of it. `swept` is the value of the parameter that was varied."""

    name: str
    outcome: Outcome
    swept: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All replays of one trace. `sweep` are those of one policy with a parameter varied, by its name `parameter`."""

    title: str
    about: str
    results: Sequence[Result]
    sweep: Sequence[Result] = ()
    parameter: str = ""
    max_wait_s: float | None = None
    currency: str = "USD"
    notes: Sequence[str] = ()


def columns(report: Report) -> dict[str, list[str]]:
    """Return the table that people read: columns by name, one cell a replay."""
    rows = [*report.results, *report.sweep]
    found = {
        "policy": [row.name for row in rows],
        "cost": [_money(row.outcome.cost) for row in rows],
        "cloud": [_money(row.outcome.cloud) for row in rows],
        "owned": [_money(row.outcome.owned) for row in rows],
    }
    for name, part in PARTS:
        found[f"{name} wait"] = [_seconds(row.outcome.wait(part)) for row in rows]
    if report.max_wait_s is not None:
        limit = report.max_wait_s
        found[f"over {_seconds(limit)}"] = [f"{row.outcome.late(limit):,}" for row in rows]
    found |= {
        "launches": [f"{len(row.outcome.machines):,}" for row in rows],
        "interrupted": [f"{row.outcome.interruptions:,}" for row in rows],
        "moves": [f"{row.outcome.moves:,}" for row in rows],
        "work lost": [_seconds(row.outcome.lost_s) for row in rows],
        "never ran": [f"{row.outcome.unplaced:,}" for row in rows],
    }
    if any(row.outcome.refused for row in rows):
        found["refused"] = [f"{row.outcome.refused:,}" for row in rows]
    return found


def site_columns(result: Result) -> dict[str, list[str]]:
    """Return one replay's sites as a table."""
    sites, unit = result.outcome.sites, result.outcome.unit
    return {
        "site": [site.site for site in sites],
        "cost": [_money(site.cost) for site in sites],
        "machines": [f"{site.machines:,}" for site in sites],
        "placed": [f"{site.starts:,}" for site in sites],
        f"{unit} hours there": [f"{site.capacity_s / 3600:,.0f}" for site in sites],
        f"{unit} hours used": [f"{site.used_s / 3600:,.0f}" for site in sites],
        "use": [f"{result.outcome.use(site.site):.1%}" for site in sites],
    }


def values(report: Report) -> dict[str, Any]:
    """Return the report as plain values: money in units, times in seconds."""
    return {
        "title": report.title,
        "about": report.about,
        "currency": report.currency,
        "policies": [_values(result, report.max_wait_s) for result in report.results],
        "parameter": report.parameter,
        "sweep": [_values(result, report.max_wait_s) for result in report.sweep],
        "notes": list(report.notes),
    }


def html(report: Report) -> str:
    """Return the report as one page that needs nothing else."""
    from jinja2 import Environment

    page = Environment(autoescape=True, trim_blocks=True).from_string(TEMPLATE.read_text(encoding="utf-8"))
    table = columns(report)
    first = report.results[0].outcome
    shown = report.results
    return page.render(
        report={
            "title": report.title,
            "about": report.about,
            "currency": report.currency,
            "unit": first.unit,
            "tiles": _tiles(report),
            "columns": list(table),
            "rows": _rows(table),
            "cost_wait": _cost_wait(report),
            "cost_keys": _keys(
                [r.name for r in shown] + ([f"{shown[0].name}, {report.parameter}"] if report.sweep else [])
            ),
            "swept": report.parameter if report.sweep else "",
            "wait_chart": _wait_chart(report),
            "wait_keys": _keys([result.name for result in shown]),
            "runs": [{"name": result.name, "sites": _site_charts(result.outcome)} for result in shown],
            "site_columns": list(site_columns(shown[0])),
            "site_rows": [
                [result.name, *cells] for result in shown for cells in zip(*site_columns(result).values(), strict=True)
            ],
            "notes": list(report.notes),
        }
    )


def _values(result: Result, max_wait_s: float | None) -> dict[str, Any]:
    outcome = result.outcome
    found: dict[str, Any] = {
        "policy": result.name,
        "cost": outcome.cost / money.PER_UNIT,
        "cloud": outcome.cloud / money.PER_UNIT,
        "owned": outcome.owned / money.PER_UNIT,
        "waits": {name: outcome.wait(part) for name, part in PARTS},
        "jobs": len(outcome.runs),
        "never_ran": outcome.unplaced,
        "launches": len(outcome.machines),
        "refused": outcome.refused,
        "interruptions": outcome.interruptions,
        "moves": outcome.moves,
        "lost_s": outcome.lost_s,
        "began": outcome.began,
        "ended": outcome.ended,
        "rounds": outcome.rounds,
        "seconds": round(outcome.seconds, 3),
        "unit": outcome.unit,
        "sites": [
            {
                "site": site.site,
                "cost": site.cost / money.PER_UNIT,
                "machines": site.machines,
                "placed": site.starts,
                "capacity_s": site.capacity_s,
                "used_s": site.used_s,
                "use": outcome.use(site.site),
            }
            for site in outcome.sites
        ],
    }
    if result.swept:
        found["value"] = result.swept
    if max_wait_s is not None:
        found["late"] = {"max_wait_s": max_wait_s, "jobs": outcome.late(max_wait_s)}
    return found


def _tiles(report: Report) -> list[dict[str, str]]:
    first = report.results[0].outcome
    days = (first.ended - first.began) / 86400
    tiles = [
        ("cloud", _money(first.cloud), f"{len(first.machines):,} machines launched"),
        ("owned", _money(first.owned), "own machines, used or not"),
        (
            "p95 wait",
            _seconds(first.wait(0.95)),
            f"p50 {_seconds(first.wait(0.5))}, longest {_seconds(first.wait(1.0))}",
        ),
        ("interruptions", f"{first.interruptions:,}", "a machine went away, or was needed by others"),
        ("moves", f"{first.moves:,}", f"{_seconds(first.lost_s)} of work lost in all"),
        ("jobs", f"{len(first.runs):,}", f"in {days:.1f} days, to the end of the last"),
    ]
    return [{"label": label, "value": value, "note": note} for label, value, note in tiles]


def _rows(table: dict[str, list[str]]) -> list[list[dict[str, Any]]]:
    lowest = {name: _lowest(cells) for name, cells in table.items() if name in ("cost", "cloud", "p95 wait")}
    count = len(next(iter(table.values())))
    return [
        [{"text": cells[n], "best": count > 1 and lowest.get(name) == n} for name, cells in table.items()]
        for n in range(count)
    ]


def _lowest(cells: Sequence[str]) -> int | None:
    numbers = [
        float(cell.replace(",", "")) if cell.replace(",", "").replace(".", "").isdigit() else None for cell in cells
    ]
    known = [number for number in numbers if number is not None]
    return numbers.index(min(known)) if len(known) == len(numbers) and known else None


def _cost_wait(report: Report) -> str:
    def spot(result: Result) -> charts.Point:
        return result.outcome.wait(0.95) / 60, result.outcome.cloud / money.PER_UNIT

    lines = [
        Line(name=result.name, points=[spot(result)], names=[result.name], colour=_colour(n), marks=True)
        for n, result in enumerate(report.results)
    ]
    if report.sweep:
        lines.append(
            Line(
                name=report.parameter,
                points=[spot(result) for result in report.sweep],
                names=[result.swept for result in report.sweep],
                colour=_colour(len(report.results)),
                marks=True,
            )
        )
    spots = [point for line in lines for point in line.points]
    x = charts.linear([a for a, _ in spots], charts.number_text, "p95 wait, minutes")
    costs = [b for _, b in spots]
    zero = min(costs) < 0.5 * max(costs)
    y = charts.linear(costs, charts.number_text, f"cloud cost, {report.currency}", zero=zero)
    return charts.chart(lines, x, y, "cloud cost against the wait that 95 % of jobs did not exceed")


def _wait_chart(report: Report) -> str:
    longest = max((result.outcome.wait(1.0) for result in report.results), default=1.0)
    x = charts.seconds(max(longest, 60.0), "wait")
    grid = [x.high ** (n / 120) for n in range(121)]
    lines = []
    for n, result in enumerate(report.results):
        outcome = result.outcome
        jobs = max(1, len(outcome.runs))
        points = [(wait, 100 * (1 - outcome.late(wait) / jobs)) for wait in grid]
        lines.append(Line(name=result.name, points=points, colour=_colour(n)))
    y = charts.Axis(0, 100, [0, 25, 50, 75, 100], lambda part: f"{part:.0f} %", "")
    return charts.chart(lines, x, y, "part of the jobs that started within a time")


def _site_charts(outcome: Outcome) -> list[dict[str, Any]]:
    uses = {site.site: site for site in outcome.sites}
    return [
        {
            "name": series.site,
            "about": f"{outcome.use(series.site):.0%} in use, {uses[series.site].machines:,} machines in all",
            "chart": _site_chart(series, outcome, _colour(n)),
            "colour": _colour(n),
        }
        for n, series in enumerate(outcome.series)
        if series.times
    ]


def _site_chart(series: Series, outcome: Outcome, colour: int) -> str:
    end = min(outcome.ended, outcome.submitted + _TAIL * (outcome.submitted - outcome.began) + 3600.0)
    there = charts.binned(series.times, series.capacity, outcome.began, end)
    used = charts.binned(series.times, series.used, outcome.began, end)
    lines = [
        Line(name="there", points=there, colour=colour, area=True, joined=False),
        Line(name="in use", points=used, colour=colour),
    ]
    y = charts.linear([value for _, value in there], charts.number_text, f"{outcome.unit}s")
    x = charts.dates(outcome.began, end)
    return charts.chart(lines, x, y, f"capacity and use of {series.site} over time", height=210)


def _keys(names: Sequence[str]) -> list[dict[str, Any]]:
    return [{"name": name, "colour": _colour(n)} for n, name in enumerate(names)]


def _colour(number: int) -> int:
    return number % charts.COLOURS


def _money(amount: int) -> str:
    return f"{amount / money.PER_UNIT:,.2f}"


def _seconds(value: float) -> str:
    return charts.duration_text(value) if value else "0s"
