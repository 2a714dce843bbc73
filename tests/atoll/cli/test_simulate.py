"""`atoll simulate` as it is called: a small trace, compared policies, JSON, a report, and mistakes."""

import json
from pathlib import Path

import pytest

from atoll.cli.main import main

SETUP = """
sites: [{name: hall, price: 0.06}, {name: cloud}]
groups: [{name: own, site: hall}, {name: burst, site: cloud, provider: cloud, size: {max: 9}, scale_down: {idle: 30s}}]
machines: [{group: own, count: 1, cpu: 2, memory: 8GiB}]
shapes: {cloud: [{name: c2, cpu: 2, memory: 8GiB, price: 0.36, start: 1m}]}
"""
TRACE = "at,duration_s,cpu,checkpoint\n" + "".join(f"{n * 10},600,2,\n" for n in range(4))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "setup.yaml").write_text(SETUP)
    (tmp_path / "jobs.csv").write_text(TRACE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATOLL_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ATOLL_URL", raising=False)
    return tmp_path


def call(line: str) -> int:
    return main(["simulate", *line.split()])


def test_it_replays_compares_and_reports(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "simulate --trace jobs.csv --setup setup.yaml --compare default:wait_value=0 --sweep patience=0,60"
    assert main([*words.split(), "--max-wait", "50s", "--report", "r.html", "--save", "s.jsonl", "-o", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    first = told["policies"][0]
    assert (first["jobs"], first["never_ran"], first["launches"]) == (4, 0, 3)
    # Three machines of their own: booted for 60 s, used for 600 s, idle for 30 s, and 2 s to say that they are empty.
    assert first["cloud"] == pytest.approx(3 * 692 / 3600 * 0.36, abs=1e-4)
    assert first["waits"] == {"p50": 60.0, "p95": 60.0, "p99": 60.0, "max": 60.0}
    assert first["late"] == {"max_wait_s": 50.0, "jobs": 3}
    assert [one["value"] for one in told["sweep"]] == ["0", "60"]
    assert (folder / "r.html").read_text().startswith("<!doctype html>")
    assert len((folder / "s.jsonl").read_text().splitlines()) == 4


def test_what_it_saved_replays_alike(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--trace jobs.csv --setup setup.yaml --save again.jsonl") == 0
    table = capsys.readouterr().out.partition("\n")[2]
    assert call("--trace again.jsonl --setup setup.yaml") == 0
    assert capsys.readouterr().out.partition("\n")[2] == table
    assert "never ran" in table


def test_without_an_installation_it_says_what_it_ran_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--trace jobs.csv") == 0
    assert "built-in example" in capsys.readouterr().err


def test_a_policy_file_denies_and_bounds_the_wait(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "strict.yaml").write_text("deny: [{when: session.cpu > 1, reason: too large}]\n")
    assert call("--trace jobs.csv --setup setup.yaml --policy strict.yaml -o json") == 0
    assert json.loads(capsys.readouterr().out)["policies"][0]["never_ran"] == 4


def test_the_example_setup_can_be_printed_and_used(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--print-setup"]) == 0
    (folder / "example.yaml").write_text(capsys.readouterr().out)
    assert call("--trace jobs.csv --setup example.yaml") == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("simulate", "there is nothing to replay"),
        ("simulate --trace none.csv", "none.csv: no such file"),
        ("simulate --trace jobs.csv --setup setup.yaml --policy odd", "there is no policy 'odd'"),
        ("simulate --trace jobs.csv --setup setup.yaml --set wait_valeu=1", "did you mean 'wait_value'"),
        ("simulate --trace jobs.csv --setup setup.yaml --set wait_value=x", "has no number"),
        ("simulate --trace jobs.csv --setup setup.yaml --sweep wait_value=", "has no values"),
        ("simulate --trace jobs.csv --setup setup.yaml --checkpoints 2", "a part of the jobs"),
        ("simulate --trace jobs.csv --cluster x", "of cluster 'x'"),
        ("simulate --history 7d", "no control plane is known"),
    ],
)
def test_mistakes_are_named(folder: Path, capsys: pytest.CaptureFixture[str], line: str, message: str) -> None:
    assert main(line.split()) in (120, 124, 125)
    assert message in capsys.readouterr().err
