"""The process runtime for real: exit codes, signals, trees, limits, output and re-adoption."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from agent.events import RuntimeExited, RuntimeStarted, StartFailed
from agent.runtime import shim
from agent.runtime.cgroup import Fences
from agent.runtime.process import ProcessRuntime, _handles
from atoll.session import SessionSpec
from atoll.slots import MIB, Slots

SESSION = f"s-{os.getpid():010d}"  # its own: what is left of a run is found by its id, machine-wide
RUN = f"{SESSION}.1.0"


class Watcher:
    """An observer that keeps everything it is told."""

    def __init__(self) -> None:
        self.events: list[RuntimeStarted | RuntimeExited | StartFailed] = []
        self.sizes: dict[tuple[str, str], int] = {}

    def observed(self, event: RuntimeStarted | RuntimeExited | StartFailed, /) -> None:
        self.events.append(event)

    def grown(self, run: str, channel: str, size: int, /) -> None:
        self.sizes[run, channel] = size

    async def until(self, what: Callable[[], bool], within: float = 60.0) -> None:
        async with asyncio.timeout(within):
            while not what():
                await asyncio.sleep(0.01)

    async def exited(self, run: str = RUN) -> RuntimeExited:
        await self.until(lambda: any(isinstance(e, RuntimeExited) and e.run == run for e in self.events))
        found = [e for e in self.events if isinstance(e, RuntimeExited) and e.run == run]
        assert len(found) == 1
        return found[0]

    async def started(self, run: str = RUN) -> RuntimeStarted:
        await self.until(lambda: any(isinstance(e, RuntimeStarted) and e.run == run for e in self.events))
        return next(e for e in self.events if isinstance(e, RuntimeStarted) and e.run == run)


class Rig:
    """A runtime in a folder of its own; `again` is the next process of the agent over the same folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.watcher = Watcher()
        self.runtime = ProcessRuntime(folder, None)
        self.runtime.attach(self.watcher)

    def again(self) -> "Rig":
        self.runtime.close()
        return Rig(self.folder)

    def start(self, *command: str, run: str = RUN, **more: object) -> None:
        self.runtime.spawn(run, SessionSpec(command=command, **more), Slots(), {})  # type: ignore[arg-type]

    def read(self, channel: str = "out", run: str = RUN) -> str:
        return self.runtime.read_log(run, channel, 0, 1 << 20).decode()


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    rig = Rig(tmp_path / "sessions")
    yield rig
    for run in list(rig.runtime._runs):
        rig.runtime.kill(run)
    await rig.watcher.until(lambda: not rig.runtime._runs)
    rig.runtime.close()


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("true",), 0),
        (("sh", "-c", "exit 7"), 7),
        (("sh", "-c", "kill -KILL $$"), 128 + signal.SIGKILL),
        (("sh", "-c", "kill -SEGV $$"), 128 + signal.SIGSEGV),
        (("no-such-command",), 127),
        (("/etc/passwd",), 126),
    ],
)
async def test_exit_codes_are_true(rig: Rig, command: tuple[str, ...], code: int) -> None:
    rig.start(*command)
    exited = await rig.watcher.exited()
    assert exited.exit_code == code
    assert exited.err == len(rig.read("err"))
    if code in (126, 127):
        assert rig.read("err").startswith(f"atoll: cannot run {command[0]}: ")


async def test_a_run_whose_lease_is_over_ends_without_any_agent(rig: Rig) -> None:
    """Its shim does it: the whole tree, whatever it ignores."""
    script = "trap '' TERM; (sleep 60) & sleep 60"
    spec = SessionSpec(command=("sh", "-c", script))
    first = time.monotonic() + 4.0
    rig.runtime.spawn(RUN, spec, Slots(), {}, until=first)
    await rig.watcher.started()
    rig.runtime.keep(RUN, first + 4.0)
    rig.runtime.close()
    pid = rig.runtime._folder(RUN).identity
    assert pid is not None
    await asyncio.sleep(first + 1.0 - time.monotonic())
    assert pid.running
    await rig.watcher.until(lambda: not pid.alive)
    again = Rig(rig.folder)
    again.runtime.adopt([RUN])
    assert (await again.watcher.exited()).exit_code == 137
    assert shim.descendants(pid.shim) == []


async def test_a_run_without_a_lease_has_none(rig: Rig) -> None:
    rig.start("sh", "-c", "sleep 2; grep SigBlk /proc/self/status; exit 4")
    assert (await rig.watcher.exited()).exit_code == 4
    assert rig.read().split() == ["SigBlk:", "0" * 16]


async def test_a_broken_pipe_ends_a_process_as_in_any_shell(rig: Rig) -> None:
    rig.start("sh", "-c", "yes | head -1; exit 0")
    assert (await rig.watcher.exited()).exit_code == 0
    assert rig.read() == "y\n"
    assert rig.read("err") == ""


async def test_output_stdin_environment_and_fresh_workdir(rig: Rig, tmp_path: Path) -> None:
    script = "cat; echo $GREETING-$ATOLL_SESSION-$ATOLL_RANK-$ATOLL_NODES; touch here; ls; echo bad >&2"
    rig.start("sh", "-c", script, stdin="from stdin\n", env={"GREETING": "hi", "ATOLL_RANK": "9"}, nodes=2)
    exited = await rig.watcher.exited()
    assert rig.read() == f"from stdin\nhi-{SESSION}-0-2\nhere\n"
    assert rig.read("err") == "bad\n"
    assert (exited.out, exited.err) == (rig.runtime.log_size(RUN, "out"), 4)
    assert rig.watcher.sizes[RUN, "out"] == exited.out


async def test_the_environment_is_clean(rig: Rig) -> None:
    os.environ["ATOLL_TEST_SECRET"] = "leaked"
    try:
        rig.start("env")
        await rig.watcher.exited()
    finally:
        del os.environ["ATOLL_TEST_SECRET"]
    names = {line.partition("=")[0] for line in rig.read().splitlines()}
    assert names == {
        *("PATH", "HOME", "LANG", "USER", "CUDA_VISIBLE_DEVICES"),
        *("ATOLL_SESSION", "ATOLL_RUN", "ATOLL_RANK", "ATOLL_NODES"),
    }


async def test_only_rank_0_gets_stdin(rig: Rig) -> None:
    run = f"{SESSION}.1.1"
    rig.start("cat", run=run, stdin="for rank 0")
    await rig.watcher.exited(run)
    assert rig.read(run=run) == ""


async def test_the_workdir_is_used_and_must_exist(rig: Rig, tmp_path: Path) -> None:
    rig.start("pwd", workdir=str(tmp_path))
    await rig.watcher.exited()
    assert rig.read() == f"{tmp_path}\n"
    run = f"{SESSION}.1.1"
    rig.start("pwd", run=run, workdir=str(tmp_path / "none"))
    await rig.watcher.until(lambda: any(isinstance(e, StartFailed) for e in rig.watcher.events))
    failed = next(e for e in rig.watcher.events if isinstance(e, StartFailed))
    assert failed.run == run
    assert "does not exist on this machine" in failed.message


async def test_gpus_are_visible_by_uuid_only_when_given(rig: Rig) -> None:
    rig.runtime.spawn(
        RUN, SessionSpec(command=("sh", "-c", "echo $CUDA_VISIBLE_DEVICES")), Slots(), {}, ("GPU-a", "GPU-b")
    )
    await rig.watcher.exited()
    assert rig.read() == "GPU-a,GPU-b\n"


async def test_term_reaches_the_tree_and_the_code_is_kept(rig: Rig) -> None:
    rig.start("sh", "-c", "trap 'echo got; exit 3' TERM; echo up; sleep 100 & wait")
    await rig.watcher.until(lambda: rig.read() == "up\n")
    rig.runtime.terminate(RUN)
    assert (await rig.watcher.exited()).exit_code == 3
    assert rig.read() == "up\ngot\n"


async def test_kill_ends_a_whole_tree_with_a_setsid_escapee(rig: Rig, tmp_path: Path) -> None:
    escapee = tmp_path / "escapee"
    script = f"trap '' TERM; setsid sh -c 'trap \"\" TERM; echo $$ > {escapee}; sleep 100' & sleep 100; sleep 100"
    rig.start("sh", "-c", script)
    await rig.watcher.until(lambda: escapee.exists() and escapee.read_text().endswith("\n"))
    rig.runtime.terminate(RUN)
    rig.runtime.kill(RUN)
    exited = await rig.watcher.exited()
    assert exited.exit_code == 128 + signal.SIGKILL
    assert shim.start_time(escapee.read_text().strip()) == ""


async def test_what_outlives_the_main_process_is_ended(rig: Rig, tmp_path: Path) -> None:
    left = tmp_path / "left"
    rig.start("sh", "-c", f"setsid sh -c 'echo $$ > {left}; sleep 100' & while ! [ -s {left} ]; do :; done; exit 5")
    assert (await rig.watcher.exited()).exit_code == 5
    assert shim.start_time(left.read_text().strip()) == ""


async def test_an_app_gets_a_free_port_and_only_its_own_run_is_listened_for(rig: Rig) -> None:
    server = (
        "import os, socket; s = socket.socket(); s.bind(('127.0.0.1', int(os.environ['ATOLL_APP_MY_WEB_PORT'])));"
        "s.listen(); print('up', flush=True); c, _ = s.accept(); c.sendall(b'hello'); c.close()"
    )
    other = f"{SESSION}.1.1"
    rig.start("sleep", "100", run=other)
    rig.start(sys.executable, "-c", server, apps={"my-web": 0})
    started = await rig.watcher.started()
    port = started.apps["my-web"]
    await rig.watcher.until(lambda: rig.read() == "up\n")
    await rig.watcher.started(other)
    assert rig.runtime.listens(RUN, port)
    assert not rig.runtime.listens(other, port)
    assert not rig.runtime.listens(f"{SESSION}.9.9", port)
    with pytest.raises(ConnectionRefusedError):
        await rig.runtime.connect(other, port, asyncio.Protocol)
    got = bytearray()

    class Client(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            got.extend(data)

    await rig.runtime.connect(RUN, port, Client)
    await rig.watcher.until(lambda: got == b"hello")
    rig.runtime.kill(other)
    await rig.watcher.exited(other)


async def test_freed_output_keeps_its_offsets_and_gives_its_space_back(rig: Rig) -> None:
    rig.start("sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' x; echo; echo end")
    exited = await rig.watcher.exited()
    out = rig.folder / RUN / "out"
    before = out.stat().st_blocks
    rig.runtime.free_log(RUN, "out", 900_000)
    assert rig.runtime.log_base(RUN, "out") == 900_000 // 4096 * 4096
    assert rig.runtime.log_size(RUN, "out") == exited.out
    assert rig.runtime.read_log(RUN, "out", exited.out - 5, 100) == b"\nend\n"
    assert rig.runtime.read_log(RUN, "out", 900_000, 10) == b"x" * 10
    assert out.stat().st_blocks < before / 2
    assert rig.again().runtime.log_base(RUN, "out") == 900_000 // 4096 * 4096


async def test_a_full_disk_costs_no_exit_code(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", disk], capture_output=True).returncode:
        pytest.skip("needs root: mounts a small file system")
    try:
        rig = Rig(disk / "sessions")
        rig.start("sh", "-c", "head -c 1000000 /dev/zero; echo full >&2; exit 6")
        exited = await rig.watcher.exited()
        assert exited.exit_code == 6
        assert exited.out > 0
        assert not (disk / "more").exists()
        with pytest.raises(OSError, match="No space left"):
            (disk / "more").write_bytes(b"x" * 100_000)
        rig.runtime.close()
    finally:
        subprocess.run(["umount", disk], check=True)


async def test_forget_removes_the_folder(rig: Rig) -> None:
    rig.start("true")
    await rig.watcher.exited()
    rig.runtime.forget(RUN)
    await rig.watcher.until(lambda: not any(rig.folder.iterdir()))
    assert rig.runtime.log_size(RUN, "out") == 0


AGENT = """
import asyncio, sys
from pathlib import Path
from agent.runtime.process import ProcessRuntime, _handles
from atoll.session import SessionSpec
from atoll.slots import Slots

class Deaf:
    def observed(self, event): print("started", flush=True)
    def grown(self, *args): pass

async def main():
    runtime = ProcessRuntime(Path(sys.argv[1]), None)
    runtime.attach(Deaf())
    runtime.spawn(sys.argv[2], SessionSpec(command=tuple(sys.argv[3:])), Slots(), {})
    await asyncio.sleep(100)

asyncio.run(main())
"""


def killed_agent(folder: Path, *command: str) -> None:
    """Start a run by an agent-like process and kill that with SIGKILL once the run has started."""
    agent = subprocess.Popen(
        [sys.executable, "-c", AGENT, str(folder), RUN, *command], stdout=subprocess.PIPE, cwd=Path.cwd()
    )
    assert agent.stdout is not None
    assert agent.stdout.readline() == b"started\n"
    agent.kill()
    agent.wait()
    agent.stdout.close()


async def test_a_run_is_adopted_after_sigkill_with_its_true_exit_code(tmp_path: Path) -> None:
    folder = tmp_path / "sessions"
    go = tmp_path / "go"
    killed_agent(folder, "sh", "-c", f"echo one; while ! [ -e {go} ]; do sleep 0.02; done; echo two; exit 9")
    rig = Rig(folder)
    rig.runtime.adopt([RUN])
    await rig.watcher.started()
    go.touch()
    exited = await rig.watcher.exited()
    assert (exited.exit_code, exited.message) == (9, "")
    assert rig.read() == "one\ntwo\n"
    rig.runtime.close()


async def test_a_run_that_ended_while_no_agent_lived_reports_its_code(tmp_path: Path) -> None:
    folder = tmp_path / "sessions"
    killed_agent(folder, "sh", "-c", "sleep 0.1; exit 4")
    rig = Rig(folder)
    await rig.watcher.until(lambda: (folder / RUN / "exit").exists())
    rig.runtime.adopt([RUN])
    assert (await rig.watcher.exited()).exit_code == 4
    rig.runtime.close()


async def test_a_lost_shim_is_said_and_its_leftovers_are_ended(tmp_path: Path) -> None:
    folder = tmp_path / "sessions"
    killed_agent(folder, "sh", "-c", "sleep 100")
    rig = Rig(folder)
    shim_pid, _, main_pid, *_ = (folder / RUN / "pid").read_text().split()
    os.kill(int(shim_pid), signal.SIGKILL)
    rig.runtime.adopt([RUN])
    exited = await rig.watcher.exited()
    assert exited.exit_code is None
    assert "supervisor was killed" in exited.message
    assert shim.start_time(main_pid) == ""
    rig.runtime.close()


async def test_a_shim_killed_while_watched_is_noticed(rig: Rig) -> None:
    rig.start("sleep", "100")
    await rig.watcher.started()
    os.kill(int((rig.folder / RUN / "pid").read_text().split()[0]), signal.SIGKILL)
    exited = await rig.watcher.exited()
    assert exited.exit_code is None


async def test_a_run_without_a_trace_is_reported_as_over(rig: Rig) -> None:
    rig.runtime.adopt([RUN])
    exited = await rig.watcher.exited()
    assert exited.exit_code is None
    assert exited.message == "the agent ended before the run's process existed"


async def test_another_boot_means_the_run_is_over(rig: Rig) -> None:
    (rig.folder / RUN).mkdir(parents=True)
    me = os.getpid()
    (rig.folder / RUN / "pid").write_text(f"{me} {shim.start_time(me)} {me} {shim.start_time(me)} another-boot")
    rig.runtime.adopt([RUN])
    assert "machine restarted" in (await rig.watcher.exited()).message


@pytest.mark.parametrize("run", ["../../etc.1.0", "no-run", "s-1.x.0"])
async def test_only_a_run_id_names_a_folder(rig: Rig, run: str) -> None:
    with pytest.raises(Exception, match="run id"):
        rig.runtime.read_log(run, "out", 0, 1)


def can_limit() -> bool:
    """Whether this machine lets us make cgroups."""
    fence = Fences("test-probe").make("s-probe.1.0", Slots(cpu=1000, memory=64 * MIB))
    fence.remove()
    return fence.text == "enforced"


@pytest.fixture
async def limited(tmp_path: Path) -> AsyncIterator[Rig]:
    if not can_limit():
        pytest.skip("needs root and cgroups that can be written")
    rig = Rig(tmp_path / "sessions")
    rig.runtime = ProcessRuntime(rig.folder, Fences(f"test-{os.getpid()}"))
    rig.runtime.attach(rig.watcher)
    yield rig
    rig.runtime.close()


async def test_the_memory_limit_holds_and_is_told(limited: Rig) -> None:
    hungry = SessionSpec(command=(sys.executable, "-c", "x = bytearray(300 * 1024 * 1024); print('had it')"))
    limited.runtime.spawn(RUN, hungry, Slots(cpu=1000, memory=64 * MIB), {})
    assert (await limited.watcher.started()).limits == "enforced"
    exited = await limited.watcher.exited()
    assert exited.exit_code == 128 + signal.SIGKILL
    assert "more memory than its slots hold" in exited.message
    assert limited.read() == ""


async def test_cgroups_are_gone_after_the_run(limited: Rig) -> None:
    limited.runtime.spawn(RUN, SessionSpec(command=("sleep", "100")), Slots(cpu=500, memory=64 * MIB), {})
    await limited.watcher.started()
    paths = limited.runtime._runs[RUN].fence.paths
    assert all(path.exists() for path in paths)
    limited.runtime.kill(RUN)
    await limited.watcher.exited()
    await limited.watcher.until(lambda: not any(path.exists() for path in paths))


SAVER = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGUSR1, lambda *_: (child.kill(), sys.exit(85)))
child = subprocess.Popen(["sleep", "60"])
print("ready", flush=True)
while True: time.sleep(60)
"""


async def test_a_signal_goes_to_the_main_process_alone(rig: Rig) -> None:
    rig.start(sys.executable, "-c", SAVER)
    await rig.watcher.until(lambda: rig.read() == "ready\n")
    assert rig.runtime.signal(RUN, "USR1") == ""
    assert (await rig.watcher.exited()).exit_code == 85
    assert rig.runtime.signal(RUN, "USR1") == "its main process is over"


async def test_the_next_agent_signals_too(rig: Rig) -> None:
    rig.start(sys.executable, "-c", SAVER)
    await rig.watcher.until(lambda: rig.read() == "ready\n")
    again = rig.again()
    again.runtime.adopt([RUN])
    await again.watcher.started()
    assert again.runtime.signal(RUN, "USR1") == ""
    assert (await again.watcher.exited()).exit_code == 85


@pytest.mark.parametrize("script", ["true", "trap '' USR1"])
async def test_a_signal_that_would_end_or_not_reach_the_process_is_not_sent(
    rig: Rig, script: str, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    os.mkfifo(go)
    rig.start("sh", "-c", f"{script}; read line < {go}; exit 3")
    await rig.watcher.started()
    main = rig.runtime._folder(RUN).identity
    # A shell blocks every signal while it forks, which takes long on a busy machine.
    await rig.watcher.until(lambda: main is not None and not _handles(main.main, signal.SIGUSR1))
    assert "does not handle USR1" in rig.runtime.signal(RUN, "USR1")
    assert rig.runtime.signal(RUN, "NONE") == "this machine knows no signal NONE"
    go.write_text("on\n")
    assert (await rig.watcher.exited()).exit_code == 3


async def test_a_process_that_keeps_the_signal_blocked_gets_it(rig: Rig) -> None:
    poll = """
import signal, time
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
print(1, flush=True)
while not signal.sigpending(): time.sleep(0.02)
raise SystemExit(85)
"""
    rig.start(sys.executable, "-c", poll)
    await rig.watcher.until(lambda: rig.read() == "1\n")
    assert rig.runtime.signal(RUN, "USR1") == ""
    assert (await rig.watcher.exited()).exit_code == 85
