"""The bus of one process: hints that wake whoever waits."""

import asyncio
import gc

from federation.store.bus import LocalBus


async def test_hints_wake_all_waiters_of_the_topic_and_many_become_one() -> None:
    bus = LocalBus()
    first, second, other = bus.subscribe("events"), bus.subscribe("events"), bus.subscribe("log:x")
    bus.publish("events")
    bus.publish("events")
    await asyncio.wait_for(anext(first), 30)
    await asyncio.wait_for(anext(second), 30)
    waiting = asyncio.ensure_future(anext(first))
    unheard = asyncio.ensure_future(anext(other))
    await asyncio.sleep(0)
    assert not waiting.done()
    bus.publish("events")
    await asyncio.wait_for(waiting, 30)
    assert not unheard.done()
    unheard.cancel()
    await asyncio.gather(unheard, return_exceptions=True)


async def test_a_hint_between_two_waits_is_not_lost() -> None:
    bus = LocalBus()
    heard = 0

    async def listen() -> None:
        nonlocal heard
        async for _ in bus.subscribe("t"):
            heard += 1
            bus.publish("t")
            if heard == 5:
                return

    task = asyncio.create_task(listen())
    await asyncio.sleep(0)
    bus.publish("t")
    await asyncio.wait_for(task, 30)
    assert heard == 5


async def test_waiters_are_woken_in_the_order_in_which_they_subscribed() -> None:
    bus, order = LocalBus(), list[int]()

    async def listen(number: int) -> None:
        await anext(aiter(bus.subscribe("t")))
        order.append(number)

    tasks = [asyncio.create_task(listen(number)) for number in range(10)]
    await asyncio.sleep(0)
    bus.publish("t")
    await asyncio.gather(*tasks)
    assert order == list(range(10))


async def test_a_topic_without_subscribers_costs_nothing() -> None:
    bus = LocalBus()
    bus.publish("nobody")
    subscription = bus.subscribe("t")
    assert bus.topics == 1
    del subscription
    gc.collect()
    assert bus.topics == 0
