"""A deterministic asyncio loop on virtual time: no selector, no threads, no sockets; one seed, one run.

Which of the callbacks that are ready runs next is drawn from the seed, so that seeds explore
interleavings. Callbacks belong to *hosts* (simulated processes): a host has a clock rate of its own, and
once it is dead none of its callbacks ever runs again, which is what SIGKILL does to a process.
"""

import asyncio
import contextlib
import contextvars
import heapq
import math
import random
import warnings
from asyncio import events
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

BEGIN = 1000.0
"""What every clock of the loop shows when a run begins."""

Result = TypeVar("Result")


class Crash(BaseException):
    """Unwinds the code that is running at the moment its host dies. Not an `Exception`: nothing may handle it."""


class Host:
    """A simulated process: everything it schedules carries it in its context, and dies with it.

    `rate` is how fast its machine's clock runs; all its clocks and timers follow it. Two processes of one
    machine, made with the same rate, read the same clock.
    """

    def __init__(self, loop: "SimLoop", name: str, rate: float = 1.0) -> None:
        self.name = name
        self.rate = rate
        self.dead = False
        self._loop = loop
        self._context = contextvars.copy_context()
        self._context.run(_host.set, self)

    def time(self, true: float) -> float:
        """Return the host's reading of the true time."""
        return BEGIN + (true - BEGIN) * self.rate

    def true(self, reading: float) -> float:
        """Return the first true time at which the host's clock shows `reading`: a timer is never early."""
        true = BEGIN + (reading - BEGIN) / self.rate
        while self.time(true) < reading:
            true = math.nextafter(true, math.inf)
        return true

    def spawn(self, work: Coroutine[Any, Any, Result], name: str) -> "asyncio.Task[Result]":
        """Start a task of this host."""
        return self._loop.create_task(work, name=name, context=self._context.copy())

    def call(self, function: Callable[..., Result], *args: Any) -> Result:
        """Call a function as this host: tasks and timers it makes are the host's."""
        return self._context.copy().run(function, *args)

    def kill(self) -> None:
        """Let nothing of it run any more. Code that is running as this host must raise `Crash` itself."""
        self.dead = True


_host: contextvars.ContextVar[Host | None] = contextvars.ContextVar("host", default=None)


class SimTask(asyncio.Task[Any]):
    """A task with a stable hash: sets of tasks (`TaskGroup`, `asyncio.wait`) then iterate in one order."""

    def __init__(self, work: Coroutine[Any, Any, Any], *, number: int, **how: Any) -> None:
        self._number = number
        super().__init__(work, **how)

    def __hash__(self) -> int:
        return self._number


class SimLoop(asyncio.AbstractEventLoop):
    """The loop. `steps` counts callbacks, `errors` collects what nobody handled: a run with any has failed."""

    def __init__(self, seed: int | str) -> None:
        self.true_time = BEGIN
        self.steps = 0
        self.errors: list[dict[str, Any]] = []
        self._random = random.Random(f"loop {seed}")
        self._ready: list[events.Handle] = []
        self._timers: list[tuple[float, int, events.TimerHandle]] = []
        self._timer_count = 0
        self._tasks: list[SimTask] = []
        self._stopping = False
        self._closed = False

    # -- what asyncio asks of a loop ----------------------------------------------------------------------

    def time(self) -> float:
        """Return the time that the running host's clock shows."""
        host = _host.get()
        return host.time(self.true_time) if host else self.true_time

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> events.Handle:
        """Make a callback ready."""
        handle = events.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> events.Handle:
        """Make a callback ready; there are no threads."""
        return self.call_soon(callback, *args, context=context)

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> events.TimerHandle:
        """Make a callback ready after `delay` seconds of the running host's clock."""
        return self.call_at(self.time() + max(0.0, delay), callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> events.TimerHandle:
        """Make a callback ready when the running host's clock shows `when`."""
        host = _host.get()
        handle = events.TimerHandle(when, callback, args, self, context)
        self._timer_count += 1
        heapq.heappush(self._timers, (host.true(when) if host else when, self._timer_count, handle))
        return handle

    def create_future(self) -> "asyncio.Future[Any]":
        """Return a future of this loop."""
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Generator[Any, None, Result] | Coroutine[Any, Any, Result],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
    ) -> "asyncio.Task[Result]":
        """Start a task, numbered in order of creation."""
        assert asyncio.iscoroutine(coro)
        number = len(self._tasks) + 1
        task = SimTask(coro, number=number, loop=self, name=name or f"task {number}", context=context)
        self._tasks.append(task)
        return task

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep what nobody handled; a crash of a host is no error."""
        if not isinstance(context.get("exception"), Crash):
            self.errors.append(context)

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep it too."""
        self.call_exception_handler(context)

    def get_debug(self) -> bool:
        """Debug mode measures real time: off."""
        return False

    def is_running(self) -> bool:
        """Say whether callbacks are being run."""
        return events._get_running_loop() is self

    def is_closed(self) -> bool:
        """Say whether the loop is over."""
        return self._closed

    def stop(self) -> None:
        """Stop after the current callback."""
        self._stopping = True

    async def shutdown_asyncgens(self) -> None:
        """Nothing to do: generators end with their tasks."""

    def _timer_handle_cancelled(self, handle: events.TimerHandle) -> None:
        """A cancelled timer is dropped when its time comes."""

    # -- running ------------------------------------------------------------------------------------------

    def run(self, main: Coroutine[Any, Any, Result], *, until: float) -> Result:
        """Run `main` to its end; raise `TimeoutError` when `until` virtual seconds were not enough for it."""
        events._set_running_loop(self)
        try:
            task = self.create_task(main, name="main")
            task.add_done_callback(lambda _: self.stop())
            self._stopping = False
            while not self._stopping:
                if self._ready:
                    self._run_one()
                elif not self._timers:
                    raise RuntimeError("deadlock: nothing is ready and no timer is set")
                else:
                    self._advance(BEGIN + until)
            return task.result()
        finally:
            events._set_running_loop(None)

    def _run_one(self) -> None:
        ready = self._ready
        chosen = int(self._random.random() * len(ready)) if len(ready) > 1 else 0
        handle = ready[chosen]
        ready[chosen] = ready[-1]
        ready.pop()
        if not handle.cancelled() and not _dead(handle):
            self.steps += 1
            handle._run()

    def _advance(self, end: float) -> None:
        self.true_time = max(self.true_time, self._timers[0][0])
        if self.true_time > end:
            raise TimeoutError(f"not done after {end - BEGIN:g} virtual seconds")
        while self._timers and self._timers[0][0] <= self.true_time:
            handle = heapq.heappop(self._timers)[2]
            if not handle.cancelled():
                self._ready.append(handle)

    def close(self) -> None:
        """End every task that is still pending, without running anything else of it."""
        self._closed = True
        self._ready.clear()
        self._timers.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a task may die before its coroutine's first step
            self._close_tasks()
        self._tasks.clear()

    def _close_tasks(self) -> None:
        for task in self._tasks:
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                _close(task.get_coro())
            elif getattr(task, "_log_traceback", False):  # failed, and nobody ever asked
                self.call_exception_handler({"message": f"{task.get_name()} failed", "exception": task.exception()})


def _dead(handle: events.Handle) -> bool:
    host = handle._context.get(_host)  # type: ignore[attr-defined]
    return host is not None and host.dead


def _close(work: Any) -> None:
    """Close a coroutine; one that awaits in its clean-up is closed again until it gives in."""
    for _ in range(100):
        with contextlib.suppress(RuntimeError):
            work.close()
            return


def run(seed: int | str, main: Callable[[SimLoop], Coroutine[Any, Any, Result]], *, until: float) -> Result:
    """Run `main(loop)` on a fresh loop for at most `until` virtual seconds; raise what no task handled, if anything."""
    loop = SimLoop(seed)  # type: ignore[abstract]
    try:
        result = loop.run(main(loop), until=until)
    finally:
        loop.close()
    if loop.errors:
        first = loop.errors[0]
        raise AssertionError(f"{len(loop.errors)} unhandled: {first.get('message')}") from first.get("exception")
    return result
