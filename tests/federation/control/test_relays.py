"""Relays seen from the control plane: enrolled once, told terms, drained, removed; what agents and users hear."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from atoll.errors import Conflict, Invalid, NotFound, Unauthorized
from atoll.relay import Relay, RelayState
from federation.control.relays import checked
from tests.federation.control.ring import Ring, ring
from tests.tunnel.ends import Owner
from tests.tunnel.ends import until as eventually
from tunnel import wire
from tunnel.grant import relay_key
from tunnel.link import Link, Side
from tunnel.memory import MemoryTransport, _Wire

VIRTUAL_TIME = True

URL = "https://east.example"


class RelayEnd(Owner):
    """A relay's end of its uplink: keeps what it is told."""

    def __init__(self, r: Ring, row: Relay, boot: str = "b1") -> None:
        super().__init__()
        self._r, self._row, self._boot = r, row, boot
        self.address = "192.0.2.1"

    def connect(self, **said: object) -> None:
        """Connect with the relay's certificate, and say how it is."""
        certificate = {"subjectAltName": (("DNS", wire.RELAY_NAME), ("URI", f"atoll://relay/{self._row.id}"))}
        between = _Wire(lambda: 0.0)
        about = {"peercert": certificate, "peername": (self.address, 50000)}
        near, far = MemoryTransport(between, {}), MemoryTransport(between, about)
        near.join(Link(self, side=Side.AGENT), far)
        far.join(self._r.control.relays.uplinks.accept(), near)
        far.begin()
        near.begin()
        self.say(**said)

    def say(self, **said: object) -> None:
        fields = {"protocol": wire.PROTOCOL, "version": "1", "boot": self._boot, **said}
        self.link.send(wire.Serving(**fields))  # type: ignore[arg-type]

    def told(self, kind: type[wire.Message]) -> list[wire.Message]:
        return [message for message in self.messages if isinstance(message, kind)]

    async def welcome(self, **said: object) -> wire.RelayTerms:
        self.connect(**said)
        await eventually(lambda: self.told(wire.RelayTerms))
        terms = self.told(wire.RelayTerms)[-1]
        assert isinstance(terms, wire.RelayTerms)
        return terms


async def enrolled(r: Ring, name: str = "east", url: str = URL) -> Relay:
    row, secret = await r.control.relays.create(name, url, ttl_s=60.0, owner="ada")
    assert (await r.control.relays.enrol(secret, f"key of {name}")).relay.id == row.id
    return row


@asynccontextmanager
async def serving(r: Ring) -> AsyncIterator[tuple[Relay, RelayEnd]]:
    row = await enrolled(r)
    end = RelayEnd(r, row)
    await end.welcome()
    yield row, end
    end.link.close("test over")


async def state(r: Ring, row: Relay) -> RelayState:
    return (await r.control.relays.get(row.id)).state


async def comes(r: Ring, row: Relay, wanted: RelayState) -> None:
    async with asyncio.timeout(5):
        while await state(r, row) is not wanted:
            await asyncio.sleep(0.01)


async def test_a_token_makes_one_relay_however_many_try() -> None:
    async with ring() as r:
        row, secret = await r.control.relays.create("east", URL, ttl_s=60.0, owner="ada")
        tries = [r.control.relays.enrol(secret, f"key {number}") for number in range(50)]
        results = await asyncio.gather(*tries, return_exceptions=True)
        won = [each for each in results if not isinstance(each, BaseException)]
        assert [each.relay.id for each in won] == [row.id]
        assert {type(each) for each in results if isinstance(each, BaseException)} == {Unauthorized}
        again = await r.control.relays.enrol(secret, won[0].relay.key)  # whose answer was lost
        assert again.relay.key == won[0].relay.key


async def test_tokens_of_relays_and_of_agents_are_not_the_same() -> None:
    async with ring() as r:
        _, secret = await r.control.relays.create("east", URL, ttl_s=60.0, owner="ada")
        with pytest.raises(Unauthorized):
            await r.control.tokens.join(secret, "key", "m", {})
        _, secret = await r.control.tokens.create_join(site="here", group="hall")
        with pytest.raises(Unauthorized):
            await r.control.relays.enrol(secret, "key")
        await r.control.tokens.join(secret, "key", "m", {})


async def test_names_and_urls_are_taken_once() -> None:
    async with ring() as r:
        await enrolled(r)
        for name, url in (("east", "https://other.example"), ("west", URL + ":443/")):
            with pytest.raises(Conflict):
                await r.control.relays.create(name, url, ttl_s=60.0, owner="ada")
        with pytest.raises(NotFound):
            await r.control.relays.get("west")


@pytest.mark.parametrize("url", ["", "http://x", "https://", "https://a/b", "https://u@a", "https://a:x", "ftp://a"])
def test_a_relay_is_at_an_https_address(url: str) -> None:
    with pytest.raises(Invalid):
        checked(url)
    assert checked(" https://[::1]:8443/ ") == "https://[::1]:8443"


async def test_it_serves_once_it_is_connected_and_agents_hear_of_it() -> None:
    async with ring() as r:
        agent = await r.agent()
        row = await enrolled(r)
        assert await state(r, row) is RelayState.INVITED
        end = RelayEnd(r, row)
        terms = await end.welcome()
        assert terms.grant_key == relay_key(b"k" * 32)
        assert terms.refused == []
        assert await state(r, row) is RelayState.SERVING
        await eventually(lambda: wire.Relays(relays=[URL]) in agent.got)
        later = await r.agent(group="later")
        assert next(each for each in later.got if isinstance(each, wire.Welcome)).relays == [URL]
        end.say(agents=7, streams=3)
        await eventually(lambda: (r.control.relays.live(row.id) or terms) != terms)
        await eventually(lambda: (live := r.control.relays.live(row.id)) is not None and live.agents == 7)
        end.link.close("test over")


async def test_what_comes_from_a_relays_address_is_many_peoples() -> None:
    async with ring() as r:
        row = await enrolled(r)
        end = RelayEnd(r, row)
        end.address = "192.0.2.7"
        await end.welcome()
        assert r.control.relays.uplinks.passes_on("192.0.2.7")
        end.link.close("the network")
        await eventually(lambda: r.control.relays.live(row.id) is None)
        assert r.control.relays.uplinks.passes_on("192.0.2.7")
        await r.control.relays.remove("east", by="ada")
        assert not r.control.relays.uplinks.passes_on("192.0.2.7")
        assert not r.control.relays.uplinks.passes_on("")


async def test_users_are_sent_to_relays_that_serve_and_that_the_agent_is_linked_to() -> None:
    async with ring() as r, serving(r) as (row, _):
        agent = await r.agent()
        key = next(iter(r.agents))
        own = r.control.streams.ways(key)
        assert [way.server_name for way in own] == [wire.CONTROL_NAME]
        assert agent.link is not None
        agent.link.send(wire.RelayLinks(relays=["https://not.ours", URL]))
        await eventually(lambda: len(r.control.streams.ways(key)) == 2)
        way = r.control.streams.ways(key)[0]
        assert (way.host, way.port, way.server_name) == ("east.example", 443, wire.RELAY_NAME)
        await r.control.relays.drain(row.name, deadline_s=5.0, by="ada")
        assert r.control.streams.ways(key) == own


async def test_a_drained_relay_serves_again_when_it_is_started_again() -> None:
    async with ring() as r:
        row = await enrolled(r)
        with pytest.raises(Conflict):
            await r.control.relays.drain("east", deadline_s=5.0, by="ada")
        end = RelayEnd(r, row)
        await end.welcome()
        await r.control.relays.drain("east", deadline_s=5.0, by="ada")
        await eventually(lambda: end.told(wire.Drain) == [wire.Drain(deadline_s=5.0)])
        end.say(draining=True)
        end.link.close("the relay ends")
        await comes(r, row, RelayState.DRAINED)
        after = RelayEnd(r, row, boot="b2")
        await after.welcome()
        assert await state(r, row) is RelayState.SERVING
        assert after.told(wire.Drain) == []
        after.link.close("test over")


async def test_a_relay_that_had_not_heard_of_its_drain_is_told_again() -> None:
    async with ring() as r, serving(r) as (row, end):
        end.link.close("the network")
        await eventually(lambda: r.control.relays.live(row.id) is None)
        async with r.control.changes.commit("test") as change:
            now = await change.tx.get(Relay, row.id)
            assert now is not None
            await change.tx.update(replace(now, state=RelayState.DRAINING))
        again = RelayEnd(r, row)
        await again.welcome()
        await eventually(lambda: again.told(wire.Drain))
        again.link.close("test over")


async def test_a_relay_that_ends_by_itself_is_drained() -> None:
    async with ring() as r, serving(r) as (row, end):
        agent = await r.agent()
        end.say(draining=True)
        await comes(r, row, RelayState.DRAINING)
        await eventually(lambda: wire.Relays(relays=[]) in agent.got)


async def test_a_relay_that_is_lost_still_counts_as_serving() -> None:
    async with ring() as r, serving(r) as (row, end):
        end.link.close("the network")
        await eventually(lambda: r.control.relays.live(row.id) is None)
        assert await state(r, row) is RelayState.SERVING
        await r.restart()
        assert r.control.streams.relays == [URL]


async def test_a_removed_relay_is_told_so_and_never_comes_back() -> None:
    async with ring() as r, serving(r) as (row, end):
        agent = await r.agent()
        await r.control.relays.remove("east", by="ada")
        await eventually(lambda: end.told(wire.Leave))
        assert wire.Relays(relays=[]) in agent.got
        again = RelayEnd(r, row)
        again.connect()
        await eventually(lambda: again.told(wire.Refuse))
        refusal = again.told(wire.Refuse)[0]
        assert isinstance(refusal, wire.Refuse)
        assert refusal.final
        assert (await enrolled(r)).id != row.id


async def test_a_certificate_that_names_no_relay_is_refused() -> None:
    async with ring() as r:
        stranger = RelayEnd(r, Relay(id="a-1", name="x", url=URL))
        stranger.connect()
        await eventually(lambda: stranger.told(wire.Refuse))


async def test_revoked_agents_are_expelled_everywhere_at_once_and_refused_later() -> None:
    async with ring() as r, serving(r) as (row, end):
        await r.agent()
        key = next(iter(r.agents))
        await r.control.agents.revoke(key, by="ada")
        await eventually(lambda: [m.agent for m in end.told(wire.Expel)] == [key])  # type: ignore[attr-defined]
        again = RelayEnd(r, row)
        terms = await again.welcome()
        assert terms.refused == [key]
        again.link.close("test over")


async def test_users_are_sent_home_with_their_token_also_when_the_relay_was_away() -> None:
    async with ring() as r, serving(r) as (row, end):
        token, _ = await r.control.tokens.create_api("bo")
        other, _ = await r.control.tokens.create_api("bo")
        end.say(tokens=[token.id, other.id])
        await eventually(lambda: (live := r.control.relays.live(row.id)) is not None and live.tokens)
        await asyncio.sleep(0.05)
        await r.control.tokens.delete(token.id)
        await eventually(lambda: end.told(wire.Evict) == [wire.Evict(tokens=[token.id])])
        again = RelayEnd(r, row)
        await again.welcome(tokens=[token.id, other.id])
        await eventually(lambda: again.told(wire.Evict) == [wire.Evict(tokens=[token.id])])
        again.link.close("test over")


async def test_certificates_are_renewed_for_the_relays_own_key() -> None:
    async with ring() as r, serving(r) as (row, end):
        end.link.send(wire.Renew(csr="key of east"))
        await eventually(lambda: end.told(wire.Certificate))
        await r.control.relays.uplinks.renew_terms()
        await eventually(lambda: len(end.told(wire.RelayTerms)) == 2)
        end.link.send(wire.Renew(csr="another key"))
        await eventually(lambda: end.told(wire.Refuse))
        refusal = end.told(wire.Refuse)[0]
        assert isinstance(refusal, wire.Refuse)
        assert not refusal.final
        assert row.name == "east"
