"""The agent as a process of this machine: puts the shell together with the real network, clock and processes."""

import asyncio
import contextlib
import logging
import os
import shlex
import signal
import subprocess
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

from agent import direct
from agent.core import Machine
from agent.deadline import DeadlineFile
from agent.events import Exit
from agent.home import AgentHome
from agent.journal import FileJournal
from agent.ports import MeshGateway
from agent.probe.all import probe
from agent.probe.notice import find_notices
from agent.relays import RelayLinks
from agent.renewal import IdentityRenewal
from agent.run import STOPPED, AgentShell
from agent.runtime.cgroup import Fences
from agent.runtime.process import ProcessRuntime
from atoll import __version__
from atoll.errors import Forbidden
from atoll.host.logging import configure
from atoll.host.system import SystemChance, SystemClock
from tunnel.dialer import TlsDialer, ways_of
from tunnel.identity import AgentIdentity
from tunnel.ways import Ways

_log = logging.getLogger("atoll.agent")

PEACEFUL = frozenset({STOPPED, "LEFT", "TOLD_TO_LEAVE", "LEASE_EXPIRED", "MAX_LIFE"})
"""Ends that are no error. Any other is a refusal by the control plane."""
LEAVE_CONNECT_S = 5.0


def run(home: AgentHome, *, ready_fd: int | None = None) -> int:
    """Run the agent of `home` until it ends; switch the machine off where that is its end. Raises `AtollError`.

    A byte is written to `ready_fd` at the first registration; it is closed then or at the end.
    """
    configure(os.environ.get("ATOLL_LOG_LEVEL", "info"))
    logging.getLogger("atoll").setLevel(logging.INFO)
    end = _run(_serve(home, ready_fd))
    _log.info("the agent ends: %s", end.message)
    deadline = _deadline()
    if deadline is not None and end.reason != STOPPED:
        with contextlib.suppress(OSError):
            deadline.over()
    if end.reason not in PEACEFUL:
        raise Forbidden(f"the control plane refuses this agent: {end.message}", hint="undo with `atoll agent leave`")
    if end.poweroff:
        _power_off()
    return 0


def _run(serve: Coroutine[Any, Any, Exit]) -> Exit:
    """Run on uvloop where it is there: a stream's echo over it takes half the time of asyncio's own loop."""
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with contextlib.suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(serve)


def leave(home: AgentHome) -> bool:
    """Stop every run of this agent and tell the control plane that it leaves; say whether it could be told."""
    configure("warning")
    return asyncio.run(_leave(home))


def make_shell(home: AgentHome) -> tuple[AgentShell, ProcessRuntime]:
    """Return the shell of the agent in `home`, and its runtime, which the caller closes. Raises `AtollError`."""
    clock, chance = SystemClock(), SystemChance()
    identity = AgentIdentity(home.path)
    ways = ways_of(identity.url)
    dialer = TlsDialer(identity.url, identity, ways=ways)
    found = probe(home.path, os.environ)
    at = direct.load(home.direct)
    reached = {"proxy": dialer.proxy, "direct": at}
    machine = Machine(
        version=__version__,
        boot=chance.token_bytes(8).hex(),
        capacity=found.capacity,
        facts=found.facts | {name: value for name, value in reached.items() if value},
        gpus=found.gpus,
        born_at=home.born_at(clock.monotonic()),
    )
    runtime = ProcessRuntime(home.sessions, Fences(identity.agent_id))
    shell = AgentShell(
        dialer,
        runtime,
        FileJournal(home.journal),
        clock,
        chance,
        machine,
        notices=find_notices(os.environ),
        renewal=IdentityRenewal(identity, home.path, clock),
        deadline=_deadline(),
        lines=TlsDialer(identity.url, identity, data=True, ways=ways),
        relays=RelayLinks(identity.agent_id, machine.boot, partial(_relay_dialers, identity, ways), chance),
        mesh=_gateway(home, identity.agent_id, clock),
        direct=direct.Direct(at, identity.direct_context) if at else None,
        inner_context=identity.inner_context,
    )
    return shell, runtime


def _relay_dialers(identity: AgentIdentity, ways: Ways, url: str) -> tuple[TlsDialer, TlsDialer]:
    known = Ways()
    link = TlsDialer(url, identity, relay=known, ways=ways)
    return link, TlsDialer(url, identity, data=True, relay=known, ways=ways)


def _gateway(home: AgentHome, agent: str, clock: SystemClock) -> MeshGateway | None:
    """Return this machine as a gateway of meshes, None where its owner does not permit that and never did."""
    if not home.mesh.exists():
        return None
    from agent.mesh import Gateway, interface_of  # here: most agents need none of it
    from agent.meshpermit import Permit
    from tunnel.wireguard import WgDevice, unable

    return Gateway(WgDevice(interface_of(agent)), home.mesh, Permit.load(home.mesh), clock, unable())


async def _serve(home: AgentHome, ready_fd: int | None) -> Exit:
    shell, runtime = make_shell(home)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, shell.stop_now)
    if ready_fd is not None:
        shell.on_registered = lambda: _tell_ready(ready_fd)
    try:
        return await shell.run()
    finally:
        runtime.close()


def _tell_ready(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        os.write(descriptor, b"r")
        os.close(descriptor)


async def _leave(home: AgentHome) -> bool:
    shell, runtime = make_shell(home)
    registered = asyncio.Event()
    shell.on_registered = registered.set
    running = asyncio.create_task(shell.run())
    told = asyncio.create_task(registered.wait())
    try:
        await asyncio.wait([running, told], timeout=LEAVE_CONNECT_S, return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            shell.leave("its owner took it out")
        await running
    finally:
        told.cancel()
        runtime.close()
    return registered.is_set()


def _deadline() -> DeadlineFile | None:
    """Return the file that the machine's boot script named, where a boot script started this agent."""
    path = os.environ.get("ATOLL_INSTANCE_DEADLINE", "")
    return DeadlineFile(Path(path)) if path else None


def _power_off() -> None:
    """Run the command that switches this machine off, where the launch gave one."""
    command = os.environ.get("ATOLL_INSTANCE_POWEROFF", "")
    if command:
        try:
            subprocess.run(shlex.split(command), check=False, timeout=60)
        except (OSError, subprocess.TimeoutExpired) as error:
            _log.error("the machine could not be switched off: %s", error)
