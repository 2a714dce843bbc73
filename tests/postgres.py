"""A private PostgreSQL server for tests: one a test process, on a unix socket and a loopback port."""

import atexit
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from functools import cache
from itertools import count
from pathlib import Path

import pytest

from tests.ports import free_port

_names = count(1)


class PostgresServer:
    """A server without fsync, in a temporary directory; trusts its loopback clients but for user `locked`."""

    def __init__(self, bin_directory: Path) -> None:
        self._bin = bin_directory
        self._home = Path(tempfile.mkdtemp(prefix="atoll-pg-"))
        self._user = _unprivileged()
        self.port = free_port()
        os.chown(self._home, self._user.pw_uid, self._user.pw_gid)
        self._log = (self._home / "log").open("wb")
        data = str(self._home / "data")
        self._run([str(self._bin / "initdb"), "-D", data, "-U", "atoll", "-A", "trust", "-E", "UTF8", "--no-sync"])
        rules = "host all locked 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\nlocal all all trust\n"
        (self._home / "data" / "pg_hba.conf").write_text(rules)
        self.start()

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = {"listen_addresses": "127.0.0.1", "port": str(self.port), "unix_socket_directories": str(self._home)}
        options |= {"fsync": "off", "full_page_writes": "off", "shared_buffers": "16MB", "max_connections": "40"}
        argv = [str(self._bin / "postgres"), "-D", str(self._home / "data")]
        for name, value in options.items():
            argv += ["-c", f"{name}={value}"]
        self._server = self._spawn(argv)
        deadline = time.monotonic() + 30
        while self._run([str(self._bin / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)], check=False):
            if self._server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self._home / "log").read_text())
            time.sleep(0.05)

    def stop(self) -> None:
        """End the server at once, its clients with it."""
        self._server.send_signal(3)  # SIGQUIT: immediate shutdown
        self._server.wait(timeout=30)

    def remove(self) -> None:
        """End the server and remove its files."""
        self.stop()
        self._log.close()
        shutil.rmtree(self._home, ignore_errors=True)

    def sql(self, statement: str, database: str = "postgres") -> None:
        """Run one statement as the owner."""
        where = ["-h", str(self._home), "-p", str(self.port), "-U", "atoll", "-d", database]
        self._run([str(self._bin / "psql"), "-q", "-v", "ON_ERROR_STOP=1", *where, "-c", statement])

    def new_database(self) -> str:
        """Make an empty database; return its URL."""
        name = f"atoll_{next(_names)}"
        self.sql(f"CREATE DATABASE {name} TEMPLATE template0")
        return f"postgresql://atoll@127.0.0.1:{self.port}/{name}"

    def _spawn(self, argv: list[str]) -> subprocess.Popen[bytes]:
        user, group = (self._user.pw_uid, self._user.pw_gid) if os.geteuid() == 0 else (None, None)
        return subprocess.Popen(argv, cwd=self._home, stdout=self._log, stderr=self._log, user=user, group=group)

    def _run(self, argv: list[str], *, check: bool = True) -> int:
        code = self._spawn(argv).wait(timeout=60)
        if code and check:
            raise RuntimeError((self._home / "log").read_text())
        return code


def _unprivileged() -> pwd.struct_passwd:
    # PostgreSQL refuses to run as root.
    return pwd.getpwuid(os.geteuid()) if os.geteuid() else pwd.getpwnam("nobody")


@cache
def _shared() -> PostgresServer | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    if not found:
        return None
    server = PostgresServer(found[-1])
    atexit.register(server.remove)
    return server


@pytest.fixture(scope="session")
def postgres_server() -> PostgresServer:
    """The test process's server; skips where PostgreSQL is not installed, fails there in CI."""
    server = _shared()
    if server is None:
        reason = "PostgreSQL is not installed under /usr/lib/postgresql"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return server
