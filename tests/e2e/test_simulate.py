"""`atoll simulate` and `atoll policy test` as a person uses them: a trace, and what ran in a real installation."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import browser
from tests.e2e.burst import SIM
from tests.e2e.installation import Installation
from tests.e2e.test_bad_input import told

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("simulate")]

JOBS = 40
SITES = """
kind: site
name: local
price: 0.10
---
kind: group
name: night
site: local
hours: ["00:00-24:00"]
"""


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation in which some sessions have run, at home and on a paid machine, one runs, and one is held."""
    env = {f"ATOLL_TIMES__{key}": "0.2" for key in ("SCHEDULE_S", "LAUNCH_S", "OBSERVE_S")}
    with Installation(tmp_path_factory.mktemp("lived"), slots="cpu=4,memory=4GiB", env=env) as installation:
        installation.up()
        installation.atoll("apply", "-f", "-", stdin=f"{SITES}---{SIM}")
        names = installation.atoll("run", "--detach", "--count", "6", "--name", "home", "--", "sleep", "0.3").split()
        installation.atoll("run", "--group", "burst", "--name", "away", "--", "true")
        document = {"kind": "session", "name": "stays", "command": ["sleep", "300"], "checkpoint": {"lost": "5s"},
                    "labels": {"kind": "long"}}  # fmt: skip
        installation.atoll("apply", "-f", "-", stdin=json.dumps(document))
        installation.atoll("run", "--detach", "--name", "never", "--gpu", "64", "--", "true")
        installation.wait(names, ["succeeded"])
        installation.wait(["stays"], ["running"])
        yield installation


def trace(folder: Path) -> Path:
    """A day of jobs, some of which burst: more GPUs than the example's hall has."""
    lines = ["id,at,duration_s,gpu,cpu,project,checkpoint"]
    for number in range(JOBS):
        at, lasts = 1_780_000_000 + number * 1800, 3600 * (1 + number % 7)
        lines.append(f"job-{number},{at},{lasts},{8 if number % 2 else 0},{16},{'red' if number % 3 else 'blue'},true")
    place = folder / "jobs.csv"
    place.write_text("\n".join(lines) + "\n")
    return place


@pytest.mark.skipif(
    browser.found() is None and not os.environ.get("CI"), reason="no Chromium here: apt-get install chromium"
)
async def test_a_trace_gives_a_table_values_and_a_page(tmp_path: Path) -> None:
    nowhere = Installation(tmp_path / "nowhere")
    page, jobs = tmp_path / "report.html", str(trace(tmp_path))
    args = ["simulate", "--trace", jobs, "--compare", "default:homecoming=0", "--sweep", "wait_value=0.01,1"]
    done = nowhere.call(*args, "--report", str(page))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Simulation of jobs.csv: {JOBS} jobs submitted in 0.8 days")
    assert "run on the built-in example of a setup: no control plane is known" in done.stderr
    assert f"report: {page}" in done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    first, second = (
        next(row for row in rows if row and row[0] == name) for name in ("default", "default:homecoming=0")
    )
    values = json.loads(nowhere.atoll(*args, "-o", "json"))
    assert [each["policy"] for each in values["policies"]] == ["default", "default:homecoming=0"]
    for row, each in zip((first, second), values["policies"], strict=True):
        assert float(row[1].replace(",", "")) == pytest.approx(each["cost"], abs=0.01)
        assert each["never_ran"] == 0
    async with browser.tab(tmp_path / "profile") as tab:
        await tab.open(page.as_uri())
        await tab.until("document.title.startsWith('Simulation of jobs.csv')")
        assert await tab.run("document.querySelectorAll('svg').length") >= 2
        assert await tab.run(
            "[...document.querySelectorAll('svg')].every(each => each.getBoundingClientRect().height > 50)"
        )
        assert await tab.run("document.body.innerText.includes('default:homecoming=0')")
        assert await tab.run("document.documentElement.scrollWidth <= innerWidth + 1")
        assert tab.complaints == []


def test_its_own_history_is_replayed(lived: Installation, tmp_path: Path) -> None:
    saved = tmp_path / "jobs.jsonl"
    done = lived.call("simulate", "--history", "7d", "--save", str(saved), "--report", str(tmp_path / "report.html"))
    assert done.returncode == 0, done.stderr
    assert "Simulation of history of 7d: 8 jobs" in done.stdout
    assert "1 sessions still run" in done.stderr
    assert "1 sessions never ran" in done.stderr
    assert "run on this installation's own sites, groups and prices" in done.stderr
    [values] = json.loads(lived.atoll("simulate", "--history", "7d", "-o", "json"))["policies"]
    assert {site["site"] for site in values["sites"]} == {"local", "far"}
    assert values["never_ran"] == 0
    assert values["cost"] > 0
    jobs = [json.loads(line) for line in saved.read_text().splitlines()]
    [again] = json.loads(lived.atoll("simulate", "--trace", str(saved), "-o", "json"))["policies"]
    assert (again["jobs"], again["never_ran"]) == (8, 0)
    assert {job["owner"] for job in jobs} == {view["owner"] for view in lived.sessions()}
    assert [job["tags"] for job in jobs if "tags" in job] == [["kind=long"]]
    assert [job["groups"] for job in jobs if "groups" in job] == [["burst"]]
    ran = {view["id"]: view["ended_at"] - view["started_at"] for view in lived.sessions() if view["ended_at"]}
    assert {job["id"]: job["duration_s"] for job in jobs if job["id"] in ran} == pytest.approx(
        {key: ran[key] for key in ran if key in {job["id"] for job in jobs}}
    )
    assert [job["checkpoint"] for job in jobs if "checkpoint" in job] == [5.0]
    told(lived.call("simulate", "--history", "1ms"), "no job in this time", code=120)
    told(lived.call("simulate", "--history", "7d", "--policy", "nowhere"), "nowhere")


def test_a_policy_is_tested_on_the_history(lived: Installation, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    rules = [
        {"when": "'kind=long' in session.labels", "reason": "too long"},
        {"when": "offer.site == 'local'", "reason": "shut"},
    ]
    policy.write_text(json.dumps({"deny": rules}))
    args = ["policy", "test", str(policy), "--replay", "7d"]
    done = lived.call(*args, "--compare")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("8 jobs\n")
    assert "1 denied: too long" in done.stdout
    [told_so] = [line for line in done.stdout.splitlines() if line.startswith(f"under {policy} instead of default: ")]
    assert "1 denied" in told_so
    assert "local -> far" in done.stdout, done.stdout
    [alone] = json.loads(lived.atoll(*args, "-o", "json"))
    assert list(alone["denied"].values()) == ["too long"]
    lived.atoll("policy", "apply", str(policy))
    live, _ = json.loads(lived.atoll(*args, "--compare", "-o", "json"))
    assert live["denied"] == alone["denied"]
    told(lived.call("policy", "test", str(policy), "--replay", "1ms"), "nothing ran here", code=120)
