"""Real moves: a program saves its state when it is asked, exits, and goes on where it was moved to."""

import json
import time
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.installation import Installation
from tests.e2e.waiting import until

pytestmark = pytest.mark.e2e

MORE = 20
COUNTER = """
import os, pathlib, signal, sys, time
saved, more = pathlib.Path(sys.argv[1]), int(sys.argv[2])
resumed = os.environ.get("ATOLL_RESUMED") == "1"
number = int(saved.read_text()) if resumed else 0
last = number + more if resumed else None
asked = []
signal.signal(signal.SIGUSR1, lambda *_: asked.append(1))
while number != last:
    number += 1
    print(number, flush=True)
    time.sleep(0.1)
    if asked:
        saved.write_text(str(number))
        sys.exit(85)
print("sum", number * (number + 1) // 2, "in attempt", os.environ["ATOLL_ATTEMPT"])
"""
"""Counts until it is asked for its state, and once it goes on, `more` numbers more."""
STUBBORN = """
import pathlib, signal, sys, time
kind, folder = sys.argv[1], pathlib.Path(sys.argv[2])
signal.signal(signal.SIGUSR1, (lambda *_: None) if kind == "heedless" else signal.SIG_IGN)
number = 0
while not (folder / "enough").exists():
    print(number, flush=True)
    number += 1
    time.sleep(0.1)
(folder / f"{kind}.count").write_text(str(number))
"""


@pytest.fixture
def at(tmp_path: Path) -> Installation:
    times = {"ATOLL_TIMES__SCHEDULE_S": "0.2", "ATOLL_TIMES__LAUNCH_S": "0.2", "ATOLL_TIMES__OBSERVE_S": "0.5"}
    return Installation(tmp_path, slots="cpu=2,memory=2GiB", env=times)


def output(at: Installation, name: str) -> str:
    return at.call("logs", name).stdout


def is_settled(at: Installation, name: str) -> bool:
    return not at.session(name)["moving"]


def why(at: Installation, name: str) -> str:
    return " ".join(at.atoll("why", name).split())


def test_a_session_comes_home_and_counts_on(at: Installation, tmp_path: Path) -> None:
    with at:
        at.up()
        at.atoll("provider", "add", "sim", "--set", "boot_s=0.1")
        at.atoll("group", "create", "burst", "--provider", "sim", "--shape", "cpu-1", "--on-demand", "--site", "far")
        at.atoll("run", "--detach", "--name", "blocker", "--cpu", "2", "--", "sleep", "100")
        at.wait(["blocker"], ["running"])
        (tmp_path / "counter.py").write_text(COUNTER)
        program = ["python3", str(tmp_path / "counter.py"), str(tmp_path / "saved"), str(MORE)]
        at.atoll("run", "--detach", "--name", "work", "--cpu", "1", "--checkpoint", "--", *program)
        until(lambda: "5\n" in output(at, "work"), "the first numbers", story=at.story)
        before = at.session("work")
        assert (before["site"], before["attempt"]) == ("far", 1)
        assert before["price"] > 0

        full = at.call("move", "work", "--to", "local")
        assert (full.returncode, "cannot be moved to local" in full.stderr) == (123, True)
        at.atoll("stop", "--wait", "blocker")
        follower = at.begin("logs", "--follow", "work")
        began = time.monotonic()
        assert "is asked for a checkpoint, to go on at local" in at.call("move", "work", "--to", "local").stderr
        until(lambda: at.session("work")["attempt"] == 2, "it was moved", story=at.story)
        [done] = at.wait(["work"], ["succeeded"])
        print(f"moved and done after {time.monotonic() - began:.1f} s")

        assert (done["site"], done["attempt"], done["moves"], done["interruptions"]) == ("local", 2, 1, 0)
        assert done["on_demand_cost"] >= done["cost"] > 0
        booked = {row["site"]: row for row in json.loads(at.atoll("cost", "-o", "json"))["rows"]}
        assert booked["far"]["session_cost"] == done["cost"], "own cores cost nothing here"
        assert (booked["far"]["sessions"], booked["local"]["sessions"]) == (1, 2)
        saved = (tmp_path / "saved").read_text()
        last = int(saved) + MORE
        whole = [str(number) for number in range(1, last + 1)]
        text = [*whole, f"sum {last * (last + 1) // 2} in attempt 2"]
        assert at.atoll("logs", "work").splitlines() == text
        assert follower.communicate(timeout=60)[0].splitlines() == text
        first = at.atoll("logs", "--attempt", "1", "work").splitlines()
        assert first == whole[: len(first)]
        assert saved == first[-1]
        told = why(at, "work")
        assert "MOVED moved from far to local: asked for by" in told
        assert "instead of 0.0240 USD an hour; saves about" in told, told


def test_a_program_that_does_not_heed_the_request_runs_on(at: Installation, tmp_path: Path) -> None:
    with at:
        at.up()
        (tmp_path / "stubborn.py").write_text(STUBBORN)
        spec = {"resources": {"cpu": 0.5}, "checkpoint": {"grace": "1s"}}
        for kind in ("heedless", "deaf"):
            command = ["python3", str(tmp_path / "stubborn.py"), kind, str(tmp_path)]
            (tmp_path / f"{kind}.yaml").write_text(json.dumps({**spec, "name": kind, "command": command}))
            at.atoll("run", "--detach", "--file", str(tmp_path / f"{kind}.yaml"))
        for kind, reason in (("heedless", "did not exit within 1 s of being asked"), ("deaf", "does not handle USR1")):
            until(partial(output, at, kind), "it has begun", story=at.story)
            at.atoll("move", kind)
            until(partial(is_settled, at, kind), "the move is given up", story=at.story)
            kept = at.session(kind)
            assert (kept["state"], kept["reason"], kept["moves"]) == ("running", "NOT_MOVED", 0)
            assert reason in why(at, kind)
        (tmp_path / "enough").touch()
        for done in at.wait(["heedless", "deaf"], ["succeeded"]):
            assert done["attempt"] == 1
            count = int((tmp_path / f"{done['name']}.count").read_text())
            assert at.atoll("logs", done["name"]).splitlines() == [str(number) for number in range(count)]


def test_a_session_without_a_checkpoint_is_not_moved(running: Installation) -> None:
    running.atoll("run", "--detach", "--name", "plain", "--", "sleep", "600")
    running.wait(["plain"], ["running"])
    refused = running.call("move", "plain")
    assert (refused.returncode, "takes no checkpoints" in refused.stderr) == (123, True)
    running.atoll("stop", "--wait", "plain")
