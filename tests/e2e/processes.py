"""The processes of one installation, found by its home: in their arguments, environment or working folder."""

import contextlib
import os
import signal
import time
from pathlib import Path


def of_home(home: Path) -> list[int]:
    """Return the ids of living processes that belong to the installation in `home` (never this one)."""
    marks = [os.fsencode(str(home)), os.fsencode(str(home.resolve()))]
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid() and _belongs(entry, marks):
            found.append(int(entry.name))
    return sorted(found)


def _belongs(entry: Path, marks: list[bytes]) -> bool:
    try:
        if entry.joinpath("stat").read_text().rpartition(")")[2].split()[0] in "ZX":
            return False
        held = entry.joinpath("cmdline").read_bytes() + b"\0" + entry.joinpath("environ").read_bytes()
        held += os.fsencode(entry.joinpath("cwd").readlink())
    except OSError:
        return False
    return any(mark in held for mark in marks)


def arguments(pid: int) -> bytes:
    """Return the arguments of a process, each ended by a zero byte; none of one that is over."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def family(pid: int) -> list[int]:
    """Return `pid` and its living descendants."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError, IndexError, ValueError):
                parent = int(entry.joinpath("stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        one = todo.pop()
        found.append(one)
        todo += children.get(one, [])
    return found


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def end_all(home: Path) -> None:
    """Kill what is left of the installation in `home`, by id, until nothing is."""
    deadline = time.monotonic() + 10.0
    while (left := of_home(home)) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def pss(pids: list[int]) -> int:
    """Return the bytes of memory that `pids` hold together, shared pages counted in part (PSS)."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def listens(pid: int) -> list[str]:
    """Return the local addresses (as the kernel writes them) on which a process listens for TCP."""
    return [local for local, _, state in _tcp(pid) if state == "0A"]


def connections(pid: int) -> list[str]:
    """Return the remote addresses (as the kernel writes them) that a process has TCP connections to."""
    return [remote for _, remote, state in _tcp(pid) if state == "01"]


def _tcp(pid: int) -> list[tuple[str, str, str]]:
    """Return local address, remote address and state of a process's TCP sockets."""
    inodes, found = set(), []
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                target = str(link.readlink())
                if target.startswith("socket:["):
                    inodes.add(target[8:-1])
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                words = line.split()
                if words[9] in inodes:
                    found.append((words[1], words[2], words[3]))
    return found
