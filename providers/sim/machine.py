"""A pretend machine: `python -m providers.sim.machine FOLDER` boots, runs its user data, and takes orders.

It is the ancestor of everything that was ever started on it (a subreaper), so that its end is theirs.
It knows nothing of agents: what the boot script starts is the script's affair.
"""

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from atoll.clock import Clock
from atoll.host.system import SystemClock
from providers.sim import folder
from providers.sim.processes import descendants, end_all, identity

GRACE_S = 1.0
"""Between TERM and KILL of all that runs on a machine that ends."""

_SIGNALS = (signal.SIGCHLD, signal.SIGHUP, signal.SIGTERM, signal.SIGINT)
_PR_SET_CHILD_SUBREAPER = 36
_LOOK_S = 1.0


class PretendMachine:
    """One boot of one machine, from switching on to its end. All waiting is for signals, with a time limit."""

    def __init__(self, base: Path, clock: Clock) -> None:
        self._base = base
        self._clock = clock
        self._settings = folder.read(base / folder.BOOT)
        self._script: subprocess.Popen[bytes] | None = None
        self._on_at = clock.monotonic()
        self._reclaim: tuple[float, float] | None = None  # when to give notice, when to end

    def run(self) -> None:
        """Live the machine's whole life; its last status says how it ended."""
        self._say("pending", "booting")
        self._print(f"booting {self._base.name}")
        booted_at = self._on_at + float(self._settings["boot_s"])
        state, message = self._wait(booted_at) or self._live()
        self._say("stopping" if state == "stopped" else "ending", message)
        self._end_tree()
        self._print(message)
        self._say(state, message)

    def _live(self) -> tuple[str, str]:
        after = self._settings["reclaim_after_s"]
        if after is not None:
            ends = self._clock.monotonic() + float(after)
            self._reclaim = max(ends - float(self._settings["notice_s"]), 0.0), ends
        if self._settings["joins"]:
            self._start_script()
        else:
            self._print("boot hangs: the boot script is not run")
        self._say("running", "")
        return self._wait(float("inf")) or ("ended", "switched off")

    def _start_script(self) -> None:
        home, here = self._base / folder.HOME, os.environ
        environment = {
            "PATH": here.get("PATH", "/usr/bin:/bin"),
            "LANG": here.get("LANG", "C.UTF-8"),
            "HOME": str(home),
            "TMPDIR": str(self._base / folder.TMP),
            "ATOLL_HOME": str(home / ".atoll"),
            "ATOLL_AGENT_SLOTS": str(self._settings["slots"]),
            "ATOLL_INSTANCE_NOTICE": str(self._base / folder.NOTICE),
            "ATOLL_INSTANCE_POWEROFF": str(self._base / folder.POWEROFF),
        }
        with (self._base / folder.CONSOLE).open("ab") as console:
            self._script = subprocess.Popen(
                ["/bin/sh", str(self._base / folder.USER_DATA)],
                cwd=home,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_unblock,
            )

    def _wait(self, until: float) -> tuple[str, str] | None:
        """Wait until a time on the clock, or until the machine is to end: then its last state and why."""
        while (now := self._clock.monotonic()) < until:
            if outcome := self._order() or self._due(now) or self._emptied():
                return outcome
            pause = min(until - now, _LOOK_S, *(at - now for at in self._deadlines() if at > now))
            received = signal.sigtimedwait(_SIGNALS, max(pause, 0.001))
            if received and received.si_signo in (signal.SIGTERM, signal.SIGINT):
                return "ended", "powered off from inside"
        return None

    def _deadlines(self) -> tuple[float, ...]:
        return (*(self._reclaim or ()), self._on_at + float(self._settings["max_life_s"]))

    def _order(self) -> tuple[str, str] | None:
        path = self._base / folder.ORDER
        order = folder.read(path)
        if not order:
            return None
        path.unlink()
        if order["do"] == "reclaim":
            now = self._clock.monotonic()
            self._reclaim = now, now + float(order["notice_s"])
            return None
        return ("stopped", "stopped") if order["do"] == "stop" else ("ended", "terminated")

    def _due(self, now: float) -> tuple[str, str] | None:
        cap = float(self._settings["max_life_s"])
        if cap and now >= self._on_at + cap:
            return "ended", "reached its longest life"
        if self._reclaim is None:
            return None
        notice_at, end_at = self._reclaim
        if now >= end_at:
            return "ended", "reclaimed by the cloud"
        notice = self._base / folder.NOTICE
        if now >= notice_at and not notice.exists():
            self._print("spot notice")
            folder.write(
                notice, {"in_s": round(end_at - now, 3), "message": "the pretend cloud takes this machine back"}
            )
        return None

    def _emptied(self) -> tuple[str, str] | None:
        """Notice that nothing runs any more, which is how a machine is powered off without saying so."""
        _reap(self._script)
        if self._script is None or self._script.returncode is None or descendants(os.getpid()):
            return None
        return "ended", f"powered off: its boot script ended with {self._script.returncode}"

    def _end_tree(self) -> None:
        """TERM, a short grace, then KILL until none is left: also what made a session of its own."""
        give_up = self._clock.monotonic() + GRACE_S
        for pid in descendants(os.getpid()):
            _send(pid, signal.SIGTERM)
        while descendants(os.getpid()) and self._clock.monotonic() < give_up:
            _reap(self._script)
            signal.sigtimedwait((signal.SIGCHLD,), 0.02)
        while left := descendants(os.getpid()):
            end_all(left)
            _reap(self._script)
            signal.sigtimedwait((signal.SIGCHLD,), 0.01)
        _reap(self._script)

    def _say(self, state: str, message: str) -> None:
        document: dict[str, Any] = {"state": state, "message": message, "at": self._clock.now()}
        folder.write(self._base / folder.STATUS, document)

    def _print(self, line: str) -> None:
        with (self._base / folder.CONSOLE).open("a") as console:
            console.write(f"[machine] {line}\n")


def main(argv: list[str]) -> int:
    """Be the machine of a folder; end at once when another process is it already."""
    base = Path(argv[0])
    lock = os.open(base / folder.LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 0
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    fresh = base / f".{folder.PID}.new"
    fresh.write_text(identity(os.getpid()))
    fresh.replace(base / folder.PID)
    PretendMachine(base, SystemClock()).run()
    return 0


def _unblock() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _reap(script: subprocess.Popen[bytes] | None) -> None:
    """Collect every child that ended, the adopted ones included; the boot script's code is kept."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if script is not None and pid == script.pid:
            script.returncode = os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
