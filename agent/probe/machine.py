"""CPU, memory and disk of this machine, within what the agent itself may use of them."""

import contextlib
import os
import shutil
from pathlib import Path

from atoll.slots import MIB, Slots

CGROUPS = Path("/sys/fs/cgroup")
PROC = Path("/proc")


def slots(directory: Path, *, cgroups: Path = CGROUPS, proc: Path = PROC) -> Slots:
    """Return cpu, memory and disk (free space where `directory` is): the affinity and cgroup limits hold.

    Memory is rounded down to whole MiB.
    """
    folders = _folders(cgroups, proc)
    cpu = min([1000 * len(os.sched_getaffinity(0)), *_cpu_limits(folders)])
    memory = min([_memory(proc), *_memory_limits(folders)])
    return Slots(cpu=cpu, memory=memory // MIB * MIB, disk=_disk(directory))


def _memory(proc: Path) -> int:
    for line in (proc / "meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemTotal":
            return int(value.split()[0]) * 1024
    return 0


def _disk(directory: Path) -> int:
    while not directory.exists() and directory != directory.parent:
        directory = directory.parent
    return shutil.disk_usage(directory).free // MIB * MIB


def _folders(cgroups: Path, proc: Path) -> list[Path]:
    """Return every cgroup folder that this process is in or below, on version 1 and 2."""
    found = []
    with contextlib.suppress(OSError):
        for line in (proc / "self" / "cgroup").read_text().splitlines():
            _number, names, path = line.split(":", 2)
            root = cgroups / names.removeprefix("name=").split(",")[0] if names else cgroups
            here = root / path.lstrip("/")
            while True:
                found.append(here)
                if here in (root, here.parent):
                    break
                here = here.parent
    return found


def _cpu_limits(folders: list[Path]) -> list[int]:
    limits = []
    for folder in folders:
        with contextlib.suppress(OSError, ValueError):
            quota, period = (folder / "cpu.max").read_text().split()
            limits.append(int(quota) * 1000 // int(period))
        with contextlib.suppress(OSError, ValueError):
            quota = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
            if int(quota) > 0:
                limits.append(int(quota) * 1000 // int(period))
    return limits


def _memory_limits(folders: list[Path]) -> list[int]:
    limits = []
    for folder in folders:
        for name in ("memory.max", "memory.limit_in_bytes"):
            with contextlib.suppress(OSError, ValueError):
                limits.append(int((folder / name).read_text()))
    return limits
