"""The source tree as the structure tests see it: its files, parsed."""

import ast
import functools
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("atoll", "tunnel", "providers", "autoscaler", "agent", "federation")
BUILT = frozenset({"__pycache__", "node_modules"})


def product_files() -> list[Path]:
    """Return every Python module of the six packages."""
    return python_files(*PACKAGES)


def python_files(*folders: str) -> list[Path]:
    """Return every Python module below `folders` of the tree."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py") if not BUILT & set(path.parts))


def tracked_files() -> list[Path]:
    """Return every file that is, or would be, in the repository; all sensible files where git is not there."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        hidden = (path for path in ROOT.rglob("*") if path.is_file() and not BUILT & set(path.parts))
        return sorted(path for path in hidden if not any(p.startswith(".") for p in path.relative_to(ROOT).parts))
    return [ROOT / line for line in listing.splitlines() if (ROOT / line).is_file()]


@functools.cache
def parse(path: Path) -> ast.Module:
    """Return the syntax tree of a module."""
    return ast.parse(path.read_text(), filename=str(path))


def name(path: Path) -> str:
    """Return a file's path inside the tree."""
    return str(path.relative_to(ROOT))
