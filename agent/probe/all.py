"""Everything an agent says about its machine at registration."""

import os
import platform
import socket
from collections.abc import Mapping
from pathlib import Path

from agent.devices import capacity
from agent.probe import gpu, machine, pretend
from agent.probe.port import Found
from atoll.slots import Slots


def probe(directory: Path, environ: Mapping[str, str]) -> Found:
    """Look at this machine; `ATOLL_AGENT_SLOTS` in `environ` overrides what there is. Raises `Invalid` for it."""
    base = machine.slots(directory)
    wanted = environ.get("ATOLL_AGENT_SLOTS", "")
    if wanted:
        slots, gpus = pretend.parse(wanted, base)
        return Found(slots, gpus, {**facts(), "slots": "pretended"})
    gpus, driver = gpu.devices()
    return Found(Slots(base.cpu, base.memory, base.disk, capacity(gpus)), gpus, {**facts(), **driver})


def facts() -> dict[str, str]:
    """Return what people want to know of a machine."""
    return {
        "hostname": socket.gethostname(),
        "os": _os_name(),
        "kernel": platform.release(),
        "arch": platform.machine(),
        "python": platform.python_version(),
        "user": os.environ.get("USER", "") or str(os.getuid()),
    }


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return platform.system()
