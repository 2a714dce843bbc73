"""A slow cloud holds up nobody (L2), and is heard when it answers."""

import asyncio

from federation.control.patience import Patience


async def test_the_slow_one_is_left_behind_and_told_of_when_it_is_done() -> None:
    patience, gate = Patience(0.05), asyncio.Event()
    done: list[str] = []
    told: list[int] = []
    patience.on_late = lambda: told.append(len(done))

    async def slow() -> None:
        await gate.wait()
        done.append("slow")

    async def quick() -> None:
        done.append("quick")

    assert await patience.wait({"slow": slow, "quick": quick}) == {"slow"}
    assert done == ["quick"]
    assert await patience.wait({"slow": slow, "quick": quick}) == {"slow"}
    gate.set()
    await asyncio.sleep(0.01)
    assert sorted(done) == ["quick", "quick", "slow"], "what is under way is not begun twice"
    assert told == [3]
    assert await patience.wait({"slow": slow}) == set()


async def test_a_failure_is_not_the_callers() -> None:
    async def bad() -> None:
        raise RuntimeError("no")

    assert await Patience(1.0).wait({"bad": bad}) == set()


async def test_close_cancels() -> None:
    patience = Patience(0.01)
    began = asyncio.Event()

    async def endless() -> None:
        began.set()
        await asyncio.Event().wait()

    assert await patience.wait({"endless": endless}) == {"endless"}
    assert began.is_set()
    await patience.close()
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "ask endless"]
