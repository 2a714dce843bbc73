"""A machine's processes in memory: they outlive the agent's process, as real ones do, and end when told."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from agent.events import RuntimeExited, RuntimeStarted, StartFailed
from agent.logpump import CHANNELS
from agent.runtime.port import Guest, Observer
from atoll.session import SessionSpec
from atoll.slots import Slots


@dataclass
class Process:
    """One run's process: `alive` until it exits, is killed, or heeds TERM."""

    spec: SessionSpec
    env: Mapping[str, str]
    heeds_term: bool = True
    alive: bool = True
    handles: tuple[str, ...] = ("USR1",)
    signalled: list[str] = field(default_factory=list)
    exit_code: int | None = None
    output: dict[str, bytes] = field(default_factory=lambda: dict.fromkeys(CHANNELS, b""))
    base: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CHANNELS, 0))


class MemoryRuntime:
    """The agent's view of `processes`, which several runtimes (one a life of the agent) may share."""

    def __init__(self, processes: dict[str, Process] | None = None) -> None:
        self.processes = {} if processes is None else processes
        self.spawned: list[str] = []
        self.kept: dict[str, float] = {}
        self.broken = ""
        self.apps: dict[int, Callable[[], asyncio.Protocol]] = {}
        self._observer: Observer | None = None

    def attach(self, observer: Observer) -> None:
        self._observer = observer

    def detach(self) -> None:
        """The agent's process is gone."""
        self._observer = None

    def spawn(
        self,
        run: str,
        spec: SessionSpec,
        slots: Slots,
        env: Mapping[str, str],
        gpus: Sequence[str] = (),
        until: float | None = None,
    ) -> None:
        if self.broken:
            self._later(StartFailed(run, self.broken))
            return
        assert run not in self.processes, "started twice"
        self.spawned.append(run)
        self.processes[run] = Process(spec, env)
        if until is not None:
            self.keep(run, until)
        self._later(RuntimeStarted(run, "enforced", spec.apps))

    def keep(self, run: str, until: float) -> None:
        self.kept[run] = until

    def adopt(self, runs: Sequence[str]) -> None:
        for run in runs:
            process = self.processes.get(run)
            if process is None:
                self._later(RuntimeExited(run, None, message="no trace"))
            elif process.alive:
                self._later(RuntimeStarted(run, "enforced", process.spec.apps))
            else:
                self._later(self._end(run))

    def signal(self, run: str, name: str) -> str:
        process = self.processes.get(run)
        if process is None or not process.alive:
            return "its main process is over"
        if name not in process.handles:
            return f"it does not handle {name}"
        process.signalled.append(name)
        return ""

    def terminate(self, run: str) -> None:
        process = self.processes.get(run)
        if process is not None and process.heeds_term:
            self.exit(run, 143)

    def kill(self, run: str) -> None:
        self.exit(run, 137)

    def read_log(self, run: str, channel: str, offset: int, limit: int) -> bytes:
        process = self.processes.get(run)
        if process is None:
            return b""
        assert offset >= process.base[channel], "read what was freed"
        return process.output[channel][offset : offset + limit]

    def log_size(self, run: str, channel: str) -> int:
        process = self.processes.get(run)
        return len(process.output[channel]) if process else 0

    def log_base(self, run: str, channel: str) -> int:
        process = self.processes.get(run)
        return process.base[channel] if process else 0

    def free_log(self, run: str, channel: str, below: int) -> None:
        if run in self.processes:
            self.processes[run].base[channel] = below

    def listens(self, run: str, port: int) -> bool:
        return run in self.processes and self.processes[run].alive and port in self.apps

    async def connect(self, run: str, port: int, make: Callable[[], asyncio.Protocol]) -> None:
        if not self.listens(run, port):
            raise ConnectionRefusedError("connection refused")
        app, client = self.apps[port](), make()
        near, far = PipeTransport(client), PipeTransport(app)
        near.other, far.other = far, near
        app.connection_made(far)
        client.connection_made(near)

    async def enter(
        self, run: str, argv: Sequence[str], env: Mapping[str, str], descriptors: Sequence[int], *, tty: bool
    ) -> Guest:
        raise ProcessLookupError(0, "nobody enters a fake")

    def forget(self, run: str) -> None:
        self.processes.pop(run, None)

    # What a test does to a process.

    def write(self, run: str, data: bytes, channel: str = "out") -> None:
        """The process writes."""
        self.processes[run].output[channel] += data
        if self._observer is not None:
            self._observer.grown(run, channel, len(self.processes[run].output[channel]))

    def exit(self, run: str, code: int) -> None:
        """The process ends, if it has not."""
        process = self.processes.get(run)
        if process is not None and process.alive:
            process.alive = False
            process.exit_code = code
            self._later(self._end(run))

    def _end(self, run: str) -> RuntimeExited:
        process = self.processes[run]
        return RuntimeExited(run, process.exit_code, len(process.output["out"]), len(process.output["err"]))

    def _later(self, event: RuntimeStarted | RuntimeExited | StartFailed) -> None:
        asyncio.get_running_loop().call_soon(self._tell, event)

    def _tell(self, event: RuntimeStarted | RuntimeExited | StartFailed) -> None:
        if self._observer is not None:
            self._observer.observed(event)


class PipeTransport(asyncio.Transport):
    """One end of a pipe between two protocols of one loop."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._protocol = protocol
        self.other: PipeTransport
        self.paused = False
        self._held: list[bytes] = []
        self._closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        asyncio.get_running_loop().call_soon(self.other.arrive, bytes(data))

    def arrive(self, data: bytes) -> None:
        if self.paused:
            self._held.append(data)
        else:
            self._protocol.data_received(data)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        asyncio.get_running_loop().call_soon(self.other.ended)

    def ended(self) -> None:
        if not self._protocol.eof_received():
            self.close()

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False
        held, self._held = self._held, []
        for data in held:
            self.arrive(data)

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        for end in (self, self.other):
            if not end._closing:
                end._closing = True
                asyncio.get_running_loop().call_soon(end._protocol.connection_lost, None)

    def abort(self) -> None:
        self.close()
