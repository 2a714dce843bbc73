"""One real installation in a temporary home on loopback, driven through the command line as a person would."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.e2e.processes import end_all, of_home
from tests.e2e.waiting import until
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
ENDED = frozenset({"succeeded", "failed", "cancelled", "expired"})


class Installation:
    """A control plane and its local agent, in `folder/home`.

    `slots` is what the local agent pretends to have. `prefix` stands before every command (`nsenter …`).
    Use it as a context: leaving it ends every process of its home, by id.
    """

    def __init__(
        self,
        folder: Path,
        *,
        slots: str = "cpu=40,memory=40GiB",
        prefix: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        port: int = 0,
    ) -> None:
        self.home = folder / "home"
        self.port = port or free_port()
        self._prefix = list(prefix)
        self._env = dict(env or {})
        self._slots = slots

    @property
    def url(self) -> str:
        """Where browsers and the command line on this machine reach it."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of its commands: this one's without settings of another Atoll."""
        plain = {key: value for key, value in os.environ.items() if not key.startswith("ATOLL_")}
        plain["PATH"] = f"{BIN}{os.pathsep}{plain.get('PATH', os.defpath)}"
        own = {
            "ATOLL_HOME": str(self.home),
            "ATOLL_SERVER__LISTEN": f"127.0.0.1:{self.port}",
            "ATOLL_AGENT__SLOTS": self._slots,
            "NO_COLOR": "1",
        }
        return {**plain, **own, **self._env}

    def __enter__(self) -> "Installation":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End everything that was started here."""
        if of_home(self.home):
            self.call("down", timeout=60)
        end_all(self.home)

    def call(
        self, *args: str, timeout: float = 60.0, stdin: str = "", env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run `atoll ARGS` to its end and return what it printed, whatever its exit code."""
        return subprocess.run(
            [*self._prefix, str(BIN / "atoll"), *args],
            capture_output=True,
            text=True,
            input=stdin,
            timeout=timeout,
            env={**self.environment, **(env or {})},
            check=False,
        )

    def atoll(self, *args: str, timeout: float = 60.0, stdin: str = "", code: int = 0) -> str:
        """Run `atoll ARGS`, which must exit with `code`; return its standard output."""
        done = self.call(*args, timeout=timeout, stdin=stdin)
        assert done.returncode == code, f"atoll {' '.join(args)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def begin(self, *args: str) -> "subprocess.Popen[str]":
        """Start `atoll ARGS` and return the running process; the caller ends it."""
        return subprocess.Popen(
            [*self._prefix, str(BIN / "atoll"), *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment,
        )

    def up(self, *flags: str) -> str:
        """Run `atoll up --detach`; return what it said."""
        return self.atoll("up", "--detach", *flags, timeout=90)

    def pid(self, name: str) -> int:
        """Return the process id in the pid file of `control` or `agent`."""
        return int((self.home / "run" / f"{name}.pid").read_text().split()[0])

    def kill(self, *names: str) -> None:
        """Send SIGKILL to `control`, `agent` or both, at once."""
        for pid in [self.pid(name) for name in names]:
            os.kill(pid, signal.SIGKILL)

    def sessions(self) -> list[dict[str, Any]]:
        """Return every session, ended ones too, as the command line's JSON holds them."""
        listed: list[dict[str, Any]] = json.loads(self.atoll("ps", "--all", "-o", "json"))
        return listed

    def agents(self) -> list[dict[str, Any]]:
        """Return the agents that have not left."""
        listed: list[dict[str, Any]] = json.loads(self.atoll("agent", "list", "-o", "json"))
        return listed

    def session(self, name: str) -> dict[str, Any]:
        """Return one session by name."""
        return next(view for view in self.sessions() if view["name"] == name)

    def wait(self, names: Iterable[str], states: Iterable[str], *, within: float = 60.0) -> list[dict[str, Any]]:
        """Wait until every named session is in one of `states`; return them in the order of `names`."""
        wanted, good = list(names), frozenset(states)

        def there() -> list[dict[str, Any]]:
            by_name = {view["name"]: view for view in self.sessions()}
            found = [by_name[name] for name in wanted if by_name.get(name, {}).get("state") in good]
            return found if len(found) == len(wanted) else []

        return until(there, f"{wanted} in {sorted(good)}", within=within, story=self.story)

    def story(self) -> str:
        """Return what helps to understand a failure: sessions, and the ends of both logs."""
        parts = [self.call("ps", "--all").stdout, self.call("agent", "list").stdout]
        for log in sorted((self.home / "log").glob("*.log")):
            parts.append(f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-30:]))
        return "\n".join(parts)
