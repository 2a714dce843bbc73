"""What the operating system refused about a file, said in one clear sentence with a hint."""

import errno

from atoll.errors import AtollError, Refused, Unavailable

FREE_SPACE = "free some space; nothing that was acknowledged is lost, and it goes on by itself"
_NOT_HERE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.EFBIG}


def of_os(error: OSError, place: str) -> AtollError:
    """Return what an operating-system error means for the database or file `place`."""
    why = error.strerror or str(error) or "no answer in time"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Unavailable(f"the disk that holds {place} is full", hint=FREE_SPACE, reason="DISK_FULL")
    if error.errno in _NOT_HERE:
        hint = "give this user write access there, or set ATOLL_HOME to another directory"
        return Refused(f"{place} cannot be written: {why}", hint=hint)
    if error.errno in (errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOENT):
        return Unavailable(f"{place} cannot be used: {why}", hint="look at the machine's disk and its limits")
    return Unavailable(f"{place} cannot be used: {why}", hint="try again in a moment")
