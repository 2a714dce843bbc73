"""Every credential is good for one thing, for a time: what is shown elsewhere or too late opens nothing."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from atoll.agent import Agent
from atoll.errors import Unauthorized
from atoll.host.system import SystemClock
from atoll.token import TokenKind
from tests.federation.control.ring import Ring
from tests.federation.control.test_relays import URL
from tests.tunnel.ends import until
from tunnel import wire
from tunnel.grant import agent_key
from tunnel.jointoken import token_hash


class Late(SystemClock):
    """A clock that can be put forward."""

    ahead = 0.0

    def now(self) -> float:
        return super().now() + self.ahead


@asynccontextmanager
async def ring(clock: Late) -> AsyncIterator[Ring]:
    made = Ring(clock=clock)
    await made.start()
    try:
        yield made
    finally:
        await made.close()


async def test_a_token_is_of_one_kind() -> None:
    """`relay`, `join` and `api`: each is refused where another is asked for."""
    async with ring(Late()) as r:
        _, relays = await r.control.relays.create("east", URL, ttl_s=60.0, owner="ada")
        _, joins = await r.control.tokens.create_join(site="here", group="hall", uses=9)
        _, api = await r.control.tokens.create_api("ada")
        for secret in (relays, joins, "", "atk_"):
            with pytest.raises(Unauthorized):
                await r.control.tokens.authenticate(secret)
        for secret in (relays, api):
            with pytest.raises(Unauthorized):
                await r.control.tokens.join(secret, "key", "m", {})
        for secret in (joins, api):
            with pytest.raises(Unauthorized):
                await r.control.relays.enrol(secret, "key")
        assert await r.control.tokens.standing("ada", token_hash(joins)) is None
        async with r.store.transaction() as tx:
            assert await tx.find(Agent) == []
        assert (await r.control.tokens.authenticate(api)).owner == "ada"


async def test_a_token_is_good_for_its_time_also_for_who_has_used_it() -> None:
    clock = Late()
    async with ring(clock) as r:
        _, relays = await r.control.relays.create("east", URL, ttl_s=60.0, owner="ada")
        _, joins = await r.control.tokens.create_join(site="here", group="hall", ttl_s=60.0)
        _, unused = await r.control.tokens.create_join(site="here", group="hall", ttl_s=60.0)
        row, api = await r.control.tokens.create_api("ada")
        async with r.control.changes.commit("test") as change:
            await change.tx.update(replace(row, expires_at=change.now + 60.0))
        for _ in range(2):
            await r.control.relays.enrol(relays, "key of east")
            await r.control.tokens.join(joins, "key of m", "m", {})
            await r.control.tokens.authenticate(api)
        clock.ahead = 61.0
        with pytest.raises(Unauthorized):
            await r.control.relays.enrol(relays, "key of east")
        for secret in (joins, unused):
            with pytest.raises(Unauthorized):
                await r.control.tokens.join(secret, "key of m", "m", {})
        with pytest.raises(Unauthorized):
            await r.control.tokens.authenticate(api)
        assert await r.control.tokens.standing("ada") is None


async def test_an_agents_key_for_grants_is_its_certificates() -> None:
    """A copy with an older certificate takes no stream that is meant for the newer one."""
    async with ring(Late()) as r:
        agent = await r.agent()
        [key] = r.agents
        for generation in (1, 2):
            agent.got.clear()
            agent._dialer = r.network.dialer(key, generation=generation)
            await agent.dial()
            await until(lambda: any(isinstance(each, wire.Welcome) for each in agent.got))
            welcomes = [each for each in agent.got if isinstance(each, wire.Welcome)]
            assert welcomes[-1].grant_key == agent_key(r.config.secret_key, key, generation)


def test_kinds_of_tokens() -> None:
    assert set(TokenKind) == {TokenKind.API, TokenKind.JOIN, TokenKind.RELAY}, "another kind needs its rows above"
