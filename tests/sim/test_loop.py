"""The virtual-time loop: asyncio's own tools work on it, and one seed gives one run."""

import asyncio
import hashlib

import pytest

from tests.sim.loop import BEGIN, Crash, Host, SimLoop, run


def trace(seed: int) -> list[str]:
    """A tangle of tasks over every tool the shells use; returns who did what in which order."""
    seen: list[str] = []

    async def worker(name: str, queue: "asyncio.Queue[int]", gate: asyncio.Event) -> None:
        await gate.wait()
        while True:
            item = await queue.get()
            seen.append(f"{name} {item} {asyncio.get_running_loop().time() - BEGIN:.3f}")
            if item < 0:
                return
            await asyncio.sleep(item / 10)

    async def main(loop: SimLoop) -> list[str]:
        queue: asyncio.Queue[int] = asyncio.Queue()
        gate = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for name in "abcde":
                group.create_task(worker(name, queue, gate))
            for item in range(20):
                queue.put_nowait(item % 4)
            gate.set()
            for _ in "abcde":
                queue.put_nowait(-1)
        done, _ = await asyncio.wait([asyncio.ensure_future(asyncio.sleep(n / 7)) for n in range(5)])
        seen.append(str(len(done)))
        return seen

    return run(seed, main, until=1000)


def test_one_seed_one_trace() -> None:
    digests = {hashlib.sha256("\n".join(trace(7)).encode()).hexdigest() for _ in range(30)}
    assert len(digests) == 1


def test_seeds_differ() -> None:
    assert len({"\n".join(trace(seed)) for seed in range(10)}) > 1


def test_timeouts_and_time() -> None:
    async def main(loop: SimLoop) -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3600):
                await asyncio.Event().wait()
        return loop.time() - BEGIN

    assert run(1, main, until=10_000) == pytest.approx(3600)


def test_uncaught_task_error_fails_the_run() -> None:
    async def broken() -> None:
        raise ValueError("nobody asks for it")

    async def main(loop: SimLoop) -> None:
        task = asyncio.ensure_future(broken())
        await asyncio.sleep(1)
        del task

    with pytest.raises(AssertionError, match="unhandled"):
        run(1, main, until=10)


def test_deadlock_and_deadline_are_errors() -> None:
    async def stuck(loop: SimLoop) -> None:
        await asyncio.Event().wait()

    async def slow(loop: SimLoop) -> None:
        await asyncio.sleep(100)

    with pytest.raises(RuntimeError, match="deadlock"):
        run(1, stuck, until=10)
    with pytest.raises(TimeoutError):
        run(1, slow, until=10)


def test_host_clocks_run_at_their_rate() -> None:
    async def nap(loop: SimLoop) -> tuple[float, float]:
        begun, true = loop.time(), loop.true_time
        await asyncio.sleep(100)
        return loop.time() - begun, loop.true_time - true

    async def main(loop: SimLoop) -> tuple[float, float]:
        await asyncio.sleep(50)
        return await Host(loop, "fast", 1.05).spawn(nap(loop), "nap")

    own, true = run(1, main, until=1000)
    assert own == pytest.approx(100)
    assert true == pytest.approx(100 / 1.05)


def test_killed_host_runs_nothing_more() -> None:
    seen: list[str] = []

    async def life(host: Host) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(beat())
                await asyncio.sleep(10)
                seen.append("crash")
                host.kill()
                raise Crash
        finally:
            await asyncio.sleep(0)
            seen.append("cleaned up")

    async def beat() -> None:
        while True:
            await asyncio.sleep(1)
            seen.append("beat")

    async def main(loop: SimLoop) -> None:
        host = Host(loop, "h")
        host.spawn(life(host), "life")
        await asyncio.sleep(100)

    run(3, main, until=1000)
    assert seen.count("crash") == 1
    assert seen.count("beat") in (9, 10)
    assert "cleaned up" not in seen
