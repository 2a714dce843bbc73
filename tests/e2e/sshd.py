"""Hosts to bootstrap: each a real OpenSSH server on loopback with a home, programs and keys of its own."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.processes import end_all
from tests.e2e.waiting import until
from tests.ports import free_port

BIN_PLACES = ("/usr/bin", "/bin")


class SshHost:
    """One host. `python` says whether it has `python3`; `prefix` stands before its sshd."""

    def __init__(
        self, folder: Path, name: str, key: Path, *, python: bool = True, prefix: tuple[str, ...] = ()
    ) -> None:
        self.name = name
        self.base = folder / name
        self.home = self.base / "home"
        self.port = free_port()
        self.home.mkdir(parents=True)
        self._programs(python)
        keygen(self.base / "host_key")
        (self.base / "sshd_config").write_text(
            f"ListenAddress 127.0.0.1\nPort {self.port}\nHostKey {self.base / 'host_key'}\nPidFile none\n"
            f"AuthorizedKeysFile {key}.pub\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
            f"PermitRootLogin yes\nLogLevel VERBOSE\n"
            f"SetEnv HOME={self.home} PATH={self.base / 'bin'} ATOLL_AGENT_SLOTS=cpu=1,memory=1GiB,disk=1GiB\n"
        )
        with (self.base / "log").open("wb") as log:
            self._server = subprocess.Popen(
                [*prefix, sshd(), "-D", "-e", "-f", str(self.base / "sshd_config")], stderr=log, stdout=log
            )
        until(self._listens, f"sshd of {name}", within=20, story=lambda: (self.base / "log").read_text())

    def _programs(self, python: bool) -> None:
        (self.base / "bin").mkdir()
        for place in map(Path, BIN_PLACES):
            for program in place.iterdir():
                link = self.base / "bin" / program.name
                if not program.name.startswith(("python", "systemctl")) and not link.is_symlink():
                    link.symlink_to(program)
        if python:
            version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
            (self.base / "bin" / "python3").symlink_to(Path(sys.base_prefix) / "bin" / version)

    def _listens(self) -> bool:
        assert self._server.poll() is None, (self.base / "log").read_text()
        return "Server listening" in (self.base / "log").read_text()

    def known(self) -> str:
        """Return this host's line of a `known_hosts` file."""
        kind, key, *_ = (self.base / "host_key.pub").read_text().split()
        return f"[127.0.0.1]:{self.port} {kind} {key}\n"

    def logins(self) -> int:
        """Return how often somebody logged in, by sshd's own log."""
        return (self.base / "log").read_text().count("Accepted publickey")

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._server.terminate()
        self._server.wait(10)
        end_all(self.base)


def keygen(path: Path) -> None:
    """Make a key pair without a passphrase."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", path.name, "-f", str(path)], check=True)


def sshd() -> str:
    """Return the path of sshd, or skip."""
    found = shutil.which("sshd", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip("sshd is not installed")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where Debian's sshd separates privileges
    return found


@contextlib.contextmanager
def closing_all(hosts: list[SshHost]) -> Iterator[list[SshHost]]:
    try:
        yield hosts
    finally:
        for host in hosts:
            host.close()
