"""A relay lets nobody take an agent's place with an older certificate than it has seen (clones)."""

import asyncio
from pathlib import Path

from tests.federation.relay.region import AGENT, MemoryRelay
from tests.tunnel import virtual
from tests.tunnel.ends import Owner
from tunnel import wire
from tunnel.link import Link, Side


class Agent(Owner):
    """Whoever has a certificate of that generation."""

    def __init__(self) -> None:
        super().__init__()
        self.got: list[wire.Message] = []

    def linked(self, link: Link) -> None:
        super().linked(link)
        link.send(wire.Attach(protocol=wire.PROTOCOL, version="1", boot=f"b{id(self)}"))

    def received(self, link: Link, message: wire.FromAgent | wire.FromControl) -> None:
        self.got.append(message)


async def attached(relay: MemoryRelay, generation: int) -> Agent:
    agent = Agent()
    await relay.network.dialer(AGENT, generation=generation).dial(lambda: Link(agent, side=Side.AGENT))
    await asyncio.sleep(0.1)
    return agent


def test_an_older_certificate_does_not_take_a_newer_ones_place(tmp_path: Path) -> None:
    async def main() -> None:
        relay = MemoryRelay(tmp_path)
        first = await attached(relay, 2)
        assert [type(message) for message in first.got] == [wire.Attached]
        thief = await attached(relay, 1)
        [refusal] = thief.got
        assert isinstance(refusal, wire.Refuse)
        assert refusal.code == "CLONED"
        assert first.links[0].alive
        assert relay.up
        renewed = await attached(relay, 3)
        assert [type(message) for message in renewed.got] == [wire.Attached]
        assert not first.links[0].alive, "its own newer link takes its place"
        late = await attached(relay, 2)
        assert isinstance(late.got[0], wire.Refuse)
        relay.agents.close("over")
        relay.relay.close("over")
        await asyncio.sleep(0.5)

    virtual.run(main())
