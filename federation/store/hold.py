"""One control plane per database: the hold that a second one meets and is told about."""

import fcntl
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from atoll.errors import Refused
from federation.store.disk import of_os
from federation.store.faults import of_postgres

if TYPE_CHECKING:
    import asyncpg  # type: ignore[import-untyped]

APPLICATION = f"atoll {socket.gethostname()} {os.getpid()}"
"""How this process is called in PostgreSQL's list of clients."""

_HINT = "stop that one first (`atoll down`), or give this one a home of its own with ATOLL_HOME"
# Advisory locks are per database: the second key keeps the schemas of one database apart.
_TAKE = "SELECT pg_try_advisory_lock(hashtext('atoll control plane'), hashtext(current_schema()))"
_OTHER = """
    SELECT a.application_name || ', database client ' || a.pid FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE l.locktype = 'advisory' AND l.granted AND l.classid = hashtext('atoll control plane')::oid
    AND l.objid = hashtext(current_schema())::oid AND a.datname = current_database()"""


class Hold(Protocol):
    """The right of one control plane to use a database."""

    async def renew(self) -> None:
        """Take the hold, or take it again where it was lost; raise `Refused` where another one has it."""
        ...

    async def release(self) -> None:
        """Give it up."""
        ...


class FileHold:
    """A lock on `<database>.lock`, kept until release or the end of the process, however it ends."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._file = -1

    async def renew(self) -> None:
        """Lock the file, unless it is; raise `Refused` with the other's process id where that is not free."""
        if self._file >= 0:
            return
        path = self._database.with_name(self._database.name + ".lock")
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise of_os(error, f"the database {self._database}") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(file, 0)
            os.pwrite(file, b"%d\n" % os.getpid(), 0)
        except BlockingIOError as error:
            other = os.pread(file, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(file)
            text = f"another control plane (process {other}) already uses the database {self._database}"
            raise Refused(text, hint=_HINT) from error
        except OSError as error:
            os.close(file)
            raise of_os(error, f"the database {self._database}") from error
        self._file = file

    async def release(self) -> None:
        """Unlock. The file stays: removing it would let two processes lock two files of one name."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class PostgresHold:
    """A session-level advisory lock on a connection of its own; a broken connection loses and retakes it."""

    def __init__(self, url: str, place: str) -> None:
        self._url = url
        self._place = place
        self._connection: asyncpg.Connection | None = None

    async def renew(self) -> None:
        """Connect and lock, unless that stands; raise `Refused` with the other's name where it is taken."""
        if self._connection is not None and not self._connection.is_closed():
            return
        self._connection = await connect(self._url, self._place)
        if await self._connection.fetchval(_TAKE):
            return
        other = await self._connection.fetchval(_OTHER)
        await self.release()
        text = f"another control plane ({other or 'unknown'}) already uses the database {self._place}"
        raise Refused(text, hint=_HINT)

    async def release(self) -> None:
        """Close the connection, which unlocks."""
        if self._connection is not None:
            await self._connection.close(timeout=5)
            self._connection = None


async def connect(url: str, place: str) -> "asyncpg.Connection":
    """Return a new connection to a PostgreSQL server; 10 seconds to connect, 30 for any answer.

    Raises `Refused` or `Unavailable` naming `place`, which holds no password.
    """
    import asyncpg

    settings = {"application_name": APPLICATION}
    try:
        return await asyncpg.connect(url, timeout=10, command_timeout=30, server_settings=settings)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise of_postgres(error, place) from error
