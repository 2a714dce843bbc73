"""`atoll policy test`: what a policy would have denied, held and changed."""

import json
from functools import partial
from pathlib import Path

import pytest

from atoll.cli.main import main
from atoll.document import policy
from atoll.money import micros
from federation.simulate.model import Job, Options
from federation.simulate.policies import of_policies, replayed
from federation.simulate.policytest import Tried, differences, table_of, tried_of
from tests.federation.simulate.builders import checkpoint, job, setup, shape

EXACT = Options(tick_s=0.0, drain_s=0.0)
JOBS = [job("a", 0, 3600, 2), job("b", 0, 3600, 2), job("c", 10, 600, 1, project="red")]


def tried(jobs: list[Job], **document: object) -> Tried:
    row = policy(document)
    one = of_policies(row.name, [row])
    return tried_of(one, jobs, partial(replayed, one, setup=setup(1, shape()), options=EXACT))


def test_a_policy_that_keeps_sessions_in_the_cloud_is_seen_to_cost_more() -> None:
    jobs = [job("first", 0, 600, 2), job("moves", 0, 36000, 2, checkpoint=checkpoint())]
    live, tested = tried(jobs), tried(jobs, name="stays", homecoming=False)
    assert (live.outcome.moves, tested.outcome.moves) == (1, 0)
    assert live.outcome.cost < tested.outcome.cost
    assert "1 cost more" in differences(live, tested)


def test_denied_jobs_are_left_out_and_those_for_approval_run() -> None:
    found = tried(
        JOBS,
        name="new",
        deny=[{"when": "session.project == 'red'", "reason": "not red"}],
        approve=[{"when": "session.cost > 0.1", "role": "lead"}],
    )
    assert found.denied == {"c": "not red"}
    assert found.held == {"b": "lead"}  # in the cloud; at home it costs less
    assert {run.job for run in found.outcome.runs} == {"a", "b"}
    told = table_of([found], 3)
    assert told.startswith("3 jobs\n")
    assert "new: 1 denied: not red" in told


def test_what_differs_is_counted_and_shown_by_how_much() -> None:
    live = tried(JOBS)
    same = differences(live, tried(JOBS, name="same"))
    assert same == "under same instead of default: nothing differs\n"
    home = tried(JOBS, name="home", deny=[{"when": "not offer.owned", "reason": "stay at home"}])
    assert {site for run in home.outcome.runs for site in run.sites} == {"hall"}
    assert home.outcome.owned > live.outcome.owned
    told = differences(live, home)
    assert "1 run elsewhere" in told or "2 run elsewhere" in told
    assert "wait longer" in told
    gone = differences(live, tried(JOBS, name="none", deny=[{"when": "True", "reason": "closed"}]))
    assert gone == "under none instead of default: 3 denied\n"


def test_a_rule_that_fails_is_reported() -> None:
    found = tried(JOBS, name="new", deny=[{"when": "1 / session.gpu > 1", "reason": "x"}])
    assert found.denied == {}
    assert list(found.errors) == ["new: 1 / session.gpu > 1"]


def test_the_command_replays_a_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace, rule, place = tmp_path / "jobs.csv", tmp_path / "new.yaml", tmp_path / "setup.yaml"
    trace.write_text("at,duration_s,cpu,project\n0,3600,2,red\n5,3600,2,blue\n")
    rule.write_text("name: new\ndeny: [{when: session.project == 'red', reason: not red}]\n")
    place.write_text("sites: [{name: hall, price: 0.5}]\ngroups: [{name: own, site: hall}]\n"
                     "machines: [{group: own, count: 1, cpu: 2, memory: 64GiB}]\n")  # fmt: skip
    line = ["policy", "test", str(rule), "--trace", str(trace), "--setup", str(place)]
    assert main(line) == 0
    told = capsys.readouterr().out
    assert "2 jobs" in told
    assert "1 denied: not red" in told
    assert main([*line, "-o", "json"]) == 0
    (values,) = json.loads(capsys.readouterr().out)
    assert (len(values["denied"]), values["unplaced"]) == (1, 0)
    assert values["cost"] == pytest.approx(0.5, rel=0.01)
    assert main(["policy", "test", str(rule)]) == 120
    assert micros(values["cloud"]) == 0
