"""The exit-code shim: the parent of a run's processes, which outlives the agent and writes down how the run ended.

Started by path as `python -I -S shim.py DIRECTORY`; it reads its order from files there and imports next
to nothing, so that it starts in milliseconds and stays small. The files:

- `argv`: the command, NUL between words; `cwd`; `joins`: `cgroup.procs` files the run's process enters.
- `lease`: where there is one, until when the run may live (monotonic seconds): the agent puts it off for as long as
  the control plane hears it. Past that the run is ended, whether an agent is there to do it or not (I8).
- `pid`: written by the shim: `shim-pid shim-start main-pid main-start boot-id`, the identity of the run.
- `exit`: written by the shim, fsynced: the exit code (128 + signal when a signal ended it), once no process
  of the tree is left. The shim is their subreaper: whoever escapes by setsid or double fork ends up here.
- `enter`: a socket that an agent listens on when it wants a guest: a further process of the run, a user's shell for
  example. At the signal `ENTER` the shim connects to it, takes an order and three descriptors, starts the guest with
  the run's environment, directory and cgroups, answers its pid and later how it ended. When the agent closes the
  connection the guest is ended; what it left in the background stays until the run ends.
"""

import _signal  # type: ignore[import-not-found]  # `signal` itself costs milliseconds: it makes enums
import os
import sys
import time

TYPE_CHECKING = False  # `typing` costs milliseconds, too
if TYPE_CHECKING:
    from socket import socket

LOOK_S = 1.0
"""How often a lease, and whether guests are still wanted, is looked at."""
HUP, KILL = 1, 9
ENTER = _signal.SIGUSR1
"""Tells the shim to look at `enter`. A shim of an older agent does not catch it: it must not be sent to such a one."""
ORDER_LIMIT = 1 << 20
NOT_FOUND, NOT_EXECUTABLE = 127, 126
_SUBREAPER = 36
_TIOCSCTTY = 0x540E
_EXIT_WIDTH = 4
_AWAITED = (_signal.SIGCHLD, ENTER)


def start_time(pid: int | str) -> str:
    """Return a process's start time in ticks since boot, "" when there is no such process or it is a zombie."""
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123 - pathlib costs milliseconds here
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def boot_id() -> str:
    """Return the id of this boot of the machine."""
    with open("/proc/sys/kernel/random/boot_id") as file:  # noqa: PTH123
        return file.read().strip()


def descendants(root: int) -> list[int]:
    """Return the live processes below `root`, parents first; without `root` and without zombies."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208
        if name.isdecimal():
            try:
                with open(f"/proc/{name}/stat") as file:  # noqa: PTH123
                    fields = file.read().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] not in "ZX":
                children.setdefault(int(fields[1]), []).append(int(name))
    found = []
    todo = [root]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def send(pids: list[int], signal: int) -> None:
    """Send a signal to each process that still exists."""
    for pid in pids:
        try:
            os.kill(pid, signal)
        except (ProcessLookupError, PermissionError):
            continue


def main(directory: str) -> None:
    """Run the order in `directory` to its end."""
    os.setsid()
    _become_subreaper()
    argv = _read(directory, "argv").split("\0")
    ending = _reserve(directory)
    leased = _lease(directory) is not None
    _signal.signal(ENTER, _caught)
    _signal.pthread_sigmask(_signal.SIG_BLOCK, _AWAITED)
    inside, entered = os.pipe()
    main_pid = os.fork()
    if main_pid == 0:
        os.close(inside)
        _begin(directory)
        os.close(entered)
        _become(argv, directory)
    _drop_stdio()
    # Only once the process is in its cgroups (or gone) can an agent judge whether limits hold.
    os.close(entered)
    os.read(inside, 1)
    os.close(inside)
    me = os.getpid()
    identity = f"{me} {start_time(me)} {main_pid} {start_time(main_pid)} {boot_id()}"
    _write(directory, "pid", identity)
    code = _wait(main_pid, directory, leased)
    _end_leftovers(me)
    _put_exit(directory, ending, code)


def _begin(directory: str) -> None:
    """Make this child, which will be a command, a session of its own in the run's cgroups, with usual signals."""
    os.setsid()
    _signal.signal(ENTER, _signal.SIG_DFL)
    # Python ignores these two, and what is ignored stays so across exec.
    _signal.signal(_signal.SIGPIPE, _signal.SIG_DFL)
    _signal.signal(_signal.SIGXFSZ, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    for path in _read(directory, "joins").split():
        try:
            with open(path, "w") as file:  # noqa: PTH123
                file.write("0")
        except OSError:
            continue  # the agent sees that the process is not inside and says so


def _become(argv: list[str], directory: str) -> None:
    """Turn this child into a command in the run's directory; never returns."""
    cwd = _read(directory, "cwd")
    what = f"enter {cwd}"
    try:
        os.chdir(cwd)
        what = f"run {argv[0]}"
        os.execvpe(argv[0], argv, os.environ)
    except OSError as error:
        os.write(2, f"atoll: cannot {what}: {error.strerror}\n".encode())
        os._exit(NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE)


def _wait(main_pid: int, directory: str, leased: bool) -> int:
    """Wait for the main process and return its code; meanwhile see to guests and to the lease.

    A lease that is over ends the tree; one that cannot be read any more counts as over.
    """
    guests: dict[int, _Guest] = {}
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == main_pid:
            return _code(status)
        if pid:
            if pid in guests:
                guests.pop(pid).ended(status)
            continue
        told = _signal.sigtimedwait(_AWAITED, LOOK_S) if leased or guests else _signal.sigwaitinfo(_AWAITED)
        if told and told.si_signo == ENTER:
            guest = _admit(directory)
            if guest is not None:
                guests[guest.pid] = guest
        for guest in guests.values():
            guest.look()
        if leased and (_lease(directory) or 0.0) <= time.monotonic():
            send(descendants(os.getpid()), KILL)


class _Guest:
    """A process that a user started beside the run, and the connection to the agent that wanted it."""

    def __init__(self, pid: int, wanted: "socket") -> None:
        self.pid = pid
        self._wanted = wanted
        self._told = 0

    def ended(self, status: int) -> None:
        """Tell how it ended: its exit code, or the signal as a negative number."""
        _say(self._wanted, os.waitstatus_to_exitcode(status))
        self._wanted.close()

    def look(self) -> None:
        """End it when nobody wants it any more: first as a hung-up line does, then its first process for sure."""
        if self._told == 0 and not _hung_up(self._wanted):
            return
        self._told += 1
        if self._told == 1:
            own = [pid for pid in (self.pid, *descendants(self.pid)) if _session(pid) == self.pid]
            send(own, HUP)
            send(own, _signal.SIGCONT)
        else:
            send([self.pid], KILL)


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return 0


def _admit(directory: str) -> "_Guest | None":
    """Start what the agent that listens on `enter` orders; None where nobody listens or nothing good was said."""
    import _socket

    wanted: socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)  # type: ignore[assignment]
    wanted.settimeout(LOOK_S)
    descriptors: list[int] = []
    try:
        folder = os.open(directory, os.O_RDONLY)
        try:
            wanted.connect(f"/proc/self/fd/{folder}/enter")  # a socket's own path may be too long
        finally:
            os.close(folder)
        tty, argv, env = _order(wanted, descriptors)
        pid = os.fork()
        if pid == 0:
            _sit_down(descriptors, tty, directory)
            os.environ.update(env)
            _become(argv, directory)
        _say(wanted, pid)
        return _Guest(pid, wanted)
    except (OSError, ValueError):
        wanted.close()
        return None
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _order(wanted: "socket", descriptors: list[int]) -> tuple[bool, list[str], dict[str, str]]:
    """Receive an order: its length, then NUL between `tty`, the number of words, the words, and `NAME=value`s."""
    import _socket

    flags = _socket.MSG_CMSG_CLOEXEC
    head, ancillary, _flags, _from = wanted.recvmsg(4, _socket.CMSG_SPACE(3 * 4), flags)
    for level, kind, data in ancillary:
        if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS):
            descriptors += [int.from_bytes(data[at : at + 4], sys.byteorder) for at in range(0, len(data) // 4 * 4, 4)]
    size = int.from_bytes(head, "big")
    raw = b""
    while len(raw) < size <= ORDER_LIMIT:
        part = wanted.recv(min(size - len(raw), 65536))
        if not part:
            break
        raw += part
    if len(head) != 4 or len(raw) != size or len(descriptors) != 3:
        raise ValueError("not an order")
    tty, count, *rest = os.fsdecode(raw).split("\0")
    words, pairs = rest[: int(count)], rest[int(count) :]
    return tty == "tty", words, dict(pair.split("=", 1) for pair in pairs)


def _sit_down(descriptors: list[int], tty: bool, directory: str) -> None:
    """Make this child a process of the run with these descriptors as its input, output and errors."""
    _begin(directory)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    if tty:
        import fcntl

        fcntl.ioctl(0, _TIOCSCTTY, 0)


def _say(wanted: "socket", number: int) -> None:
    try:
        wanted.sendall(b"%d\n" % number)
    except OSError:
        return  # whoever wanted to know is gone


def _hung_up(wanted: "socket") -> bool:
    wanted.setblocking(False)
    try:
        return not wanted.recv(1)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _caught(_number: int, _frame: object) -> None:
    """Never called, for the signal is blocked and waited for: it shows agents that this shim takes guests."""


def _code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _lease(directory: str) -> float | None:
    try:
        return float(_read(directory, "lease"))
    except (OSError, ValueError):
        return None


def _end_leftovers(me: int) -> None:
    while True:
        try:
            send(descendants(me), KILL)
            os.wait()
        except ChildProcessError:
            return


def _become_subreaper() -> None:
    import ctypes

    if ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0) != 0:
        os.write(2, b"atoll: the kernel has no subreaper; processes that escape may outlive the session\n")


def _drop_stdio() -> None:
    """Hold no end of the run's input and output: only its own processes do."""
    null = os.open("/dev/null", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.close(null)
    os.chdir("/")


def _read(directory: str, name: str) -> str:
    with open(f"{directory}/{name}", encoding="utf-8", errors="surrogateescape", newline="") as file:  # noqa: PTH123
        return file.read()


def _write(directory: str, name: str, text: str) -> None:
    """Write a file whole or not at all."""
    fresh = f"{directory}/{name}.new"
    with open(fresh, "w") as file:  # noqa: PTH123
        file.write(text)
    os.rename(fresh, f"{directory}/{name}")  # noqa: PTH104


def _reserve(directory: str) -> int:
    """Take the space for the exit code now: the disk may be full when the run ends."""
    descriptor = os.open(f"{directory}/exit.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.write(descriptor, b" " * _EXIT_WIDTH)
    os.fsync(descriptor)
    return descriptor


def _put_exit(directory: str, descriptor: int, code: int) -> None:
    """Write the exit code down; durable on return."""
    os.pwrite(descriptor, str(code).ljust(_EXIT_WIDTH).encode(), 0)
    os.fsync(descriptor)
    os.rename(f"{directory}/exit.new", f"{directory}/exit")  # noqa: PTH104


if __name__ == "__main__":
    main(sys.argv[1])
