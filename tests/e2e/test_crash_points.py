"""SIGKILL of the control plane before and after every named step, over real SQLite and real machine processes.

Each scenario is one installation. For each point the control plane starts with `ATOLL_CRASH_AT`, is given
work that leads there, and must die there; the next life goes on from what is stored. At the end every
session has run to its end once, no machine is left, and no intent ever had two machines.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from atoll import document
from atoll.client import Client, profile
from atoll.errors import AtollError
from providers.sim.files import set_faults
from tests.e2e.installation import ENDED, Installation
from tests.e2e.waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

TIMES = {
    "SCHEDULE_S": 0.2,
    "LAUNCH_S": 0.2,
    "OBSERVE_S": 0.3,
    "SWEEP_S": 1.0,
    "LOST_AFTER_S": 2.0,
    "SETTLE_S": 1.0,
    "BACKOFF_S": 0.5,
    "BACKOFF_MAX_S": 1.0,
}
LAUNCH = [
    ["control.start", "session.submit", "plan.adopt", "launch.token", "launch.create"],
    ["launch.confirm", "join.consume", "agent.register", "session.place", "session.report"],
    ["agent.acknowledge", "end.call", "end.observe", "observe.list", "sweep.list"],
]


class Crashing:
    """A control plane that is started to die at a point, and the work that it is given."""

    def __init__(self, folder: Path, *, cold: int = 0) -> None:
        self.marks = folder / "marks"
        self.marks.mkdir()
        env = {f"ATOLL_TIMES__{key}": str(value) for key, value in TIMES.items()}
        self.at = Installation(folder, env=env)
        self._folder = folder
        self._cold = cold
        self._number = 0
        self.keys: list[str] = []

    def start(self, point: str = "") -> "subprocess.Popen[bytes]":
        """Start the control plane process itself, so that its death is seen at once."""
        self.at.home.mkdir(exist_ok=True)
        with (self._folder / "control.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "federation", "--home", str(self.at.home)],
                env={**self.at.environment, "ATOLL_CRASH_AT": point},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def client(self) -> Client:
        known = profile.load(self.at.home / "client.json")
        return Client(known.url, known.token, patience=0.0)

    def ask(self, what: Callable[[Client], Any], process: "subprocess.Popen[bytes]") -> Any:
        """Repeat a request until it is answered or the control plane is dead."""
        deadline = time.monotonic() + 20.0
        while process.poll() is None and time.monotonic() < deadline:
            try:
                return what(self.client())
            except (AtollError, OSError):
                time.sleep(0.05)
        return None

    def prepare(self) -> None:
        """Make provider and group in a quiet life."""
        process = self.start()
        try:
            self.ask(lambda c: c.status(), process)
            settings = {"boot_s": 0.1, "shapes": [{"name": "tiny", "cpu": 1, "memory": "1GiB", "price": 0.02}]}
            client = self.client()
            client.apply(document.provider({"name": "sim", "type": "sim", "settings": settings}))
            group = {
                "name": "burst",
                "site": "far",
                "kind": "group",
                "provider": "sim",
                "size": {"max": 2},
                "pools": {"cold": {"count": self._cold}},
                "scale_down": {"idle": 0.3, "cooldown": 0.1},
                "boot": 8,
            }
            client.apply(document.group(group))
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)

    def submit(self, process: "subprocess.Popen[bytes]") -> None:
        """Queue one session; the same key is used again in the next life when no answer came."""
        self._number += 1
        key = f"work-{self._number}"
        self.keys.append(key)
        self._post(key, process)

    def _post(self, key: str, process: "subprocess.Popen[bytes]") -> None:
        spec = {
            "name": key,
            "command": ["sh", "-c", f'echo "$ATOLL_ATTEMPT" >> {self.marks / key}; sleep 0.2'],
            "resources": {"cpu": 1, "memory": "64MiB"},
            "retry": {"max": 20},
        }
        self.ask(lambda c: c.submit(spec, key=key), process)

    def crash(self, point: str) -> None:
        """One life: start, work, die at `point`."""
        process = self.start(point)
        try:
            for key in self.keys:
                self._post(key, process)
            self.submit(process)
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError(f"{point} was never reached\n{self.tail()}") from None
        assert process.returncode == -signal.SIGKILL, f"{point}: {process.returncode}\n{self.tail()}"

    def finish(self) -> None:
        """The last life: everything comes to its end and nothing is left."""
        process = self.start()
        try:
            for key in self.keys:
                self._post(key, process)

            def all_done() -> bool:
                rows = self.client().sessions()
                return len(rows) == len(self.keys) and all(row.state in ENDED for row in rows)

            until(all_done, "all sessions ended", within=90, story=self.tail)
            rows = self.client().sessions()
            assert {row.state for row in rows} == {"succeeded"}, [(r.name, r.state, r.message) for r in rows]
            until(lambda: len(self.live()) <= self._cold, "machines gone", within=60, story=self.tail)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
        for row in rows:
            attempts = (self.marks / row.name).read_text().split()
            assert len(attempts) == len(set(attempts)), f"{row.name} ran twice in one attempt: {attempts}"
        intents = [machine["intent"] for machine in self.inventory()["machines"].values()]
        assert len(intents) == len(set(intents)), "an intent had two machines"

    def inventory(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.at.home / "providers" / "sim" / "inventory.json").read_text())
        return found

    def live(self) -> list[str]:
        return [key for key, m in self.inventory()["machines"].items() if m["state"] != "ended"]

    def tail(self) -> str:
        lines = (self._folder / "control.log").read_text(errors="replace").splitlines()[-40:]
        return "\n".join([f"live: {self.live()}", *lines])


def sweep(folder: Path, steps: Sequence[str], *, cold: int = 0, faults: dict[str, object] | None = None) -> None:
    """Crash before and after each of `steps`, then see that all is well."""
    crashing = Crashing(folder, cold=cold)
    with crashing.at:
        crashing.prepare()
        for number, point in enumerate(f"{when}:{step}" for step in steps for when in ("before", "after")):
            if faults:
                named = {kind: {**rule, "id": f"{kind}-{number}"} for kind, rule in faults.items()}  # type: ignore[dict-item]
                set_faults(crashing.at.home / "providers" / "sim", named)
            crashing.crash(point)
        set_faults(crashing.at.home / "providers" / "sim", {})
        crashing.finish()


@pytest.mark.parametrize("steps", LAUNCH, ids=["launch", "join", "end"])
def test_the_life_of_a_launch(steps: list[str], tmp_path: Path) -> None:
    sweep(tmp_path, steps)


def test_a_refused_launch(tmp_path: Path) -> None:
    sweep(tmp_path, ["launch.refuse"], faults={"no_capacity": {"times": 1}})


def test_a_lost_reply(tmp_path: Path) -> None:
    sweep(tmp_path, ["launch.create", "launch.confirm"], faults={"lost_reply": {"times": 1}})


def test_a_boot_that_never_joins(tmp_path: Path) -> None:
    sweep(tmp_path, ["launch.console", "end.mark"], faults={"never_joins": {"times": 1}})


def test_a_cold_pool(tmp_path: Path) -> None:
    sweep(tmp_path, ["cold.stop", "cold.observe", "cold.start"], cold=1)
