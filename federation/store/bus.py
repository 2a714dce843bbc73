"""Hints between tasks of one process: the bus of a control plane that runs alone."""

import asyncio
import weakref
from collections.abc import AsyncIterator
from itertools import count


class LocalBus:
    """A `Bus` for one event loop. Uses nothing but asyncio events, so it follows virtual time as well."""

    def __init__(self) -> None:
        self._topics: dict[str, dict[int, weakref.ref[_Subscription]]] = {}
        self._numbers = count()

    def publish(self, topic: str) -> None:
        """Wake all waiters on `topic`, in the order in which they subscribed."""
        for reference in list(self._topics.get(topic, {}).values()):
            subscription = reference()
            if subscription is not None:
                subscription.hinted.set()

    def subscribe(self, topic: str) -> AsyncIterator[None]:
        """Yield once whenever `topic` was published since the last yield, counted from this call on."""
        subscription = _Subscription()
        number = next(self._numbers)

        def forget(_: object) -> None:
            waiting = self._topics.get(topic, {})
            waiting.pop(number, None)
            if not waiting:
                self._topics.pop(topic, None)

        # Held weakly: whoever stops iterating need not say so, and a topic nobody waits for costs nothing.
        self._topics.setdefault(topic, {})[number] = weakref.ref(subscription, forget)
        return subscription

    @property
    def topics(self) -> int:
        """How many topics have a subscriber."""
        return len(self._topics)


class _Subscription:
    def __init__(self) -> None:
        self.hinted = asyncio.Event()

    def __aiter__(self) -> "_Subscription":
        return self

    async def __anext__(self) -> None:
        await self.hinted.wait()
        self.hinted.clear()
