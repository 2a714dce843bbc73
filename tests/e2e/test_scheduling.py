"""Homecoming in a real installation: a program that had to burst comes home by itself, and nothing is lost."""

import json
import time
from pathlib import Path

import pytest

from tests.e2e.burst import SIM
from tests.e2e.installation import Installation
from tests.e2e.waiting import until

pytestmark = pytest.mark.e2e

MORE = 40
COUNTER = """
import os, pathlib, signal, sys, time
folder, more = pathlib.Path(sys.argv[1]), int(sys.argv[2])
saved, book = folder / "saved", folder / "book"
number, total = (int(word) for word in saved.read_text().split()) if saved.exists() else (0, 0)
assert saved.exists() == (os.environ.get("ATOLL_RESUMED") == "1")
last = number + more if number else None
asked = []
signal.signal(signal.SIGUSR1, lambda *_: asked.append(1))
while number != last:
    number += 1
    total += number * number
    with book.open("a") as file:
        print(number, os.environ["ATOLL_ATTEMPT"], file=file)
    time.sleep(0.05)
    if asked:
        saved.write_text(f"{number} {total}")
        sys.exit(85)
print("sum", total)
"""
"""Counts and adds up until it is asked for its state, and once it goes on, `more` numbers more."""
TIMES = {"SCHEDULE_S": "0.2", "HOME_S": "0.5", "LAUNCH_S": "0.2", "OBSERVE_S": "0.5"}


@pytest.fixture
def at(tmp_path: Path) -> Installation:
    return Installation(
        tmp_path, slots="cpu=2,memory=2GiB", env={f"ATOLL_TIMES__{key}": value for key, value in TIMES.items()}
    )


def test_a_session_comes_home_by_itself(at: Installation, tmp_path: Path) -> None:
    with at:
        at.up()
        at.atoll("apply", "-f", "-", stdin=SIM)
        at.atoll("run", "--detach", "--name", "blocker", "--cpu", "2", "--", "sleep", "300")
        at.wait(["blocker"], ["running"])
        (tmp_path / "counter.py").write_text(COUNTER)
        work = {
            "name": "work",
            "command": ["python3", str(tmp_path / "counter.py"), str(tmp_path), str(MORE)],
            "resources": {"cpu": 1},
            "checkpoint": {"grace": "20s", "lost": "1s", "every": "0s"},
        }
        (tmp_path / "work.yaml").write_text(json.dumps(work))
        at.atoll("run", "--detach", "--file", str(tmp_path / "work.yaml"))
        at.atoll("run", "--detach", "--name", "plain", "--cpu", "1", "--", "sleep", "300")
        for name, view in zip(("work", "plain"), at.wait(["work", "plain"], ["running"]), strict=True):
            assert (view["name"], view["site"], view["price"]) == (name, "far", 0.024)
        until(lambda: (tmp_path / "book").exists(), "its first number", story=at.story)

        began = time.monotonic()
        at.atoll("stop", "--wait", "blocker")
        until(lambda: at.session("work")["attempt"] == 2, "it comes home", story=at.story)
        print(f"asked, saved, resumed after {time.monotonic() - began:.1f} s")
        [done] = at.wait(["work"], ["succeeded"])

        assert (done["site"], done["attempt"], done["moves"], done["interruptions"]) == ("local", 2, 1, 0)
        saved = int((tmp_path / "saved").read_text().split()[0])
        last = saved + MORE
        assert at.atoll("logs", "work") == f"sum {sum(number**2 for number in range(last + 1))}\n"
        book = [line.split() for line in (tmp_path / "book").read_text().splitlines()]
        assert [int(number) for number, _ in book] == list(range(1, last + 1))
        assert {attempt for _, attempt in book} == {"1", "2"}
        assert [attempt for _, attempt in book].count("1") == saved

        why = " ".join(at.atoll("why", "work").split())
        assert "HOMECOMING" in why
        assert "comes home: saves about 0.0040 USD over the next 10 min, costs 1 s of work (0.0000 USD)" in why, why
        assert "MOVED moved from far to local: comes home" in why, why
        [stays] = at.wait(["plain"], ["running"])
        assert (stays["site"], stays["attempt"], stays["moves"]) == ("far", 1, 0)
        at.atoll("stop", "--wait", "plain")
        adds_up(at)


def adds_up(at: Installation) -> None:
    """What the sessions and the machines cost is what `atoll cost` says, once all of them are gone."""

    def machines() -> list[dict[str, float]]:
        found = json.loads(at.atoll("get", "instances", "-o", "json"))
        return found if all(each["state"] == "gone" for each in found) else []

    gone = until(machines, "the end of both machines", story=at.story)
    assert len(gone) == 2
    cost, sessions = json.loads(at.atoll("cost", "-o", "json")), {view["name"]: view for view in at.sessions()}
    assert sessions["blocker"]["cost"] == 0
    assert 0 < sessions["work"]["cost"] <= sessions["work"]["on_demand_cost"]
    assert cost["session_cost"] == pytest.approx(sum(view["cost"] for view in sessions.values()))
    assert cost["on_demand_cost"] == pytest.approx(sum(view["on_demand_cost"] for view in sessions.values()))
    assert cost["instance_cost"] == pytest.approx(sum(each["cost"] for each in gone))
    assert cost["instance_cost"] >= cost["session_cost"] > 0
    assert cost["session_cost"] == pytest.approx(sum(row["session_cost"] for row in cost["rows"]))
    text = at.atoll("cost")
    assert f"{cost['session_cost']:.4f} USD (simulated)" in text, text
