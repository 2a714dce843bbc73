"""What this machine's process table says: who is alive, who descends from whom, who belongs to a folder."""

import os
import signal
from contextlib import suppress
from pathlib import Path

_PROC = Path("/proc")
_ROUNDS = 100


def identity(pid: int) -> str:
    """Return `pid:start time:boot id`, which no other process ever has; empty when it is not alive.

    A zombie is not alive.
    """
    fields = _stat(pid)
    if fields is None or fields[0] in "ZX":
        return ""
    boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    return f"{pid}:{fields[19]}:{boot}"


def alive(known: str) -> bool:
    """Say whether the process of an `identity` still runs."""
    pid = known.partition(":")[0]
    return pid.isdecimal() and identity(int(pid)) == known


def descendants(root: int) -> list[int]:
    """Return every live process below `root`, whatever session or group it made for itself."""
    below: dict[int, list[int]] = {}
    for pid in _pids():
        fields = _stat(pid)
        if fields is not None and fields[0] not in "ZX":
            below.setdefault(int(fields[1]), []).append(pid)
    found: list[int] = []
    rest = [root]
    while rest:
        children = below.get(rest.pop(), [])
        found += children
        rest += children
    return found


def of_folder(folder: Path) -> list[int]:
    """Return the processes that belong to a machine's folder, after the process above them all is gone.

    They name it in their environment, stand in it, or hold a file of it open; and their descendants.
    """
    mark = str(folder).encode()
    found = {pid for pid in _pids() if pid != os.getpid() and _belongs(pid, str(folder), mark)}
    for pid in list(found):
        found.update(descendants(pid))
    return sorted(found)


def end_all(pids: list[int]) -> None:
    """Send KILL to each of `pids` that is still there."""
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def end_folder(folder: Path) -> None:
    """KILL all that belong to a folder until none is left; they cannot outrun it by forking for long."""
    for _ in range(_ROUNDS):
        pids = of_folder(folder)
        if not pids:
            return
        end_all(pids)


def _belongs(pid: int, folder: str, mark: bytes) -> bool:
    base = _PROC / str(pid)
    try:
        if mark in (base / "environ").read_bytes():
            return True
        links = [base / "cwd", *(base / "fd").iterdir()]
    except OSError:
        return False
    for link in links:
        with suppress(OSError):
            if str(link.readlink()).startswith(folder):
                return True
    return False


def _pids() -> list[int]:
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal()]


def _stat(pid: int) -> list[str] | None:
    """Return the fields of `/proc/PID/stat` from the state (third) on."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
