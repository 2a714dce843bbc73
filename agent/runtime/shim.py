"""The exit-code shim: the parent of a run's processes, which outlives the agent and writes down how the run ended.

Started by path as `python -I -S shim.py DIRECTORY`; it reads its order from files there and imports next
to nothing, so that it starts in milliseconds and stays small. The files:

- `argv`: the command, NUL between words; `cwd`; `joins`: `cgroup.procs` files the run's process enters.
- `lease`: where there is one, until when the run may live (monotonic seconds): the agent puts it off for as long as
  the control plane hears it. Past that the run is ended, whether an agent is there to do it or not (I8).
- `pid`: written by the shim: `shim-pid shim-start main-pid main-start boot-id`, the identity of the run.
- `exit`: written by the shim, fsynced: the exit code (128 + signal when a signal ended it), once no process
  of the tree is left. The shim is their subreaper: whoever escapes by setsid or double fork ends up here.
"""

import _signal  # type: ignore[import-not-found]  # `signal` itself costs milliseconds: it makes enums
import os
import sys
import time

LOOK_S = 1.0
"""How often a lease is looked at."""
KILL = 9
NOT_FOUND, NOT_EXECUTABLE = 127, 126
_SUBREAPER = 36
_EXIT_WIDTH = 4


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
    if leased:
        _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGCHLD,))
    inside, entered = os.pipe()
    main_pid = os.fork()
    if main_pid == 0:
        os.close(inside)
        _become(entered, argv, _read(directory, "cwd"), _read(directory, "joins").split())
    _drop_stdio()
    # Only once the process is in its cgroups (or gone) can an agent judge whether limits hold.
    os.close(entered)
    os.read(inside, 1)
    os.close(inside)
    me = os.getpid()
    identity = f"{me} {start_time(me)} {main_pid} {start_time(main_pid)} {boot_id()}"
    _write(directory, "pid", identity)
    code = _wait_leased(main_pid, directory) if leased else _wait(main_pid)
    _end_leftovers(me)
    _put_exit(directory, ending, code)


def _become(entered: int, argv: list[str], cwd: str, joins: list[str]) -> None:
    """Turn this child into the command; never returns."""
    os.setsid()
    for path in joins:
        try:
            with open(path, "w") as file:  # noqa: PTH123
                file.write("0")
        except OSError:
            continue  # the agent sees that the process is not inside and says so
    os.close(entered)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
    # Python ignores these two, and what is ignored stays so across exec.
    _signal.signal(_signal.SIGPIPE, _signal.SIG_DFL)
    _signal.signal(_signal.SIGXFSZ, _signal.SIG_DFL)
    what = f"enter {cwd}"
    try:
        os.chdir(cwd)
        what = f"run {argv[0]}"
        os.execvpe(argv[0], argv, os.environ)
    except OSError as error:
        os.write(2, f"atoll: cannot {what}: {error.strerror}\n".encode())
        os._exit(NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE)


def _wait(main_pid: int) -> int:
    while True:
        pid, status = os.wait()
        if pid == main_pid:
            return _code(status)


def _wait_leased(main_pid: int, directory: str) -> int:
    """Wait like `_wait`, and end the tree once its lease is over; one that cannot be read any more counts as over."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == main_pid:
            return _code(status)
        if pid:
            continue
        _signal.sigtimedwait((_signal.SIGCHLD,), LOOK_S)
        if (_lease(directory) or 0.0) <= time.monotonic():
            send(descendants(os.getpid()), KILL)


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
