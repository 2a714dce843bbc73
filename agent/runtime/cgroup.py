"""Limits of a run by cgroups: version 1, version 2 and machines with both. Says honestly what holds."""

import contextlib
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from atoll.slots import Slots

ROOT = Path("/sys/fs/cgroup")
PIDS_MAX = 8192
"""Processes a run may have: a fork bomb stays in its run."""
_PERIOD_US = 100_000
KINDS = ("cpu", "memory", "pids")


@dataclass(frozen=True, slots=True)
class Fence:
    """The cgroups of one run: `folders` by kind (on version 2 the same for all), and why other kinds are missing."""

    folders: tuple[tuple[str, str], ...] = ()
    missing: tuple[tuple[str, str], ...] = ()

    @property
    def paths(self) -> list[Path]:
        """Every cgroup folder once."""
        return [Path(folder) for folder in dict.fromkeys(folder for _kind, folder in self.folders)]

    @property
    def joins(self) -> list[str]:
        """The files that a process writes itself to in order to enter."""
        return [str(path / "cgroup.procs") for path in self.paths]

    @property
    def text(self) -> str:
        """`enforced`, or `not enforced (why)`, naming the kinds that are missing."""
        if not self.missing:
            return "enforced"
        whys: dict[str, list[str]] = {}
        for kind, why in self.missing:
            whys.setdefault(why, []).append(kind)
        told = "; ".join(f"{' '.join(kinds)}: {why}" for why, kinds in whys.items())
        return f"not enforced ({told})"

    def checked(self, pid: int) -> "Fence":
        """Return this fence without the kinds whose cgroup the process `pid` is not in."""
        inside = set(self.pids())
        if pid in inside or not self.folders:
            return self
        outside = tuple((kind, "the process is not in its cgroup") for kind, _folder in self.folders)
        return Fence((), self.missing + outside)

    def pids(self) -> list[int]:
        """Return the processes inside any of the cgroups."""
        found: dict[int, None] = {}
        for path in self.paths:
            with contextlib.suppress(OSError):
                found |= dict.fromkeys(int(line) for line in (path / "cgroup.procs").read_text().split())
        return list(found)

    def kill(self) -> None:
        """Send KILL to everything inside."""
        for path in self.paths:
            with contextlib.suppress(OSError):
                (path / "cgroup.kill").write_text("1")
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)

    def out_of_memory(self) -> bool:
        """Say whether the kernel ended a process of the run because it used too much memory."""
        for kind, folder in self.folders:
            if kind == "memory":
                for name in ("memory.events", "memory.oom_control"):
                    with contextlib.suppress(OSError):
                        words = Path(folder, name).read_text().split()
                        if int(dict(zip(words[::2], words[1::2], strict=False)).get("oom_kill", "0")):
                            return True
        return False

    def remove(self) -> bool:
        """Remove the cgroups; say whether all are gone. The last run's removal takes the agent's own along."""
        for path in self.paths:
            with contextlib.suppress(OSError):
                path.rmdir()
                path.parent.rmdir()
                path.parent.parent.rmdir()
        return not any(path.exists() for path in self.paths)


class Fences:
    """Makes the fences of runs below a cgroup of the agent's own, named `name`."""

    def __init__(self, name: str, root: Path = ROOT) -> None:
        self._name = name
        self._root = root

    def make(self, run: str, slots: Slots) -> Fence:
        """Return the run's fence: every limit that could be set was read back."""
        folders, missing = [], []
        for kind in KINDS:
            try:
                folder = self._folder(kind, run)
                for file, value in _limits(kind, slots, version2=(folder / "cgroup.controllers").exists()):
                    _set(folder / file, value)
                folders.append((kind, str(folder)))
            except (OSError, _Unlimited) as error:
                missing.append((kind, _why(error)))
        return Fence(tuple(folders), tuple(missing))

    def _folder(self, kind: str, run: str) -> Path:
        version2 = (self._root / "cgroup.controllers").exists()
        base = self._root / "atoll" if version2 else self._root / kind / "atoll"
        if version2:
            _delegate(self._root, base, base / self._name)
        elif not (self._root / kind).is_dir():
            raise _Unlimited("this machine has no such cgroup controller")
        folder = base / self._name / run
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError:  # another agent of this machine has just removed the folder above
            folder.mkdir(parents=True, exist_ok=True)
        if version2 and kind not in (folder / "cgroup.controllers").read_text().split():
            raise _Unlimited("the cgroup controller is not available")
        return folder


class _Unlimited(Exception):
    """A limit that this machine cannot hold; the text says why."""


def _delegate(*parents: Path) -> None:
    for parent in parents:
        parent.mkdir(exist_ok=True)
        for kind in KINDS:
            with contextlib.suppress(OSError):
                (parent / "cgroup.subtree_control").write_text(f"+{kind}")


def _limits(kind: str, slots: Slots, *, version2: bool) -> Sequence[tuple[str, str]]:
    quota = max(1000, slots.cpu * _PERIOD_US // 1000)
    if kind == "pids":
        return [("pids.max", str(PIDS_MAX))]
    if kind == "cpu":
        if not slots.cpu:
            return []
        if version2:
            return [("cpu.max", f"{quota} {_PERIOD_US}")]
        return [("cpu.cfs_period_us", str(_PERIOD_US)), ("cpu.cfs_quota_us", str(quota))]
    if not slots.memory:
        return []
    page = os.sysconf("SC_PAGE_SIZE")
    memory = str(slots.memory // page * page)
    if version2:
        return [("memory.max", memory), ("memory.oom.group", "1")]
    return [("memory.limit_in_bytes", memory)]


def _set(file: Path, value: str) -> None:
    file.write_text(value)
    held = file.read_text().strip()
    if held != value:
        raise _Unlimited(f"the kernel holds {held} instead of {value}")


def _why(error: Exception) -> str:
    if isinstance(error, OSError):
        return (error.strerror or "error").lower()
    return str(error)
