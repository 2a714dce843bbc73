"""The agent's program as one archive, from what the control plane itself runs and wheels kept for other Pythons."""

import asyncio
import re
import sys
import sysconfig
import zipfile
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING

from atoll import __version__
from atoll.errors import Conflict

if TYPE_CHECKING:
    import tarfile

PACKAGES = ("atoll", "tunnel", "agent")
DISTRIBUTIONS = ("msgspec", "cryptography", "cffi", "pycparser", "structlog", "nvidia-ml-py", "uvloop")
COMPILED = ("msgspec", "cryptography", "cffi")
OPTIONAL = ("uvloop",)
"""Compiled, too, and left out for another Python that there is no wheel of it for: agents are slower without."""
_SKIPPED = {"__pycache__", "tests"}


class AgentPack:
    """Makes an archive at its first call, below `directory`, and keeps it for this version and Python.

    For a Python other than the control plane's own, `wheels` is a folder with wheels of what is compiled:
    `pip download --only-binary :all: --python-version 3.12 -d FOLDER msgspec cryptography cffi`.
    """

    def __init__(self, directory: Path, wheels: Path | None = None) -> None:
        self._directory = directory
        self._wheels = wheels
        self._lock = asyncio.Lock()
        self._ready: dict[str, Path] = {}
        self.tag = str(sysconfig.get_config_var("SOABI") or sys.implementation.cache_tag)

    async def path(self, tag: str = "") -> Path:
        """Return where the archive for a Python (its `SOABI`) is; the first caller waits seconds while it is made.

        Raises `Conflict` for a Python that nothing is here for.
        """
        tag = tag or self.tag
        async with self._lock:
            if tag not in self._ready or not self._ready[tag].exists():
                self._ready[tag] = await asyncio.to_thread(self._make, tag)
        return self._ready[tag]

    def _make(self, tag: str) -> Path:
        import tarfile  # here: most control planes never serve it

        foreign = [] if tag == self.tag else self._foreign(tag)
        own = members() if tag == self.tag else members(without=(*COMPILED, *OPTIONAL))
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        target = self._directory / f"agent-{__version__}-{tag}.tar.gz"
        fresh = target.with_suffix(".part")
        with tarfile.open(fresh, "w:gz", compresslevel=6) as archive:
            for source, name in own:
                archive.add(source, name, recursive=False, filter=_plain)
            for wheel in foreign:
                _add_wheel(archive, wheel)
        fresh.replace(target)
        return target

    def _foreign(self, tag: str) -> list[Path]:
        """Return one wheel of each compiled distribution for another Python; raise `Conflict` where one lacks."""
        kept = sorted(self._wheels.glob("*.whl"), reverse=True) if self._wheels else []
        found = {name: next((w for w in kept if _fits(w.name, name, tag)), None) for name in COMPILED + OPTIONAL}
        lacking = [name for name in COMPILED if found[name] is None]
        if lacking:
            raise Conflict(
                f"the control plane runs {self.tag}, this machine's Python is {tag[:64]}",
                hint=f"keep wheels of {', '.join(lacking)} for it in agent-packs/ of the control plane's home, "
                "or install `atoll` on this machine and use `atoll agent join`",
            )
        return [wheel for wheel in found.values() if wheel]


def _fits(wheel: str, distribution: str, tag: str) -> bool:
    """Whether a wheel (`name-version-python-abi-platform.whl`) is of that distribution and for that `SOABI`."""
    python = re.fullmatch(r"cpython-3(\d+)-(\w+)-linux-gnu", tag)
    parts = wheel.removesuffix(".whl").split("-")
    if python is None or len(parts) < 5 or parts[0].replace("_", "-").lower() != distribution:
        return False
    minor, machine = int(python[1]), python[2]
    abi3 = re.fullmatch(r"cp3(\d+)", parts[-3]) if parts[-2] == "abi3" else None
    loads = parts[-2] == f"cp3{minor}" or (abi3 is not None and int(abi3[1]) <= minor)
    return loads and any(re.fullmatch(rf"(many)?linux.*_{machine}", one) for one in parts[-1].split("."))


def _add_wheel(archive: "tarfile.TarFile", wheel: Path) -> None:
    import io
    import tarfile

    with zipfile.ZipFile(wheel) as opened:
        for item in opened.infolist():
            if not item.is_dir() and ".." not in Path(item.filename).parts and not item.filename.startswith("/"):
                info = tarfile.TarInfo(item.filename)
                info.size, info.mode = item.file_size, 0o644
                archive.addfile(info, io.BytesIO(opened.read(item)))


def members(without: tuple[str, ...] = ()) -> list[tuple[Path, str]]:
    """Return `(file, name in the archive)` of everything an agent imports, but for some distributions."""
    found: dict[str, Path] = {}
    for package in PACKAGES:
        root = Path(str(import_module(package).__file__)).parent if package != "agent" else _agent_root()
        for file in sorted(root.rglob("*")):
            if file.is_file() and not _SKIPPED & set(file.relative_to(root).parts):
                found[f"{package}/{file.relative_to(root).as_posix()}"] = file
    for name in (name for name in DISTRIBUTIONS if name not in without):
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
