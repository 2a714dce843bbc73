"""How an agent starts, watches and ends the processes of runs: the port that each runtime implements."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from agent.events import RuntimeExited, RuntimeStarted, StartFailed
from atoll.session import SessionSpec
from atoll.slots import Slots


class Observer(Protocol):
    """Who is told what happens to runs. Calls come from the event loop, never from a thread."""

    def observed(self, event: RuntimeStarted | RuntimeExited | StartFailed, /) -> None:
        """A run changed. `RuntimeExited` comes once, when no process of its tree is left."""

    def grown(self, run: str, channel: str, size: int, /) -> None:
        """A channel (`out` or `err`) of a run now holds `size` bytes."""


class Guest(Protocol):
    """A process that a user started beside a run: a part of it, and ended with it."""

    async def ended(self) -> int:
        """Return its exit code, or the signal that ended it as a negative number. To be called once."""
        ...

    def signal(self, number: int, /) -> None:
        """Send its process group a signal. Well if it is over."""
        ...

    def leave(self) -> None:
        """Want it no more: it is ended if it still lives; what it left in the background stays with the run."""
        ...


class Runtime(Protocol):
    """A way to run sessions on this machine. No method blocks for long; what takes time is observed."""

    def attach(self, observer: Observer) -> None:
        """Tell `observer` from now on. Called once, inside the running loop, before anything else."""
        ...

    def spawn(
        self,
        run: str,
        spec: SessionSpec,
        slots: Slots,
        env: Mapping[str, str],
        gpus: Sequence[str] = (),
        until: float | None = None,
    ) -> None:
        """Start a run. Answered by `RuntimeStarted` and later `RuntimeExited`, or by `StartFailed`.

        `env` is set on top of the spec's; `gpus` are the only devices it may see, by UUID. Past `until` (monotonic
        time; None: never) its whole tree is ended with KILL, whether an agent is there or not.
        """
        ...

    def keep(self, run: str, until: float) -> None:
        """Put off the end of a run that was started with one. Well if it is over or unknown."""
        ...

    def adopt(self, runs: Sequence[str]) -> None:
        """Take over runs that an earlier process of this agent started: each is observed as if started here.

        One whose end was missed is observed as exited with its true exit code; one that cannot be found
        is ended, whatever is left of it, and observed as exited with exit code None (I14).
        """
        ...

    def signal(self, run: str, name: str) -> str:
        """Send the run's main process, and only that, the signal `name` (without SIG); return "" once it is sent.

        It is sent only to a process that catches or blocks it: one that would be ended by it is left alone, and the
        answer says why.
        """
        ...

    def terminate(self, run: str) -> None:
        """Send TERM to every process of the run. Well if it is over or unknown."""
        ...

    def kill(self, run: str) -> None:
        """Send KILL to the whole tree, again and again until nothing is left. Well if it is over or unknown."""
        ...

    def read_log(self, run: str, channel: str, offset: int, limit: int) -> bytes:
        """Return up to `limit` bytes of output from `offset` on; empty where there is none."""
        ...

    def log_size(self, run: str, channel: str) -> int:
        """Return the offset after the last byte of a channel."""
        ...

    def log_base(self, run: str, channel: str) -> int:
        """Return the lowest offset that can still be read: what is below was freed."""
        ...

    def free_log(self, run: str, channel: str, below: int) -> None:
        """Give back the disk space of output below an offset; offsets do not change."""
        ...

    def listens(self, run: str, port: int) -> bool:
        """Say whether a process of that very run listens on TCP `port`."""
        ...

    async def connect(self, run: str, port: int, make: Callable[[], asyncio.Protocol]) -> None:
        """Connect `make()` to a port that the run listens on; raises `OSError` when that fails."""
        ...

    async def enter(
        self, run: str, argv: Sequence[str], env: Mapping[str, str], descriptors: Sequence[int], *, tty: bool
    ) -> Guest:
        """Start a guest of a run: same user, directory, cgroups and environment, with `env` on top.

        `descriptors` become its input, output and errors (the caller closes its own); with `tty` they are a
        terminal, which becomes the guest's own. Raises `OSError`, with a sentence where there is more to say.
        """
        ...

    def forget(self, run: str) -> None:
        """Remove everything kept of a run that is over: output, directory."""
        ...
