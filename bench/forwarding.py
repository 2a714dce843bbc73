"""`atoll forward` in a whole installation, as users run it: by a relay's process, blind, and directly.

Control plane, agents, relays and the command are processes of their own, started by `atoll`'s own commands. The server
runs in a session of each of two agents: one is linked with both relays, the other's owner has opened its machine.
"""

import json
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.outage import SETTLE_S, echoing, kill_rows
from bench.peers.tunnels import Way
from bench.processes import LOOPBACK, ROOT, Process
from bench.rows import Row
from tests.e2e.installation import Installation
from tests.e2e.processes import end_all
from tests.e2e.relays import Forward, RelayProcess
from tests.e2e.waiting import until
from tests.ports import free_port
from tunnel.jointoken import JoinToken

BEHIND, OPEN = "behind", "open"
"""The sessions: of the agent that is reached by relays, and of the one that is reached directly."""


class Forwarding:
    """The installation, until `stack` is left."""

    def __init__(self, stack: ExitStack, folder: Path, relays: Sequence[str] = ("east", "west")) -> None:
        folder.mkdir()
        self._stack = stack
        stack.callback(end_all, folder)
        self._installation = stack.enter_context(Installation(folder))
        self._installation.up()
        self._relays = [RelayProcess(self._installation, folder, name) for name in relays]
        for relay in self._relays:
            stack.callback(relay.close)
            relay.start()
        self._join(folder / OPEN)
        self._sessions = self._serve({BEHIND: "local", OPEN: OPEN})
        for relay in self._relays:
            until(relay.serves, f"relay {relay.name}")

    def ways(self) -> list[Way]:
        """Start a command for each lane; return the ways."""
        relays = tuple(relay.process.pid for relay in self._relays if relay.process is not None)
        return [
            Way("relay", LOOPBACK.host, self._forward(BEHIND), relays),
            Way("blind", LOOPBACK.host, self._forward(BEHIND, "--blind"), relays),
            Way("direct", LOOPBACK.host, self._forward(OPEN)),
        ]

    def kill_rows(self, load: Process, kills: int) -> tuple[list[Row], str]:
        """Kill the relay in use under a resumable echo, so many times; it is started again for the next."""
        forward = Forward(self._installation, BEHIND, self._sessions[BEHIND], {})
        self._stack.callback(forward.close)
        killed: list[float] = []
        answer: dict[str, Any] = {}
        with echoing(load, forward.port, answer):
            for number in range(kills):
                self._entered(forward, number + 1)
                for relay in self._relays:
                    until(relay.serves, f"relay {relay.name}")
                time.sleep(SETTLE_S)
                used = next((relay for relay in self._relays if relay.port == forward.ways[-1]), None)
                if used is None:
                    break  # the stream took the control plane's own door, and stays there
                killed.append(time.monotonic())
                used.send(signal.SIGKILL)
                used.wait()
                used.start()
        return kill_rows("relay kill -9, another stands by", killed, answer, 0.5)

    def restart_rows(self, load: Process, kills: int) -> tuple[list[Row], str]:
        """The same where there is no other relay and, from the first kill on, no control plane either."""
        (relay,) = self._relays
        forward = Forward(self._installation, BEHIND, self._sessions[BEHIND], {})
        self._stack.callback(forward.close)
        killed: list[float] = []
        answer: dict[str, Any] = {}
        with echoing(load, forward.port, answer):
            self._entered(forward, 1)
            self._installation.kill("control")
            for _ in range(kills):
                time.sleep(SETTLE_S)
                taken = len(forward.ways)
                killed.append(time.monotonic())
                relay.send(signal.SIGKILL)
                relay.wait()
                relay.start()
                self._entered(forward, taken + 1)
        return kill_rows("relay kill -9 in a row, nothing else is there", killed, answer, 2.0)

    def _join(self, home: Path) -> None:
        """Have a second agent, which may be reached directly."""
        atoll = self._installation.atoll
        secret = json.loads(atoll("token", "create", "--site", OPEN, "-o", "json"))["secret"]
        url, direct = JoinToken.parse(secret).url, f"{LOOPBACK.host}:{free_port()}"
        atoll("agent", "join", url, "--token", secret, "--name", OPEN, "--home", str(home), "--direct", direct)

    def _serve(self, sites: dict[str, str]) -> dict[str, str]:
        """Start the server in a session at each site; return their ports by the sessions' names."""
        atoll = self._installation.atoll
        served = f"cd {ROOT} && sleep infinity | {sys.executable} -m bench.traffic serve {LOOPBACK.host}"
        for name, site in sites.items():
            atoll("run", "--detach", "--site", site, "--name", name, "--", "sh", "-c", served)
        self._installation.wait(sites, ["running"])
        return {name: self._port(name) for name in sites}

    def _port(self, session: str) -> str:
        """Return where the server of a session listens, as it has printed."""
        return until(lambda: self._installation.atoll("logs", session).split(), f"the server of {session}")[0]

    def _entered(self, forward: Forward, count: int) -> None:
        """Wait until a command's one stream has taken so many lanes."""
        until(lambda: len(forward.ways) >= count, "the stream's way")

    def _forward(self, session: str, *flags: str) -> int:
        """Start the command; return its port."""
        running = self._installation.begin("forward", *flags, session, f"0:{self._sessions[session]}")
        self._stack.enter_context(running)
        self._stack.callback(running.kill)
        assert running.stdout is not None
        assert running.stderr is not None
        line = running.stdout.readline()
        if not line:
            raise RuntimeError(f"atoll forward: {running.stderr.read()}")
        return int(line.split()[0].rpartition(":")[2])
