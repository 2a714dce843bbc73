"""The agent's program as one archive, packed from what the control plane itself runs: no registry is needed."""

import asyncio
import sys
import sysconfig
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING

from atoll import __version__

if TYPE_CHECKING:
    import tarfile

PACKAGES = ("atoll", "tunnel", "agent")
DISTRIBUTIONS = ("msgspec", "cryptography", "cffi", "pycparser", "structlog", "nvidia-ml-py")
_SKIPPED = {"__pycache__", "tests"}


class AgentPack:
    """Makes the archive at the first call, below `directory`, and keeps it for this version and Python."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = asyncio.Lock()
        self._ready: Path | None = None
        self.tag = str(sysconfig.get_config_var("SOABI") or sys.implementation.cache_tag)

    async def path(self) -> Path:
        """Return where the archive is; the first caller waits a few seconds while it is made."""
        async with self._lock:
            if self._ready is None or not self._ready.exists():
                self._ready = await asyncio.to_thread(self._make)
        return self._ready

    def _make(self) -> Path:
        import tarfile  # here: most control planes never serve it

        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        target = self._directory / f"agent-{__version__}-{self.tag}.tar.gz"
        fresh = target.with_suffix(".part")
        with tarfile.open(fresh, "w:gz", compresslevel=6) as archive:
            for source, name in members():
                archive.add(source, name, recursive=False, filter=_plain)
        fresh.replace(target)
        return target


def members() -> list[tuple[Path, str]]:
    """Return `(file, name in the archive)` of everything an agent imports."""
    found: dict[str, Path] = {}
    for package in PACKAGES:
        root = Path(str(import_module(package).__file__)).parent if package != "agent" else _agent_root()
        for file in sorted(root.rglob("*")):
            if file.is_file() and not _SKIPPED & set(file.relative_to(root).parts):
                found[f"{package}/{file.relative_to(root).as_posix()}"] = file
    for name in DISTRIBUTIONS:
        for path in _files_of(name):
            found.setdefault(path, Path(str(metadata.distribution(name).locate_file(path))))
    return [(file, name) for name, file in found.items() if file.is_file()]


def _agent_root() -> Path:
    # The agent is a neighbour that this process must not import: found by its place beside `atoll`.
    return Path(str(import_module("atoll").__file__)).parent.parent / "agent"


def _files_of(name: str) -> list[str]:
    try:
        files = metadata.files(name) or []
    except metadata.PackageNotFoundError:
        return []  # pycparser is not needed by every cffi
    return [str(file) for file in files if ".." not in file.parts and not _SKIPPED & set(file.parts)]


def _plain(info: "tarfile.TarInfo") -> "tarfile.TarInfo":
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mode = 0o755 if info.mode & 0o100 else 0o644
    return info
