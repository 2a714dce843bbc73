"""`atoll up` and `atoll down`: this machine's control plane and local agent, which outlive the command."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atoll.client import profile
from atoll.errors import BY_CODE, AtollError, Conflict, NotFound, Refused, Unavailable
from atoll.host.config import ServerConfig, atoll_home
from atoll.host.files import refused, write_private
from federation import pidfile
from federation.nearby import Nearby

START_S = 20.0
CONNECT_S = 15.0
STOP_S = 15.0
SITE = "local"
_started: list["subprocess.Popen[bytes]"] = []
"""Children that outlive this command, so that those that end earlier are collected."""


@dataclass(frozen=True, slots=True)
class Home:
    """The places in `ATOLL_HOME` that the two processes use."""

    path: Path

    @property
    def control_pid(self) -> Path:
        """The control plane's pid file."""
        return self.path / "run" / "control.pid"

    @property
    def agent_pid(self) -> Path:
        """The local agent's pid file."""
        return self.path / "run" / "agent.pid"

    @property
    def agent(self) -> Path:
        """The local agent's own folder."""
        return self.path / "agent"

    def log(self, name: str) -> Path:
        """Return the log file of one of the processes."""
        return self.path / "log" / f"{name}.log"

    def prepare(self) -> None:
        """Make the folders, readable by their owner only; raise `Refused` where nothing can be written."""
        try:
            for folder in (self.path, self.path / "run", self.path / "log"):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.chmod(0o700)
            probe = self.path / "run" / ".probe"
            write_private(probe, b"\0" * 65536)  # a full disk takes an empty file, so write more
            probe.unlink()
        except OSError as error:
            raise refused(self.path, error) from error


def up(args: Namespace) -> int:
    """Start what is missing of control plane and local agent, say where they are; stay until Ctrl-C or detach.

    Reads `listen config no_agent agent_slots detach` of `args`, all optional. Returns 0; raises `AtollError`.
    """
    home = Home(atoll_home())
    home.prepare()
    config = ServerConfig.load(_path(getattr(args, "config", None)))
    started = _ensure_control(home, args)
    near = Nearby(profile.load(home.path / "client.json"))
    agent = ""
    if config.agent.enabled and not getattr(args, "no_agent", False):
        agent = _ensure_agent(home, near, getattr(args, "agent_slots", "") or config.agent.slots)
    _tell(near, started=started, agent=agent)
    if getattr(args, "detach", False):
        return 0
    return _stay(home)


def down(args: Namespace) -> int:
    """Stop the local agent and the control plane. Sessions run on and are found again by the next `up`.

    With `sessions` of `args` they are ended first. Returns 0; raises `AtollError`.
    """
    home = Home(atoll_home())
    agent, control = pidfile.read(home.agent_pid), pidfile.read(home.control_pid)
    if agent is None and control is None:
        print("nothing is running here", file=sys.stderr)
        return 0
    if getattr(args, "sessions", False):
        if control is None:
            raise Unavailable("the control plane does not run, so sessions cannot be ended", hint="use `atoll up`")
        _end_sessions(Nearby(profile.load(home.path / "client.json")))
    for name, process in (("agent", agent), ("control plane", control)):
        if process is not None and not pidfile.end(process, within_s=STOP_S):
            print(f"atoll: the {name} did not end within {STOP_S:g} s and was killed", file=sys.stderr)
    _collect()
    print("stopped", file=sys.stderr)
    return 0


def _ensure_control(home: Home, args: Namespace) -> bool:
    """Start the control plane, or adopt the one that runs; say whether it was started."""
    if pidfile.read(home.control_pid) is not None:
        _wait_ready(home)
        return False
    argv = [sys.executable, "-m", "federation", "--home", str(home.path)]
    if listen := getattr(args, "listen", None):
        argv += ["--listen", listen]
    if config := _path(getattr(args, "config", None)):
        argv += ["--config", str(config.absolute())]
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb", buffering=0) as told:
        try:
            process = _start([*argv, "--ready-fd", str(writer)], home.log("control"), keep=(writer,))
        finally:
            os.close(writer)
        answer = _answer(told.fileno())
    if "url" in answer:
        return True
    if "error" in answer:
        process.wait()
        kind = BY_CODE.get(answer.get("code", ""), Refused)
        raise kind(answer["error"], hint=answer.get("hint", ""))
    process.kill()
    process.wait()
    raise Refused("the control plane did not start", hint=f"its log is {home.log('control')}")


def _answer(descriptor: int) -> dict[str, str]:
    """Return the line the child writes when it serves or fails; empty when it says nothing in time."""
    until, line = time.monotonic() + START_S, b""
    while not line.endswith(b"\n"):
        if not select.select([descriptor], [], [], max(0.0, until - time.monotonic()))[0]:
            return {}
        part = os.read(descriptor, 65536)
        if not part:
            return {}
        line += part
    answer: dict[str, str] = json.loads(line)
    return answer


def _wait_ready(home: Home) -> None:
    until = time.monotonic() + START_S
    while True:
        try:
            Nearby(profile.load(home.path / "client.json")).get("/readyz")
        except AtollError:
            if time.monotonic() > until or pidfile.read(home.control_pid) is None:
                raise
            time.sleep(0.05)
        else:
            return


def _ensure_agent(home: Home, near: Nearby, slots: str) -> str:
    """Join the local agent the first time, start it unless it runs; return its name once it is connected."""
    environment = {"ATOLL_AGENT_SLOTS": slots} if slots else {}
    if pidfile.read(home.agent_pid) is None:
        joined = home.agent / "agent.json"
        if not joined.exists():
            _join(home, near, environment)
        if pidfile.read(home.agent_pid) is None:
            argv = [sys.executable, "-m", "agent", "run", "--home", str(home.agent)]
            _start([*argv, "--pid-file", str(home.agent_pid)], home.log("agent"), environment)
    return _wait_connected(home, near)


def _join(home: Home, near: Nearby, environment: Mapping[str, str]) -> None:
    token = near.post("/v1/tokens", {"kind": "join", "site": SITE, "group": SITE, "uses": 1, "ttl_s": 600})
    url = token["command"].split()[3]
    argv = [sys.executable, "-m", "agent", "join", url, "--home", str(home.agent), "--name", SITE, "--no-start"]
    process = _start(argv, home.log("agent"), {**environment, "ATOLL_JOIN_TOKEN": token["secret"]})
    if process.wait(timeout=60) != 0:
        lines = home.log("agent").read_text(errors="replace").strip().splitlines() or ["no message"]
        raise Refused(f"the local agent could not join: {lines[-1]}", hint=f"its log is {home.log('agent')}")


def _wait_connected(home: Home, near: Nearby) -> str:
    try:
        mine = json.loads((home.agent / "agent.json").read_text()).get("agent", "")
    except (OSError, ValueError):
        mine = ""
    until = time.monotonic() + CONNECT_S
    while time.monotonic() < until:
        for agent in near.get("/v1/agents")["items"]:
            if agent["connected"] and (agent["id"] == mine or (not mine and agent["site"] == SITE)):
                return (
                    f"{agent['name']} ({agent['capacity']['cpu']:g} cpu, {agent['capacity']['memory'] / 2**30:.1f} GiB)"
                )
        time.sleep(0.03)
    raise Refused("the local agent has not connected", hint=f"its log is {home.log('agent')}")


def _tell(near: Nearby, *, started: bool, agent: str) -> None:
    link = near.post("/v1/login:link", {})["url"]
    print(f"Atoll {'is up' if started else 'was up already'} at {near.url}")
    print(f"  page   {link}")
    if agent:
        print(f"  agent  {agent}")
    print("  try    atoll run -- python3 -c 'print(\"hello\")'")
    sys.stdout.flush()


def _stay(home: Home) -> int:
    """Wait for Ctrl-C, then stop both processes; an end of the control plane by itself is an error."""
    with _interruptible(), contextlib.suppress(KeyboardInterrupt):
        print("  stop   Ctrl-C here, or `atoll down` elsewhere", flush=True)
        while pidfile.read(home.control_pid) is not None:
            _collect()
            time.sleep(0.3)
        raise Refused("the control plane has ended", hint=f"its log is {home.log('control')}")
    return down(Namespace())


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end_sessions(near: Nearby) -> None:
    live = "/v1/projects/default/sessions?live=1&limit=1000"
    until = time.monotonic() + 60.0
    while found := near.get(live)["items"]:
        for session in found:
            if session["state"] != "stopping":
                with contextlib.suppress(NotFound, Conflict):
                    near.post(f"/v1/projects/{session['project']}/sessions/{session['id']}:stop", {})
        if time.monotonic() > until:
            raise Unavailable(f"{len(found)} sessions have not ended within 60 s", hint="see `atoll ps`")
        time.sleep(0.1)


def _start(
    argv: Sequence[str], log: Path, environment: Mapping[str, str] | None = None, keep: tuple[int, ...] = ()
) -> "subprocess.Popen[bytes]":
    try:
        with log.open("ab") as output:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **(environment or {})},
                cwd="/",
                pass_fds=keep,
                start_new_session=True,
            )
    except OSError as error:
        raise refused(log, error) from error
    _collect()
    _started.append(process)
    return process


def _collect() -> None:
    _started[:] = [process for process in _started if process.poll() is None]


def _path(value: Any) -> Path | None:
    return Path(value) if value else None
