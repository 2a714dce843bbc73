"""Thousands of agents at a relay's process, or at the control plane: what they take there, and how soon all are back.

The installation is made and the relay enrolled by `atoll`'s own commands. Each agent has a certificate and a connection
of its own; all live in one process, so that what they need themselves is counted nowhere.
"""

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from atoll.agent import Agent
from atoll.host.system import SystemClock
from bench.ends.crowd import enrol_crowd
from bench.processes import Process, cpu_of
from bench.rows import Row, row
from federation.store.database import open_store
from tests.e2e.installation import Installation
from tests.e2e.processes import end_all, pss
from tests.e2e.relays import RelayProcess
from tests.e2e.waiting import until
from tunnel.identity import Authority

MB = 1_000_000
REST_S = 4.0
"""Before memory is read: two pings of each link."""
CPU_S = 5.0


@dataclass(frozen=True)
class Host:
    """Whom a crowd is linked with: where, its process at this moment, and how it is killed and started again."""

    kind: str
    url: str
    pid: Callable[[], int]
    restart: Callable[[], None]


class Crowded:
    """A host under so many links: `took` seconds were needed for all, `before` is the host's PSS without them."""

    def __init__(self, stack: ExitStack, folder: Path, count: int, host: Host) -> None:
        self.host, self.count = host, count
        time.sleep(1.0)
        self.before = pss([host.pid()])
        self._crowd = stack.enter_context(Process.python("bench.ends", "crowd", folder, host.kind, host.url))
        begun = self._crowd.answer()["begun"]
        self.took = self._all() - begun

    def idle(self) -> tuple[int, float]:
        """Return the host's PSS, and the share of a core that it uses."""
        time.sleep(REST_S)
        memory, cpu = pss([self.host.pid()]), cpu_of(self.host.pid())
        time.sleep(CPU_S)
        return memory, (cpu_of(self.host.pid()) - cpu) / CPU_S

    def back(self) -> float:
        """Kill the host and start it again; return the seconds until all are back."""
        killed = time.monotonic()
        self.host.restart()
        return self._all() - killed

    def _all(self) -> float:
        while (said := self._crowd.answer()).get("all") != self.count:
            pass
        return float(said["at"])


@contextmanager
def at_relay(folder: Path, count: int) -> Iterator[Crowded]:
    """Have a relay with so many agents."""
    with ExitStack() as stack:
        installation, agents = _installation(stack, folder, count)
        relay = RelayProcess(installation, folder, "east")
        stack.callback(relay.close)
        relay.start()
        until(relay.serves, "the relay")

        def pid() -> int:
            assert relay.process is not None
            return relay.process.pid

        def restart() -> None:
            relay.send(signal.SIGKILL)
            relay.wait()
            relay.start()

        yield Crowded(stack, agents, count, Host("relay", relay.url, pid, restart))


@contextmanager
def at_control(folder: Path, count: int) -> Iterator[Crowded]:
    """Have a control plane with so many agents, and their rows in its database."""
    with ExitStack() as stack:
        installation, agents = _installation(stack, folder, count)
        installation.atoll("down")
        asyncio.run(_insert(installation.home, [place.name for place in agents.iterdir()]))
        installation.up()

        def restart() -> None:
            installation.kill("control")
            installation.up()

        url = f"https://127.0.0.1:{installation.port}"
        yield Crowded(stack, agents, count, Host("control", url, lambda: installation.pid("control"), restart))


def idle_rows(folder: Path, count: int) -> list[Row]:
    """Measure memory and processor time with idle links."""
    with at_relay(folder / "relay", count) as crowded:
        rows = _idle_rows("relay", crowded, target=300)
    with at_control(folder / "control", count) as crowded:
        return rows + _idle_rows("control plane", crowded)


def reconnect_rows(folder: Path, count: int) -> list[Row]:
    """Kill the relay under many links, start it again, and see when all are back."""
    with at_relay(folder, count) as crowded:
        return [row(f"{count} agents back after a relay's restart", "s", crowded.back(), better="lower", target=8)]


def _idle_rows(what: str, crowded: Crowded, target: float | None = None) -> list[Row]:
    memory, cpu = crowded.idle()
    each = (memory - crowded.before) / crowded.count / 1000
    return [
        row(f"{what} with {crowded.count} idle agents (PSS)", "MB", memory / MB, better="lower", target=target),
        row(f"{what}: one idle agent (PSS)", "KB", each, better="lower"),
        row(f"{what}: CPU with {crowded.count} idle agents", "% of a core", cpu * 100, better="lower"),
    ]


def _installation(stack: ExitStack, folder: Path, count: int) -> tuple[Installation, Path]:
    """Return an installation and the folder of its agents' identities, named by their ids."""
    folder.mkdir(parents=True)
    stack.callback(end_all, folder)
    installation, agents = stack.enter_context(Installation(folder)), folder / "agents"
    installation.up()
    authority = Authority.load_or_create(installation.home / "keys", now=time.time())
    enrol_crowd(agents, authority, [f"a-crowd{number:05}" for number in range(count)])
    return installation, agents


async def _insert(home: Path, agents: list[str]) -> None:
    """Enter agents as if they had joined."""
    store = await open_store(f"sqlite:///{home / 'atoll.db'}", SystemClock())
    try:
        async with store.transaction() as tx:
            local = (await tx.find(Agent))[0]
            for name in agents:
                await tx.insert(Agent(id=name, name=name, site=local.site, group=local.group, joined_at=time.time()))
    finally:
        await store.close()
