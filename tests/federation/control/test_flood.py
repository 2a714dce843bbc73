"""An agent that says too much at once loses its link; the others do not notice."""

import asyncio

from federation.control.links import UNREAD_BYTES, UNREAD_MESSAGES
from tests.federation.control.ring import ring
from tunnel import wire
from tunnel.mux import MESSAGE_LIMIT

VIRTUAL_TIME = True


async def test_a_flood_of_messages_ends_the_link_not_the_memory() -> None:
    """What waits for a control plane that is busy is bounded, in messages and in bytes."""
    async with ring() as r:
        flooder = await r.agent(group="one")
        bystander = await r.agent(group="two")
        [key] = [key for key, agent in r.agents.items() if agent is flooder]
        [link] = [link for link in r.control.links._inboxes if link.peer == key]
        inbox = r.control.links._inboxes[link]
        async with r.control.changes._lock:
            while link.alive:
                link.message_size = MESSAGE_LIMIT
                r.control.links.received(link, wire.Log(run="s-1.1.0", channel="out", offset=0, data=b"x"))
            assert inbox.size <= UNREAD_BYTES + MESSAGE_LIMIT
            assert not link.alive
        await asyncio.sleep(0.1)
        assert bystander.link is not None
        assert bystander.link.alive


async def test_many_small_ones_are_as_bad() -> None:
    async with ring() as r:
        flooder = await r.agent(group="one")
        [link] = list(r.control.links._inboxes)
        async with r.control.changes._lock:
            for _ in range(UNREAD_MESSAGES + 10):
                r.control.links.received(link, wire.Notice(in_s=1.0, message=""))
            assert not link.alive
        await asyncio.sleep(0.1)
        assert flooder.link is None
