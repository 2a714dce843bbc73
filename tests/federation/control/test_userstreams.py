"""One user's streams have a cap; what ends makes room, and others are not concerned."""

import asyncio

import pytest

from atoll.errors import Unavailable
from tests.federation.control.ring import ring
from tunnel.lanes import Use

VIRTUAL_TIME = True


class Kept(asyncio.Protocol):
    """Stays open."""


async def test_the_cap_is_by_user_and_what_ends_makes_room() -> None:
    async with ring() as r:
        r.control.streams.user_limit = 4
        agent = await r.agent(group="one")
        agent.serve = Kept
        [row] = await r.submit()
        row = await r.until_state(row.id, "running")
        run = f"{row.id}.1.0"

        async def opened(user: str, use: Use = Use.SHORT) -> asyncio.Transport:
            return await r.control.streams.open(run, "", 80, Kept(), use=use, user=user)

        mine = [await opened("ada", use) for use in (Use.SHORT, Use.BULK, Use.SHORT, Use.BULK)]
        with pytest.raises(Unavailable, match="ada has 4 streams already") as refused:
            await opened("ada")
        assert refused.value.reason == "USER_STREAMS"
        assert r.control.streams.refused == {"user_streams": 1}
        theirs = await opened("bo")
        several = [await opened("") for _ in range(10)]
        mine.pop(0).abort()
        await asyncio.sleep(0.05)
        mine.append(await opened("ada"))
        for stream in (*mine, theirs, *several):
            stream.abort()
        await asyncio.sleep(0.1)
        assert not r.control.streams._users
