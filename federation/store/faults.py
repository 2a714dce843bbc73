"""What a database refused, said in one clear sentence with a hint."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from atoll.errors import AtollError, Refused, Unavailable
from federation.ports import Stale
from federation.store.disk import FREE_SPACE, of_os

_SERVER_HINT = "check that the PostgreSQL server runs and that the URL names its host, port and database"


@contextmanager
def told(place: str) -> Iterator[None]:
    """Turn what a driver raises within into `Refused`, `Unavailable` or `Stale`; `place` names the database.

    An error that nobody expects passes unchanged: it is a defect and must look like one.
    """
    try:
        yield
    except PoolTimeout as error:
        raise Unavailable(f"the database {place} is too busy", hint="try again in a moment") from error
    except DBAPIError as error:
        known = _of_sqlite(error.orig, place) or _of_state(error.orig, place)
        if known is None and error.connection_invalidated:
            known = Unavailable(f"the connection to the database {place} broke", hint=_SERVER_HINT)
        if known is None:
            raise
        raise known from error
    except OSError as error:  # includes TimeoutError: the server went silent
        raise of_os(error, place) from error


def of_postgres(error: Exception, place: str) -> AtollError:
    """Return what a failed attempt to connect to the server of `place` means."""
    if isinstance(error, OSError):
        why = error.strerror or str(error) or "no answer in time"
        return Unavailable(f"the database {place} cannot be reached: {why}", hint=_SERVER_HINT)
    known = _of_state(error, place)
    return known or Unavailable(f"the database {place} cannot be reached: {error}", hint=_SERVER_HINT)


def _of_sqlite(error: BaseException | None, place: str) -> AtollError | None:
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith("SQLITE_FULL"):
        return Unavailable(f"the disk that holds {place} is full", hint=FREE_SPACE, reason="DISK_FULL")
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        hint = "give this user write access to the file and its directory, or set ATOLL_HOME to another directory"
        return Refused(f"the database {place} cannot be opened for writing", hint=hint)
    if name.startswith("SQLITE_NOTADB"):
        return Refused(f"{place} is not a database", hint="move the file away, or name another one")
    if name.startswith("SQLITE_CORRUPT"):
        return Refused(f"the database {place} is damaged", hint="restore it from a backup")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return Unavailable(f"another program keeps the database {place} locked", hint="end that program")
    if name.startswith("SQLITE_IOERR"):
        hint = "look at the disk's health and free space; nothing that was acknowledged is lost"
        return Unavailable(f"the disk refuses reads or writes of {place} ({name})", hint=hint)
    return None


def _of_state(error: BaseException | None, place: str) -> AtollError | None:
    state = str(getattr(error, "sqlstate", None) or "")
    match state[:2]:
        case "28":
            return Refused(f"the database {place} refuses this user or password", hint="check both in the URL")
        case "3D":
            return Refused(f"there is no database {place}", hint="make it with `createdb`, or correct the URL")
        case "40":
            return Stale(f"another transaction on {place} came first", hint="read again and try again")
        case "42" if state == "42501":
            return Refused(f"this user may not write in {place}", hint="grant it CREATE and all table rights there")
        case "25" if state == "25006":
            return Refused(f"the database {place} is read-only", hint="name the primary server in the URL")
        case "53" if state == "53100":
            return Unavailable(f"the disk of the database {place} is full", hint=FREE_SPACE, reason="DISK_FULL")
        case "53" | "57" | "58" | "08":
            return Unavailable(f"the database {place} cannot serve now: {error}", hint=_SERVER_HINT)
    return None
