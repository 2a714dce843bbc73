"""The agent as a process of this machine: puts the shell together with the real network, clock and processes."""

import asyncio
import contextlib
import logging
import os
import shlex
import signal
import subprocess
from pathlib import Path

from agent.core import Machine
from agent.deadline import DeadlineFile
from agent.events import Exit
from agent.home import AgentHome
from agent.journal import FileJournal
from agent.probe.all import probe
from agent.probe.notice import find_notices
from agent.renewal import IdentityRenewal
from agent.run import STOPPED, AgentShell
from agent.runtime.cgroup import Fences
from agent.runtime.process import ProcessRuntime
from atoll import __version__
from atoll.errors import Forbidden
from atoll.host.logging import configure
from atoll.host.system import SystemChance, SystemClock
from tunnel.dialer import TlsDialer
from tunnel.identity import AgentIdentity

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
    end = asyncio.run(_serve(home, ready_fd))
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


def leave(home: AgentHome) -> bool:
    """Stop every run of this agent and tell the control plane that it leaves; say whether it could be told."""
    configure("warning")
    return asyncio.run(_leave(home))


def make_shell(home: AgentHome) -> tuple[AgentShell, ProcessRuntime]:
    """Return the shell of the agent in `home`, and its runtime, which the caller closes. Raises `AtollError`."""
    clock, chance = SystemClock(), SystemChance()
    identity = AgentIdentity(home.path)
    found = probe(home.path, os.environ)
    machine = Machine(
        version=__version__,
        boot=chance.token_bytes(8).hex(),
        capacity=found.capacity,
        facts=found.facts,
        gpus=found.gpus,
        born_at=home.born_at(clock.monotonic()),
    )
    runtime = ProcessRuntime(home.sessions, Fences(identity.agent_id))
    shell = AgentShell(
        TlsDialer(identity.url, identity),
        runtime,
        FileJournal(home.journal),
        clock,
        chance,
        machine,
        notices=find_notices(os.environ),
        renewal=IdentityRenewal(identity, home.path, clock),
        deadline=_deadline(),
        lines=TlsDialer(identity.url, identity, data=True),
    )
    return shell, runtime


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
