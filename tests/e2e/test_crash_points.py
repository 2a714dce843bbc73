"""SIGKILL of the control plane before and after every named step, over real SQLite and real machine processes.

Each scenario is one installation. For each point the control plane starts with `ATOLL_CRASH_AT`, is given
work that leads there, and must die there; the next life goes on from what is stored. At the end every
session has run to its end once, no machine is left, and no intent ever had two machines.
"""

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from atoll import document
from atoll.client import Client, profile
from atoll.client.views import SessionView
from atoll.errors import AtollError
from atoll.group import Provider
from atoll.host.system import SystemClock
from providers.port import Intent
from providers.prices.book import Book
from providers.registry import DriverContext, make
from providers.sim.files import set_faults
from tests.e2e.installation import ENDED, ROOT, Installation
from tests.e2e.processes import arguments, of_home
from tests.e2e.waiting import until
from tests.fakes.launch import Launcher

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
SETTINGS: dict[str, object] = {
    "boot_s": 0.1,
    "shapes": [{"name": "tiny", "cpu": 1, "memory": "1GiB", "price": 0.02}],
}
LAUNCH = [
    ["control.start", "session.submit", "plan.adopt", "launch.token", "launch.create"],
    ["launch.confirm", "join.consume", "agent.register", "session.place", "session.report"],
    ["agent.acknowledge", "end.call", "end.observe", "observe.list", "sweep.list"],
]


class Crashing:
    """A control plane that is started to die at a point, and the work that it is given."""

    def __init__(self, folder: Path, *, cold: int = 0, times: Mapping[str, float] = TIMES) -> None:
        self.marks = folder / "marks"
        self.marks.mkdir()
        env = {f"ATOLL_TIMES__{key}": str(value) for key, value in times.items()}
        self.at = Installation(folder, env=env)
        self._folder = folder
        self.ends = {"succeeded"}
        self.launcher = Launcher()
        self.terms: dict[str, object] = {"boot": 8}
        self.kills = 0
        self._cold = cold
        self._number = 0
        self.specs: dict[str, dict[str, Any]] = {}
        self.rows: list[SessionView] = []

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
            self.set_up(self.client())
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)

    def set_up(self, client: Client) -> None:
        """Make the provider and its group."""
        client.apply(document.provider({"name": "sim", "type": "sim", "settings": SETTINGS}))
        self.group(client, "sim")

    def group(self, client: Client, provider: str) -> None:
        """Make the group, or give it other terms."""
        group = {
            "name": "burst",
            "site": "far",
            "kind": "group",
            "provider": provider,
            "size": {"max": 2},
            "pools": {"cold": {"count": self._cold}},
            "scale_down": {"idle": 0.3, "cooldown": 0.1},
            **self.terms,
        }
        client.apply(document.group(group))

    def fault(self, **faults: Mapping[str, object]) -> None:
        """Give the cloud these faults and no others."""
        set_faults(self.at.home / "providers" / "sim", faults)

    def submit(self, process: "subprocess.Popen[bytes]", seconds: float = 0.2, **more: Any) -> str:
        """Queue one session; the same key is used again in the next life when no answer came."""
        self._number += 1
        key = f"work-{self._number}"
        self.specs[key] = {
            "name": key,
            "command": ["sh", "-c", f'echo "$ATOLL_ATTEMPT" >> {self.marks / key}; sleep {seconds}'],
            "resources": {"cpu": 1, "memory": "64MiB"},
            "retry": {"max": 20},
            **more,
        }
        self._post(key, process)
        return key

    def _post(self, key: str, process: "subprocess.Popen[bytes]") -> None:
        self.ask(lambda c: c.submit(self.specs[key], key=key), process)

    def running(self, process: "subprocess.Popen[bytes]", key: str) -> SessionView | None:
        """Wait until a session runs; None when the control plane died before."""
        deadline = time.monotonic() + 60.0
        while process.poll() is None and time.monotonic() < deadline:
            found: SessionView | None = self.ask(lambda c: c.session(key), process)
            if found and found.state == "running":
                return found
            time.sleep(0.1)
        return None

    def crash(self, point: str, work: "Work | None" = None) -> None:
        """One life: start, work, die at `point`."""
        process = self.start(point)
        try:
            for key in self.specs:
                self._post(key, process)
            (work or Crashing.submit)(self, process)
            process.wait(90)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{point} was never reached\n{self.tail()}") from None
        finally:
            if process.returncode is None:
                process.kill()
                process.wait()
        assert process.returncode == -signal.SIGKILL, f"{point}: {process.returncode}\n{self.tail()}"
        self.kills += 1

    def finish(self, first: "Work | None" = None) -> None:
        """The last life: `first` is done, then everything comes to its end and nothing is left."""
        process = self.start()
        try:
            self.ask(lambda c: c.status(), process)
            if first:
                first(self, process)
            for key in self.specs:
                self._post(key, process)

            def all_done() -> bool:
                rows = self.client().sessions()
                return len(rows) == len(self.specs) and all(row.state in ENDED for row in rows)

            until(all_done, "all sessions ended", within=90, story=self.tail)
            rows = self.client().sessions()
            self.rows = rows
            ends = [(row.name, row.state, row.message) for row in rows if row.state not in self.ends]
            assert not ends, f"{ends}\n{self.tail()}"
            until(lambda: len(self.live()) <= self._cold, "machines gone", within=60, story=self.tail)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
            self.launcher.close()
        for mark in self.marks.iterdir():
            attempts = mark.read_text().split()
            assert len(attempts) == len(set(attempts)), f"{mark.name} ran twice in one attempt: {attempts}"
        intents = [machine["intent"] for machine in self.inventory()["machines"].values()]
        assert len(intents) == len(set(intents)), "an intent had two machines"

    def context(self) -> DriverContext:
        """Return what the control plane's drivers stand on, for acting beside it."""
        return DriverContext(directory=self.at.home / "providers", launch=self.launcher, clock=SystemClock())

    def agents(self) -> list[int]:
        """Return the pids of the agents on pretend machines."""
        return [p for p in of_home(self.at.home) if b"agent\0run" in arguments(p)]

    def inventory(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.at.home / "providers" / "sim" / "inventory.json").read_text())
        return found

    def live(self) -> list[str]:
        return [key for key, m in self.inventory()["machines"].items() if m["state"] != "ended"]

    def tail(self) -> str:
        lines = (self._folder / "control.log").read_text(errors="replace").splitlines()[-40:]
        return "\n".join([f"live: {self.live()}", *lines])


Work = Callable[[Crashing, "subprocess.Popen[bytes]"], Any]


def sweep(
    folder: Path,
    steps: Sequence[str],
    *,
    cold: int = 0,
    faults: Mapping[str, Mapping[str, object]] | None = None,
    work: Work | None = None,
    ends: Sequence[str] = (),
    first: Work | None = None,
    crashing: Crashing | None = None,
) -> None:
    """Crash before and after each of `steps`, reached through `work`, then see that all is well after `first`."""
    crashing = crashing or Crashing(folder, cold=cold)
    crashing.ends.update(ends)
    with crashing.at:
        crashing.prepare()
        for number, point in enumerate(f"{when}:{step}" for step in steps for when in ("before", "after")):
            if faults:
                named = {kind: {**rule, "id": f"{kind}-{number}"} for kind, rule in faults.items()}
                crashing.fault(**named)
            crashing.crash(point, work)
        crashing.fault()
        crashing.finish(first)


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


def test_a_create_that_is_never_answered(tmp_path: Path) -> None:
    lost = {"lost_reply": {"after_effect": False, "times": 200}}
    sweep(tmp_path, ["end.list"], faults=lost)


def orphan(at: Crashing, process: "subprocess.Popen[bytes]") -> None:
    """Have a machine of this installation that it never asked for."""
    status = at.ask(lambda c: c.status(), process)
    if status is None:
        return
    sim = make(Provider(name="sim", kind="sim", settings=SETTINGS), at.context())
    [shape] = asyncio.run(sim.shapes(Book()))
    intent = Intent(id=f"i-orphan-{time.monotonic_ns()}", owner=status.installation, shape=shape, user_data="sleep 99")
    asyncio.run(sim.create(intent))


def orphans(policy: str) -> Work:
    """Return work that says what becomes of orphans."""
    row = document.provider({"name": "sim", "type": "sim", "settings": SETTINGS, "orphans": policy})
    return lambda at, process: at.ask(lambda c: c.apply(row), process)


def test_an_orphan(tmp_path: Path) -> None:
    sweep(tmp_path, ["sweep.terminate", "sweep.record"], work=orphan)


def test_an_orphan_in_quarantine(tmp_path: Path) -> None:
    def work(at: Crashing, process: "subprocess.Popen[bytes]") -> None:
        orphans("quarantine")(at, process)
        orphan(at, process)

    sweep(tmp_path, ["sweep.stop"], work=work, first=orphans("terminate"))


def test_a_group_that_is_closed_at_once(tmp_path: Path) -> None:
    def reopen(at: Crashing, process: "subprocess.Popen[bytes]") -> None:
        at.ask(lambda c: c.resize("burst", most=2), process)

    def work(at: Crashing, process: "subprocess.Popen[bytes]") -> None:
        reopen(at, process)
        if at.running(process, at.submit(process, 4)):
            at.ask(lambda c: c.terminate("burst", now=True), process)

    sweep(tmp_path, ["group.terminate", "group.resize"], work=work, first=reopen)


def test_sessions_that_are_stopped_or_expire(tmp_path: Path) -> None:
    def stop(at: Crashing, process: "subprocess.Popen[bytes]") -> None:
        key = at.submit(process, 60)
        if at.running(process, key):
            at.ask(lambda c: c.stop(key), process)

    def stop_all(at: Crashing, process: "subprocess.Popen[bytes]") -> None:
        at.ask(lambda c: [c.stop(key) for key in at.specs], process)

    def expire(at: Crashing, process: "subprocess.Popen[bytes]") -> None:
        at.submit(process, 60, lifetime={"max": 0.5})

    (tmp_path / "stop").mkdir()
    (tmp_path / "expire").mkdir()
    sweep(tmp_path / "stop", ["session.stop"], work=stop, ends=["cancelled"], first=stop_all)
    sweep(tmp_path / "expire", ["session.expire"], work=expire, ends=["expired"])


SAVER = "trap 'exit 85' USR1; echo $ATOLL_ATTEMPT >> {mark}; for i in $(seq {steps}); do sleep 0.1 & wait; done"


def test_a_session_that_is_moved(tmp_path: Path) -> None:
    """Killed around each commit of a move: it resumes once, elsewhere or where it was, or it stays and runs on."""

    def move(at: Crashing, process: "subprocess.Popen[bytes]", steps: int = 50, grace: float = 5.0) -> None:
        mark = at.marks / f"work-{len(at.specs) + 1}"
        saver = SAVER if grace > 1 else SAVER.replace("exit 85", "true")
        command = ["sh", "-c", saver.format(mark=mark, steps=steps)]
        key = at.submit(process, command=command, checkpoint={"grace": grace})
        if at.running(process, key):
            while process.poll() is None and not mark.exists():  # it has set its handler then
                time.sleep(0.05)
            at.ask(lambda c: c.move(key), process)

    def stay(at: Crashing, process: "subprocess.Popen[bytes]") -> None:
        move(at, process, grace=0.5)

    def wait_and_move(at: Crashing, process: "subprocess.Popen[bytes]") -> None:
        move(at, process, steps=80)

    crashing = Crashing(tmp_path)
    with crashing.at:
        crashing.prepare()
        for point in ("before:session.move", "after:session.move"):
            crashing.crash(point, wait_and_move)
        for point in ("before:session.stay", "after:session.stay"):
            crashing.crash(point, stay)
        crashing.finish(move)
        rows = {row.name: row for row in crashing.rows}
    assert rows["work-5"].moves == 1
    assert all(row.interruptions == 0 for row in rows.values())


def test_an_agent_that_falls_silent(tmp_path: Path) -> None:
    frozen: list[int] = []

    def freeze(at: Crashing, process: "subprocess.Popen[bytes]") -> None:
        key = at.submit(process, 3, retry={"max": 20, "lost": True, "lease": 4})
        if at.running(process, key):
            frozen.extend(at.agents())
            for pid in frozen:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)

    def thaw() -> None:
        while frozen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(frozen.pop(), signal.SIGCONT)

    crashing = Crashing(tmp_path)
    with crashing.at:
        crashing.prepare()
        for point in ("before:session.lose", "after:session.lose", "before:session.lease", "after:session.lease"):
            crashing.crash(point, freeze)
            thaw()
        crashing.finish()


def test_a_cordon(tmp_path: Path) -> None:
    def work(at: Crashing, process: "subprocess.Popen[bytes]") -> None:
        row = at.running(process, at.submit(process, 4))
        if row:
            at.ask(lambda c: c.cordon(row.members[0].agent), process)
            at.ask(lambda c: c.uncordon(row.members[0].agent), process)

    sweep(tmp_path, ["agent.cordon", "agent.uncordon"], work=work)


def test_an_agent_that_is_revoked(tmp_path: Path) -> None:
    """Its machine is ended and its session runs again elsewhere, in whichever life that is decided."""

    def work(at: Crashing, process: "subprocess.Popen[bytes]") -> None:
        row = at.running(process, at.submit(process, 5))
        if row:
            at.ask(lambda c: c.revoke_agent(row.members[0].agent), process)

    sweep(tmp_path, ["agent.revoke"], work=work)


Look = Callable[[Client], Any]
STRICT = document.policy({"name": "strict", "deny": [{"when": "session.cpu > 9", "reason": "too large"}]})
LEADS = document.policy({"approve": [{"when": "session.priority > 5", "role": "lead"}]})
MONTH = document.budget({"name": "month", "amount": 100, "project": "default"})


def policies(c: Client) -> list[str]:
    return sorted(row.name for row in c.policies())


def shadows(c: Client) -> list[str]:
    return [row.name for row in c.policies() if row.shadow]


def budgets(c: Client) -> list[str]:
    return [row.name for row in c.budgets()]


def owners(c: Client) -> list[str]:
    return sorted(row.owner for row in c.tokens() if row.owner == "bo")


def relays(c: Client) -> list[str]:
    return [row.name for row in c.relays()]


def approver(c: Client) -> str:
    return c.session("asks").approved_by


ADMINISTERED: list[tuple[str, Look, Look | None]] = [
    ("policy.apply", lambda c: c.apply_policy(STRICT), policies),
    ("policy.shadow", lambda c: c.shadow("strict"), shadows),
    ("policy.shadow", lambda c: c.shadow(), shadows),
    ("policy.delete", lambda c: c.delete("policies", "strict"), policies),
    ("budget.apply", lambda c: c.apply_budget(MONTH), budgets),
    ("budget.look", budgets, None),
    ("budget.stage", budgets, None),
    ("budget.delete", lambda c: c.delete("budgets", "month"), budgets),
    ("token.create", lambda c: c.create_api_token("bo"), owners),
    ("token.delete", lambda c: c.delete_token(next(t.id for t in c.tokens() if t.owner == "bo")), owners),
    ("session.approve", lambda c: c.approve("asks"), approver),
    ("relay.create", lambda c: c.create_relay("east", "https://east.example"), relays),
    ("relay.remove", lambda c: c.delete("relays", "east"), relays),
]
"""What an administrator does: the step, the request that leads there, and where its effect is seen (None: it has none).
"""


class Administered(Crashing):
    """An installation with a session that waits for an approval, and no cloud."""

    def set_up(self, client: Client) -> None:
        client.apply_policy(LEADS)
        client.submit({"name": "asks", "command": ["true"], "priority": 9})


def test_what_an_administrator_does_is_done_or_not_done_never_half(tmp_path: Path) -> None:
    crashing = Administered(tmp_path)
    seen: dict[tuple[int, str], Any] = {}
    checks: list[tuple[int, str, Look]] = []

    def life(number: int, when: str) -> Work:
        """Look at what the last life left, and do the next step."""
        _, act, look = ADMINISTERED[number]

        def work(at: Crashing, process: "subprocess.Popen[bytes]") -> None:
            for last, then, what in checks:
                seen[last, then] = at.ask(what, process)
            checks.clear()
            if look and when == "before":
                seen[number, "first"] = at.ask(look, process)
            at.ask(act, process)
            checks.extend([(number, when, look)] if look else [])

        return work

    with crashing.at:
        crashing.prepare()
        for number, (step, *_) in enumerate(ADMINISTERED):
            for when in ("before", "after"):
                crashing.crash(f"{when}:{step}", life(number, when))
        process = crashing.start()
        [(last, then, what)] = checks
        seen[last, then] = crashing.ask(what, process)
        process.kill()
        process.wait(60)
    for number, (step, _, look) in enumerate(ADMINISTERED):
        if look:
            assert seen[number, "before"] == seen[number, "first"], f"half of {step}"
            assert seen[number, "after"] != seen[number, "first"], f"{step} is lost"


def test_every_step_is_swept() -> None:
    """A step that is added to control is swept here or, where no cloud and no session hangs on it, in one process."""
    source = "\n".join(path.read_text() for path in (ROOT / "federation" / "control").glob("*.py"))
    named = set(re.findall(r'(?:commit|steps\.run)\(\s*"([a-z]+\.[a-z]+)"', source))
    inside = ROOT / "tests" / "federation" / "control" / "test_crash_points.py"
    sweeps = Path(__file__).read_text() + inside.read_text()
    swept = set(re.findall(r'"(?:before:|after:|\{when\}:)?([a-z]+\.[a-z]+)"', sweeps))
    assert len(named) > 50
    assert named - swept == set()
