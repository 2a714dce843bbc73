"""Rows judge honestly, and the benchmarks' contenders agree where they must."""

import json
from pathlib import Path

from atoll.offer import Demand
from atoll.slots import GIB, GpuRequest, Request
from bench import place, plan
from bench.rows import Row, main, row, table
from bench.workload import machines, requests, shapes


def test_a_row_is_judged_on_ours_or_on_the_ratio() -> None:
    assert row("rate", "1/s", 100, theirs=50, target=100).met
    assert not row("rate", "1/s", 99, theirs=50, target=100).met
    assert row("price", "USD", 101, theirs=100, better="lower", target=1.01, of="ratio").met
    assert not row("price", "USD", 102, theirs=100, better="lower", target=1.01, of="ratio").met
    assert row("time", "s", 1).met is None


def test_main_prints_a_table_and_writes_the_rows(tmp_path: Path) -> None:
    seen: list[bool] = []

    def run(quick: bool) -> tuple[list[Row], list[str]]:
        seen.append(quick)
        return [row("rate", "1/s", 1234.5, peer="scan", theirs=10, target=2000)], ["a note"]

    file = tmp_path / "rows.json"
    assert main("a benchmark", run, ["--quick", "--json", str(file)]) == 0
    assert seen == [True]
    (written,) = json.loads(file.read_text())
    assert set(written) == {"measure", "unit", "ours", "peer", "theirs", "ratio", "better", "target", "met"}
    assert written["met"] is False
    assert "| rate | 1/s | 1,234 | scan | 10 | 123.5 | higher | ours >= 2000 | **no** |" in table(run(True)[0])


def test_contenders_place_the_same_sessions_at_light_load_and_ours_is_as_cheap_as_the_exact_scan() -> None:
    kinds, asks = machines()[0], requests(models=True)[0]
    given = place.case(200, 100, 1, overload=False, kinds=kinds, asks=asks)
    given = place.Case(given.seats, given.demands[-100:])
    ours, scan = place.run_ours(given, warm=0), place.run_numpy(given, warm=0)
    first = place.run_naive(given, warm=0)
    assert ours.count == scan.count == first.count
    pairs = [(a[1], b[1]) for a, b in zip(ours.placed, scan.placed, strict=True) if a and b]
    assert sum(a for a, _ in pairs) <= 1.01 * sum(b for _, b in pairs)


def test_the_bound_is_below_every_plan() -> None:
    able = shapes()[0]
    demands = [
        Demand(session=f"s-{n}", request=Request(1000 * (1 + n % 5), (1 + n % 7) * GIB, 0, GpuRequest(500 * (n % 3))))
        for n in range(60)
    ]
    (ours, _), least = plan.ours(demands, able, 0.0)
    each, _ = plan.one_each([demand.request for demand in demands], able)
    assert 0 < least <= ours <= each
