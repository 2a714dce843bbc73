"""The process runtime: a run is a plain process tree under an exit-code shim, limited by cgroups where they hold."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from agent.events import RuntimeExited, RuntimeStarted, StartFailed
from agent.logpump import CHANNELS
from agent.runtime import shim, sockets
from agent.runtime.cgroup import Fence, Fences
from agent.runtime.folder import Folder, Meta
from agent.runtime.guest import enter
from agent.runtime.port import Guest, Observer
from atoll.ids import split_run_id
from atoll.session import SessionSpec
from atoll.slots import Slots

_log = logging.getLogger("atoll.agent.process")

POLL_S = (0.05, 0.25)
"""Output is looked at this often: the first while it grows, the second when it rests. No runs: never."""
ROUND_S = 0.05
"""Time between two rounds of killing."""
IDENTITY_S = 10.0
"""A shim that has not written its identity for this long is lost."""
_REMOVALS = 100
_BASE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class _Live:
    """A run with processes, as this agent watches it."""

    def __init__(self, run: str, folder: Folder, shim_pid: int, *, child: bool) -> None:
        self.run = run
        self.folder = folder
        self.fence = folder.meta.fence
        self.shim = shim_pid
        self.child = child
        self.pidfd = -1
        self.started = False
        self.killing = False
        self.entering = asyncio.Lock()
        self.sizes = dict.fromkeys(CHANNELS, 0)
        self.began = 0.0


class ProcessRuntime:
    """Runs processes under `directory` (one folder a run). `fences` None: no limits are tried."""

    def __init__(self, directory: Path, fences: Fences | None) -> None:
        self._directory = directory
        self._fences = fences
        self._runs: dict[str, _Live] = {}
        self._folders: dict[str, Folder] = {}
        self._observer: Observer
        self._loop: asyncio.AbstractEventLoop
        self._poll: asyncio.TimerHandle | None = None
        self._pause = POLL_S[0]

    def attach(self, observer: Observer) -> None:
        """Begin; see the port."""
        self._observer = observer
        self._loop = asyncio.get_running_loop()
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for gone in self._directory.glob(".gone-*"):
            self._remove(gone)

    def close(self) -> None:
        """Stop watching; the runs go on under their shims."""
        if self._poll is not None:
            self._poll.cancel()
        for live in self._runs.values():
            self._unwatch(live)
        self._runs.clear()

    def spawn(
        self,
        run: str,
        spec: SessionSpec,
        slots: Slots,
        env: Mapping[str, str],
        gpus: Sequence[str] = (),
        until: float | None = None,
    ) -> None:
        """Start a run; see the port."""
        folder = self._folder(run)
        fence = Fence(missing=(("cpu memory pids", "this agent was told to use no cgroups"),))
        try:
            if spec.workdir and not Path(spec.workdir).is_dir():
                raise OSError(0, f"the workdir {spec.workdir} does not exist on this machine")
            fence = self._fences.make(run, slots) if self._fences else fence
            apps = {name: port or _free_port() for name, port in spec.apps.items()}
            rank = split_run_id(run)[2]
            folder.create(spec.command, spec.workdir, spec.stdin if rank == 0 else "", Meta(apps, fence))
            if until is not None:
                folder.keep(until)
            full_env = environment(run, spec, env, apps, gpus)
            pid = _start_shim(folder.path, full_env)
        except (OSError, ValueError) as error:
            fence.remove()
            message = getattr(error, "strerror", None) or str(error)
            self._loop.call_soon(self._observer.observed, StartFailed(run, f"the run could not be started: {message}"))
            return
        self._watch(_Live(run, folder, pid, child=True))

    def keep(self, run: str, until: float) -> None:
        """Put off its end; see the port."""
        with contextlib.suppress(OSError):  # then it ends by what was written last
            self._folder(run).keep(until)

    def adopt(self, runs: Sequence[str]) -> None:
        """Take runs over; see the port."""
        for run in runs:
            folder = self._folder(run)
            identity = folder.identity
            live = _Live(run, folder, identity.shim if identity else 0, child=False)
            if folder.exit_code is None and identity is None and folder.path.exists():
                # The last agent died right after it started the shim: that one writes its identity soon.
                self._runs[run] = live
                live.began = self._loop.time()
                self._loop.call_later(ROUND_S, self._await_identity, live)
            elif folder.exit_code is None and identity is not None and identity.alive:
                self._watch(live)
            else:
                self._runs[run] = live
                self._loop.call_soon(self._over, live)

    def terminate(self, run: str) -> None:
        """Send TERM to the tree; see the port."""
        live = self._runs.get(run)
        if live is not None:
            shim.send(self._pids(live), signal.SIGTERM)

    def signal(self, run: str, name: str) -> str:
        """Send the main process a signal it handles; see the port."""
        live = self._runs.get(run)
        identity = live.folder.identity if live is not None else None
        number = getattr(signal, f"SIG{name}", None)
        if identity is None or not identity.running:
            return "its main process is over"
        if number is None:
            return f"this machine knows no signal {name}"
        if not _handles(identity.main, number):
            return f"its main process (pid {identity.main}) does not handle {name}: it was not sent"
        shim.send([identity.main], number)
        return ""

    def kill(self, run: str) -> None:
        """Send KILL until nothing is left; see the port."""
        live = self._runs.get(run)
        if live is not None and not live.killing:
            live.killing = True
            self._kill_round(live)

    def read_log(self, run: str, channel: str, offset: int, limit: int) -> bytes:
        """Return output; see the port."""
        return self._folder(run).read(channel, offset, limit)

    def log_size(self, run: str, channel: str) -> int:
        """Return a channel's size; see the port."""
        return self._folder(run).size(channel)

    def log_base(self, run: str, channel: str) -> int:
        """Return where a channel's readable bytes begin; see the port."""
        return self._folder(run).base(channel)

    def free_log(self, run: str, channel: str, below: int) -> None:
        """Free output; see the port."""
        self._folder(run).free(channel, below)

    def listens(self, run: str, port: int) -> bool:
        """Say whether the run listens on a port; see the port."""
        return self._address(run, port) is not None

    async def connect(self, run: str, port: int, make: Callable[[], asyncio.Protocol]) -> None:
        """Connect to a port of the run; see the port."""
        address = self._address(run, port)
        if address is None:
            raise ConnectionRefusedError(f"no process of {run} listens on port {port}")
        await self._loop.create_connection(make, address, port)

    async def enter(
        self, run: str, argv: Sequence[str], env: Mapping[str, str], descriptors: Sequence[int], *, tty: bool
    ) -> Guest:
        """Start a guest; see the port."""
        live = self._runs.get(run)
        if live is None or not live.started:
            raise ProcessLookupError(0, f"{run} has no processes now")
        if not _handles(live.shim, shim.ENTER):
            raise OSError(0, "this session was started by an older agent, which nobody can enter: start it again")
        async with live.entering:
            return await enter(live.folder.path, live.shim, argv, env, descriptors, tty=tty)

    def forget(self, run: str) -> None:
        """Remove a run's folder; see the port."""
        self._folders.pop(run, None)
        path = self._directory / run
        gone = self._directory / f".gone-{run}"
        with contextlib.suppress(FileNotFoundError):
            path.rename(gone)
            self._remove(gone)

    # Watching.

    def _watch(self, live: _Live) -> None:
        self._runs[live.run] = live
        live.began = self._loop.time()
        try:
            live.pidfd = os.pidfd_open(live.shim)
        except ProcessLookupError:
            self._loop.call_soon(self._over, live)
            return
        except OSError:
            self._loop.call_later(POLL_S[1], self._look_for_end, live)
        else:
            self._loop.add_reader(live.pidfd, self._over, live)
        self._look_for_start(live, 0.004)
        self._look_at_output_in(POLL_S[0])

    def _unwatch(self, live: _Live) -> None:
        if live.pidfd >= 0:
            self._loop.remove_reader(live.pidfd)
            os.close(live.pidfd)
            live.pidfd = -1
        if live.child:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(live.shim, os.WNOHANG)

    def _look_for_end(self, live: _Live) -> None:
        """Without pidfd: look whether the shim still lives."""
        if self._runs.get(live.run) is not live:
            return
        if shim.start_time(live.shim):
            self._loop.call_later(POLL_S[1], self._look_for_end, live)
        else:
            self._over(live)

    def _look_for_start(self, live: _Live, pause: float) -> None:
        if self._runs.get(live.run) is not live or live.started:
            return
        identity = live.folder.identity
        if identity is None:
            self._loop.call_later(pause, self._look_for_start, live, min(2 * pause, ROUND_S))
            return
        live.started = True
        limits = live.fence.checked(identity.main).text
        self._observer.observed(RuntimeStarted(live.run, limits, live.folder.meta.apps))

    def _await_identity(self, live: _Live) -> None:
        identity = live.folder.identity
        if identity is not None and identity.alive:
            live.shim = identity.shim
            self._watch(live)
        elif identity is None and self._loop.time() - live.began < IDENTITY_S and _marked(live.run):
            self._loop.call_later(ROUND_S, self._await_identity, live)
        else:
            self._over(live)

    def _look_at_output_in(self, pause: float) -> None:
        if self._poll is not None:
            self._poll.cancel()
        self._pause = pause
        self._poll = self._loop.call_later(pause, self._look_at_output)

    def _look_at_output(self) -> None:
        self._poll = None
        grown = [self._grown(live) for live in list(self._runs.values())]
        if self._runs:
            self._look_at_output_in(POLL_S[0] if any(grown) else min(self._pause * 1.5, POLL_S[1]))

    def _grown(self, live: _Live) -> bool:
        grown = False
        for channel, before in live.sizes.items():
            size = live.folder.size(channel)
            if size > before:
                live.sizes[channel] = size
                grown = True
                self._observer.grown(live.run, channel, size)
        return grown

    # Ending.

    def _over(self, live: _Live) -> None:
        """The shim is gone: report the end it wrote down, or end what it left behind without one."""
        if self._runs.get(live.run) is not live:
            return
        self._unwatch(live)
        code = live.folder.exit_code
        left = [] if code is not None else {*live.fence.pids(), *_marked(live.run)} - {os.getpid()}
        if left:
            live.fence.kill()
            shim.send(list(left), signal.SIGKILL)
            self._loop.call_later(ROUND_S, self._over, live)
            return
        self._look_for_start(live, ROUND_S)
        self._grown(live)
        del self._runs[live.run]
        message = self._story(live, code)
        self._remove_fence(live.fence, _REMOVALS)
        out, err = (live.folder.size(channel) for channel in CHANNELS)
        self._observer.observed(RuntimeExited(live.run, code, out, err, message))

    def _story(self, live: _Live, code: int | None) -> str:
        if code is None:
            identity = live.folder.identity
            if identity is None:
                return "the agent ended before the run's process existed"
            if identity.boot != shim.boot_id():
                return "the machine restarted under the run; its exit code is not known"
            return "the run's supervisor was killed; what was left of the run was ended, its exit code is not known"
        if code == 128 + signal.SIGKILL and live.fence.out_of_memory():
            return "the kernel ended it: it used more memory than its slots hold"
        return ""

    def _kill_round(self, live: _Live) -> None:
        if self._runs.get(live.run) is not live:
            return
        live.fence.kill()
        shim.send(self._pids(live), signal.SIGKILL)
        self._loop.call_later(ROUND_S, self._kill_round, live)

    # Small parts.

    def _folder(self, run: str) -> Folder:
        split_run_id(run)  # a run id is a folder's name: nothing else may be
        if "/" in run:
            raise ValueError(f"{run!r} is not a run id")
        if run not in self._folders:
            self._folders[run] = Folder(self._directory / run)
        return self._folders[run]

    def _pids(self, live: _Live) -> list[int]:
        below = shim.descendants(live.shim) if live.shim else []
        return list(dict.fromkeys([*below, *live.fence.pids()]))

    def _address(self, run: str, port: int) -> str | None:
        live = self._runs.get(run)
        if live is None:
            return None
        # The fence first: for the family every process of the machine is looked at.
        return sockets.listener(live.fence.pids(), port) or sockets.listener(self._pids(live), port)

    def _remove_fence(self, fence: Fence, tries: int) -> None:
        """Remove a run's cgroups; the kernel may hold them for a moment after the last process."""
        if not fence.remove() and tries and not self._loop.is_closed():
            self._loop.call_later(ROUND_S, self._remove_fence, fence, tries - 1)

    def _remove(self, path: Path) -> None:
        """Delete a folder by a process of its own: a big one must not hold up the link."""
        pid = os.posix_spawnp("rm", ["rm", "-rf", "--", str(path)], {"PATH": _BASE_PATH})
        self._reap(pid)

    def _reap(self, pid: int) -> None:
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(pid, os.WNOHANG) == (0, 0) and not self._loop.is_closed():
                self._loop.call_later(ROUND_S, self._reap, pid)


def environment(
    run: str, spec: SessionSpec, given: Mapping[str, str], apps: Mapping[str, int], gpus: Sequence[str]
) -> dict[str, str]:
    """Return a run's environment: a clean base, the spec's, then Atoll's own, which nothing overrides."""
    session, _attempt, rank = split_run_id(run)
    env = {
        "PATH": os.environ.get("PATH", _BASE_PATH),
        "HOME": os.environ.get("HOME", "/"),
        "LANG": os.environ.get("LANG", "C.UTF-8"),
        "USER": os.environ.get("USER", "") or str(os.getuid()),
        **spec.env,
        **given,
        "ATOLL_SESSION": session,
        "ATOLL_RUN": run,
        "ATOLL_RANK": str(rank),
        "ATOLL_NODES": str(spec.nodes),
        "CUDA_VISIBLE_DEVICES": ",".join(gpus),
    }
    for name, port in apps.items():
        env[f"ATOLL_APP_{name.upper().replace('-', '_')}_PORT"] = str(port)
    return env


def _start_shim(folder: Path, env: Mapping[str, str]) -> int:
    argv = [sys.executable, "-I", "-S", shim.__file__, str(folder)]
    append = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, str(folder / "in"), os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(folder / "out"), append, 0o600),
        (os.POSIX_SPAWN_OPEN, 2, str(folder / "err"), append, 0o600),
    ]
    return os.posix_spawn(argv[0], argv, dict(env), file_actions=actions, setsigmask=[])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _handles(pid: int, number: int) -> bool:
    """Say whether a process catches a signal, or blocks it to take it up later, so that it is not ended by it.

    One that is inside `sigwait` looks as if it did neither: the kernel shows it so.
    """
    status = ""
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text()
    masks = dict(line.split(":", 1) for line in status.splitlines() if line.startswith(("SigBlk", "SigCgt")))
    return any(int(mask, 16) >> (number - 1) & 1 for mask in masks.values())


def _marked(run: str) -> set[int]:
    """Return the processes that carry the run's id in their environment: its own, wherever they went."""
    mark = f"ATOLL_RUN={run}".encode()
    found = set()
    for path in Path("/proc").iterdir():
        if path.name.isdecimal():
            with contextlib.suppress(OSError):
                if mark in (path / "environ").read_bytes().split(b"\0") and shim.start_time(path.name):
                    found.add(int(path.name))
    return found
