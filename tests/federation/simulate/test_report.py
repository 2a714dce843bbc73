"""The report: its figures are the outcomes', its page stands alone, and a browser shows it."""

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.simulate import charts, report
from federation.simulate.model import Options, Outcome
from federation.simulate.report import Report, Result
from federation.simulate.run import simulate
from tests.e2e import browser
from tests.federation.simulate.builders import job, setup, shape


def outcome(idle_s: float = 30.0) -> Outcome:
    jobs = [job(f"j-{n}", n * 60.0, 900.0, 2) for n in range(12)]
    return simulate(jobs, setup(2, shape(), idle_s=idle_s), options=Options(drain_s=0.0))


def whole() -> Report:
    return Report(
        title="Simulation of <jobs>.csv",
        about="12 jobs",
        results=[Result(name="default", outcome=outcome()), Result(name="other <b>", outcome=outcome(600.0))],
        sweep=[Result(name="default:x=1", swept="1", outcome=outcome())],
        parameter="x",
        max_wait_s=59.0,
        notes=("a note",),
    )


def test_the_values_are_the_outcomes() -> None:
    told = whole()
    first = told.results[0].outcome
    values = json.loads(json.dumps(report.values(told)))
    assert [policy["policy"] for policy in values["policies"]] == ["default", "other <b>"]
    assert values["policies"][0]["cloud"] == first.cloud / 1e6
    assert values["policies"][0]["waits"]["p95"] == first.wait(0.95) >= 60.0
    assert values["policies"][0]["late"]["jobs"] == first.late(59.0) > 0
    assert values["policies"][1]["cloud"] > values["policies"][0]["cloud"]
    assert values["sweep"][0]["value"] == "1"


def test_use_is_counted_while_jobs_came() -> None:
    found = simulate([job("a", 0, 100, 1), job("b", 400, 100, 2)], setup(1, shape()), options=Options(drain_s=0.0))
    assert found.use("hall") == pytest.approx(100 * 1 / (400 * 2))
    assert found.use("cloud") == 0.0


def test_the_page_stands_alone_and_says_nothing_unescaped() -> None:
    page = report.html(whole())
    assert "<jobs>" not in page
    assert "other <b>" not in page
    assert not re.search(r"(src|href)=|https?://|@import|url\(", page)
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawings) == 2 + 2 * 2
    for drawing in drawings:
        ElementTree.fromstring(drawing)


@given(
    st.lists(st.tuples(st.floats(0, 100), st.floats(0, 50)), min_size=1, max_size=20, unique_by=lambda pair: pair[0]),
    st.integers(1, 40),
)
def test_bins_keep_the_area_under_the_steps(steps: list[tuple[float, float]], bins: int) -> None:
    steps.sort()
    times, values = [at for at, _ in steps], [value for _, value in steps]
    found = charts.binned(times, values, 0.0, 100.0, bins)
    spans = zip(times, [*times[1:], 100.0], strict=True)
    area = sum(value * (end - begin) for value, (begin, end) in zip(values, spans, strict=True))
    assert sum(value for _, value in found) * 100.0 / bins == pytest.approx(area, abs=1e-6)


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=9))
def test_axes_hold_their_values(values: list[float]) -> None:
    for zero in (True, False):
        axis = charts.linear(values, charts.number_text, "", zero=zero)
        assert axis.low <= min(values) + 1e-9 * max(1.0, *values)
        assert axis.high >= max(values) * (1 - 1e-9) - 1e-9
        assert 2 <= len(axis.ticks) <= 14


@pytest.mark.e2e
async def test_a_browser_shows_it(tmp_path: Path) -> None:
    if browser.found() is None:
        pytest.skip("no Chromium here")
    page = tmp_path / "report.html"
    page.write_text(report.html(whole()), encoding="utf-8")
    async with browser.tab(tmp_path / "profile") as tab:
        await tab.open(page.as_uri())
        assert await tab.run("document.querySelectorAll('svg path.line').length") >= 4
        assert await tab.run("document.querySelector('h1').textContent") == "Simulation of <jobs>.csv"
        assert await tab.run("document.documentElement.scrollWidth <= window.innerWidth")
        assert tab.complaints == []
