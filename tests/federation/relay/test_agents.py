"""Agents and relays: two links each, another one for a lost one, nobody in who does not belong."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from agent.relays import LINKS, RETIRE_S, ranked
from atoll.errors import Unavailable
from tests.federation.relay.region import AGENT, MemoryRelay, Region
from tests.tunnel import virtual
from tests.tunnel.ends import Echo, Owner, Recorder, SeededChance, until
from tunnel import wire
from tunnel.backoff import HURRY_S
from tunnel.lanes import Lane
from tunnel.link import Link, Side
from tunnel.redial import RedialledTransport
from tunnel.resumables import Resumables

RESTART_S = 0.7
"""What a killed relay takes to listen again."""
USERS_S = 1.0
"""Longest wait between a user's dials."""

Story = Callable[[Region], Coroutine[Any, Any, None]]


def play(folder: Path, count: int, story: Story) -> None:
    async def main() -> None:
        region = Region(folder, count)
        try:
            await story(region)
        finally:
            await region.close()

    virtual.run(main())


def test_an_agent_keeps_to_its_own_two_and_says_so(tmp_path: Path) -> None:
    async def story(region: Region) -> None:
        urls = list(region.relays)
        region.agent.welcomed(urls, region.send)
        await until(lambda: len(region.agent.linked) == LINKS)
        await asyncio.sleep(5)
        assert region.agent.linked == ranked(AGENT, urls)[:LINKS]
        assert set(region.linked) == set(region.agent.linked)
        assert region.told[-1] == region.agent.linked
        assert region.told == [sorted(told, key=ranked(AGENT, urls).index) for told in region.told]

    play(tmp_path, 4, story)


def test_agents_share_relays_evenly_and_one_more_moves_few() -> None:
    urls = [f"https://r{number}" for number in range(5)]
    agents = [f"a-{number}" for number in range(1000)]
    chosen = {agent: set(ranked(agent, urls)[:LINKS]) for agent in agents}
    counts = [sum(url in each for each in chosen.values()) for url in urls]
    assert sum(counts) == LINKS * len(agents)
    assert min(counts) > 300
    more = {agent: set(ranked(agent, [*urls, "https://r9"])[:LINKS]) for agent in agents}
    moved = sum(len(chosen[agent] - more[agent]) for agent in agents)
    assert moved == sum("https://r9" in each for each in more.values())
    assert 200 < moved < 480


def test_a_lost_relay_is_replaced_and_taken_again_when_it_is_back(tmp_path: Path) -> None:
    async def story(region: Region) -> None:
        urls = list(region.relays)
        first, second, third = ranked(AGENT, urls)
        region.agent.welcomed(urls, region.send)
        await until(lambda: region.agent.linked == [first, second])
        region.relays[first].kill()
        await until(lambda: region.agent.linked == [second, third])
        assert region.told[-1] == [second, third]
        region.relays[first].listen()
        await until(lambda: region.agent.linked == [first, second] and not region.relays[third].up, seconds=120)
        assert region.told[-1] == [first, second]

    play(tmp_path, 3, story)


def test_a_silent_relay_is_noticed_and_replaced(tmp_path: Path) -> None:
    async def story(region: Region) -> None:
        urls = list(region.relays)
        first, second, third = ranked(AGENT, urls)
        region.agent.welcomed(urls, region.send)
        await until(lambda: region.agent.linked == [first, second])
        loop = asyncio.get_running_loop()
        region.relays[first].network.cut(AGENT)
        began = loop.time()
        await until(lambda: region.agent.linked == [second, third], seconds=30)
        assert loop.time() - began < 5.5

    play(tmp_path, 3, story)


def test_with_all_relays_gone_it_goes_on_dialling_and_finds_them_again(tmp_path: Path) -> None:
    async def story(region: Region) -> None:
        urls = list(region.relays)
        region.agent.welcomed(urls, region.send)
        await until(lambda: len(region.agent.linked) == 2)
        for relay in region.relays.values():
            relay.kill()
        await until(lambda: region.agent.linked == [])
        assert region.told[-1] == []
        await asyncio.sleep(300)
        for relay in region.relays.values():
            relay.listen()
        await until(lambda: len(region.agent.linked) == 2, seconds=60)

    play(tmp_path, 2, story)


def test_a_relay_that_serves_no_more_is_left_once_it_carries_nothing(tmp_path: Path) -> None:
    async def story(region: Region) -> None:
        urls = list(region.relays)
        first, second, third = ranked(AGENT, urls)
        region.agent.welcomed(urls, region.send)
        await until(lambda: region.agent.linked == [first, second])
        user = Recorder()
        opening = wire.OpenStream(run="s-1.1.0", port=80)
        await region.relays[first].relay.open(AGENT, opening, user, lane=Lane.MUX)
        region.agent.serving([second, third])
        await until(lambda: region.agent.linked == [second, third])
        await asyncio.sleep(RETIRE_S / 2)
        assert region.relays[first].up
        user.transport.close()
        await until(lambda: not region.relays[first].up)

    play(tmp_path, 3, story)


def test_it_is_left_after_a_minute_whatever_it_carries(tmp_path: Path) -> None:
    async def story(region: Region) -> None:
        (url,) = region.relays
        region.agent.welcomed([url], region.send)
        await until(lambda: region.agent.linked == [url])
        user = Recorder()
        opening = wire.OpenStream(run="s-1.1.0", port=80)
        await region.relays[url].relay.open(AGENT, opening, user, lane=Lane.MUX)
        region.agent.serving([])
        assert region.told[-1] == []
        await asyncio.sleep(RETIRE_S + 5)
        assert user.lost
        assert not region.relays[url].up

    play(tmp_path, 1, story)


def test_a_stream_resumes_over_the_other_relay(tmp_path: Path) -> None:
    async def main() -> None:
        table = Resumables()
        region = Region(tmp_path, 2, lambda opening: table.lane(opening.resume, opening.run, Echo))
        urls = list(region.relays)
        first, second = ranked(AGENT, urls)
        region.agent.welcomed(urls, region.send)
        await until(lambda: len(region.agent.linked) == 2)
        opening = wire.OpenStream(run="s-1.1.0", port=80, resume=secrets.token_bytes(16))

        async def dial(make: Callable[[], asyncio.Protocol]) -> None:
            for url in region.agent.linked:
                await region.relays[url].relay.open(AGENT, opening, make(), lane=Lane.DATA)
                return
            raise Unavailable("no relay")

        stream = RedialledTransport(opening.resume, dial, chance=SeededChance())
        user = Recorder()
        stream.attach(user)
        stream.start()
        data = secrets.token_bytes(1 << 20)
        stream.write(data)
        await until(lambda: user.size > 0)
        region.relays[first].kill()
        await until(lambda: user.size == len(data), seconds=30)
        assert stream.resumed == 1
        assert region.relays[second].relay.held(AGENT).in_use == 1
        stream.close()
        await until(lambda: user.lost)
        table.close("over")
        await region.close()

    virtual.run(main())


def test_a_stream_over_one_relay_that_is_killed_again_and_again_never_stalls_for_long(tmp_path: Path) -> None:
    """However long the agent's waits have grown: a stream without a lane is worth a dial."""

    async def main() -> None:
        table = Resumables()
        region = Region(tmp_path, 1, lambda opening: table.lane(opening.resume, opening.run, Echo), table.awaited)
        ((url, relay),) = region.relays.items()
        region.agent.welcomed([url], region.send)
        await until(lambda: region.agent.linked)
        opening = wire.OpenStream(run="s-1.1.0", port=80, resume=secrets.token_bytes(16))

        lanes: list[asyncio.Protocol] = []

        async def dial(make: Callable[[], asyncio.Protocol]) -> None:
            lanes.append(make())
            await relay.relay.open(AGENT, opening, lanes[-1], lane=Lane.DATA)

        stream = RedialledTransport(opening.resume, dial, chance=SeededChance())
        user = Recorder()
        stream.attach(user)
        stream.start()
        loop = asyncio.get_running_loop()

        async def came(count: int) -> None:
            await until(lambda: user.size == count)

        stream.write(b"x")
        await came(1)
        for sent in range(2, 22):
            relay.kill()
            lanes[-1].connection_lost(ConnectionResetError())  # the user's connection ends with the process
            stream.write(b"x")
            await asyncio.sleep(RESTART_S)
            assert table.awaited.is_set()
            relay.listen()
            listens = loop.time()
            await came(sent)
            assert loop.time() - listens < HURRY_S + USERS_S + 0.2
            assert not table.awaited.is_set()
        stream.close()
        await until(lambda: user.lost)
        table.close("over")
        await region.close()

    virtual.run(main())


def test_an_agent_that_nobody_waits_for_does_not_hurry(tmp_path: Path) -> None:
    async def story(region: Region) -> None:
        ((url, relay),) = region.relays.items()
        region.agent.welcomed([url], region.send)
        await until(lambda: region.agent.linked)
        relay.kill()
        region.dials.clear()
        await asyncio.sleep(100)
        assert 10 < len(region.dials) < 40  # one in 5 s, after the first few
        region.awaited.set()
        region.dials.clear()
        await asyncio.sleep(10)
        assert 20 < len(region.dials) < 80  # one in a quarter of a second
        relay.listen()
        await until(lambda: region.agent.linked, HURRY_S + 0.1)

    play(tmp_path, 1, story)


class Peer:
    """A hand-made end of an agent's link."""

    def __init__(self, relay: MemoryRelay) -> None:
        self._relay = relay
        self.owner = Owner()

    async def link(self, agent: str, *messages: wire.Message) -> None:
        await self._relay.network.dialer(agent).dial(lambda: Link(self.owner, side=Side.AGENT))
        for message in messages:
            self.owner.link.send(message)

    def said(self) -> list[type]:
        return [type(message) for message in self.owner.messages]


ATTACH = wire.Attach(protocol=wire.PROTOCOL, version="1", boot="b")


def alone(folder: Path, story: Callable[[MemoryRelay], Awaitable[None]]) -> None:
    async def main() -> None:
        relay = MemoryRelay(folder)
        await story(relay)
        relay.agents.close("over")
        relay.relay.close("over")
        await asyncio.sleep(3)

    virtual.run(main())


@pytest.mark.parametrize(
    ("agent", "message", "code"),
    [
        ("", ATTACH, "FORBIDDEN"),
        ("a-bad", ATTACH, "FORBIDDEN"),
        (AGENT, wire.Attach(protocol=2, version="1", boot="b"), "PROTOCOL"),
    ],
)
def test_who_does_not_belong_is_refused(tmp_path: Path, agent: str, message: wire.Attach, code: str) -> None:
    async def story(relay: MemoryRelay) -> None:
        relay.terms.expel("a-bad", "it was revoked")
        peer = Peer(relay)
        await peer.link(agent, message)
        await until(lambda: peer.owner.losses)
        (refusal,) = peer.owner.messages
        assert isinstance(refusal, wire.Refuse)
        assert refusal.code == code
        assert relay.agents.agents() == []

    alone(tmp_path, story)


def test_a_link_that_says_nothing_or_nonsense_is_closed(tmp_path: Path) -> None:
    async def story(relay: MemoryRelay) -> None:
        silent, wrong = Peer(relay), Peer(relay)
        await silent.link(AGENT)
        await wrong.link(AGENT, wire.Leave())
        await until(lambda: wrong.owner.losses)
        await until(lambda: silent.owner.losses, seconds=15)
        assert relay.agents.agents() == []

    alone(tmp_path, story)


def test_a_newer_link_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    async def story(relay: MemoryRelay) -> None:
        old, new = Peer(relay), Peer(relay)
        await old.link(AGENT, ATTACH)
        await until(lambda: old.said() == [wire.Attached])
        await new.link(AGENT, ATTACH)
        await until(lambda: old.owner.losses)
        await asyncio.sleep(5)
        assert new.said() == [wire.Attached]
        assert not new.owner.losses
        await relay.relay.open(AGENT, wire.OpenStream(run="s-1.1.0", port=80), Recorder(), lane=Lane.MUX)

    alone(tmp_path, story)


def test_a_draining_relay_takes_nobody(tmp_path: Path) -> None:
    async def story(relay: MemoryRelay) -> None:
        relay.agents.draining = True
        peer = Peer(relay)
        await peer.link(AGENT, ATTACH)
        await until(lambda: peer.owner.losses)
        assert peer.said() == [wire.Refuse]

    alone(tmp_path, story)


def test_an_expelled_agent_loses_link_and_streams_at_once(tmp_path: Path) -> None:
    async def story(relay: MemoryRelay) -> None:
        peer, user = Peer(relay), Recorder()
        await peer.link(AGENT, ATTACH)
        await until(lambda: peer.said() == [wire.Attached])
        await relay.relay.open(AGENT, wire.OpenStream(run="s-1.1.0", port=80), user, lane=Lane.MUX)
        relay.terms.expel(AGENT, "the agent was revoked")
        await until(lambda: user.lost and peer.owner.losses, seconds=0.5)
        assert "revoked" in peer.owner.losses[0]
        with pytest.raises(Unavailable):
            await relay.relay.open(AGENT, wire.OpenStream(run="s-1.1.0", port=80), Recorder(), lane=Lane.MUX)

    alone(tmp_path, story)
