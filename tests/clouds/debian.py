"""A small Debian 12 with its own cloud-init, made once by debootstrap and kept in the user's cache folder."""

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

PACKAGES = (
    "systemd-sysv", "dbus", "udev", "kmod", "iproute2", "ca-certificates", "cloud-init", "linux-image-cloud-amd64",
    "python3", "python3-cffi-backend",  # python3-cryptography asks for it by a virtual name
)  # fmt: skip
MAKE_S = 300.0
"""Longest time the root may take; about 80 s on two cores."""
_FINISH = """
set -e
systemctl enable systemd-networkd systemd-networkd-wait-online >/dev/null 2>&1
rm -rf /var/cache/apt/archives/*.deb /var/lib/apt/lists/* /var/log/*.log /debootstrap
: >/etc/machine-id
rm -f /etc/hostname
echo 'LABEL=atoll-root / ext4 defaults 0 1' >/etc/fstab
"""


def root() -> Path:
    """Return the folder of the root file system, which nobody may write to; skip where it cannot be made."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a Debian root file system")
    folder = _cache() / f"debian-12-{_digest(*PACKAGES, _FINISH)}"
    with _locked(folder):
        if not folder.exists():
            _make(folder)
    return folder


def disk() -> Path:
    """Return the same as an image of one ext4 file system, labelled `atoll-root`, with 512 MiB to spare."""
    source = root()
    image = source.with_suffix(".ext4")
    _need("mkfs.ext4", "e2fsprogs")
    with _locked(image):
        if not image.exists():
            used = int(_call(["du", "-sm", str(source)]).split()[0])
            fresh = image.with_suffix(".part")
            fresh.unlink(missing_ok=True)
            _call(["mkfs.ext4", "-q", "-d", str(source), "-L", "atoll-root", str(fresh), f"{used * 5 // 4 + 512}M"])
            fresh.rename(image)
    return image


def _make(folder: Path) -> None:
    _need("debootstrap", "debootstrap")
    fresh = folder.with_suffix(".part")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        _call(["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", "bookworm", str(fresh)])
        _call(["chroot", str(fresh), "sh", "-c", _FINISH])
    except subprocess.SubprocessError as error:
        shutil.rmtree(fresh, ignore_errors=True)
        said = str(getattr(error, "stdout", "") or error).strip().splitlines()
        pytest.skip(f"no Debian root file system (is there a network?): {said[-1] if said else error}")
    fresh.rename(folder)


def _need(program: str, package: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed (Debian: {package})")


def _call(command: Sequence[str]) -> str:
    return subprocess.run(
        command, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=MAKE_S
    ).stdout


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def _cache() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "atoll-tests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock beside `path`: test processes make a thing once."""
    with path.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
