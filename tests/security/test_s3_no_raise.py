"""S3: an agent cannot raise its group, labels, tenant, price or capacity: those come from our side, never from it."""

from dataclasses import replace

import msgspec
import pytest

from atoll.agent import Agent
from atoll.slots import GIB, Gpu, Request, Slots
from federation.control.links import capped
from tests.fakes.agent import ScriptedAgent
from tests.federation.control.ring import Ring, ring, until
from tests.federation.served import Served
from tunnel import wire

HUGE = Slots(10**6, 10**15, 10**15, (Gpu("H100", 8000, 80 * GIB), Gpu("L4", 64000, 10**15)))
FACTS = {
    "group": "gold", "site": "moon", "labels": "trusted=yes", "tenant": "acme", "project": "acme", "price": "0",
    "instance": "i-1", "spot": "false", "name": "king", "key": "mine", "state": "ready", "version": "999",
}  # fmt: skip
OURS = ("name", "site", "group", "price", "spot", "instance", "key", "generation", "generation_used", "joined_at")


class Boaster(ScriptedAgent):
    """Says of itself whatever could be of use."""

    def linked(self, link: object) -> None:
        self.link = link  # type: ignore[assignment]
        hello = wire.Hello(
            protocol=self.protocol,
            version="9",
            boot="b",
            capacity=self.capacity,
            facts=FACTS,
            runs=list(self.runs.values()),
        )
        raw = msgspec.msgpack.decode(wire.encode(hello)) | FACTS | {"epoch": 99, "agent": "a-other", "cordon_epoch": 0}
        assert self.link
        self.link.send(hello)
        self.link._mux.send(msgspec.msgpack.encode(raw))  # the same with fields that no hello has
        self.link._wake()


async def boast(r: Ring, row: Agent, capacity: Slots = HUGE) -> Agent:
    """Come back as that agent with great claims; return what is believed."""
    agent = Boaster(r.network.dialer(row.id, generation=row.generation), capacity=capacity)
    await agent.dial()

    async def twice() -> bool:
        return sum(isinstance(message, wire.Welcome) for message in agent.got) == 2

    await until(twice, "both hellos")
    return await r.control.agents.get(row.id)


async def test_a_hello_changes_nothing_that_is_ours() -> None:
    async with ring() as r:
        await r.agent(group="hall")
        [before] = await r.control.agents.list()
        after = replace(await boast(r, before), generation_used=before.generation_used)
        assert {name: getattr(after, name) for name in OURS} == {name: getattr(before, name) for name in OURS}
        assert after.facts == FACTS, "facts are shown as such, and are nothing but facts"


async def test_a_launched_machine_has_at_most_what_was_bought() -> None:
    async with ring() as r:
        await r.elastic()
        [row] = await r.submit(resources=Request(cpu=3000))
        placed = await r.until_state(row.id, "running")
        before = await r.control.agents.get(placed.members[0].agent)
        after = replace(await boast(r, before), generation_used=before.generation_used)
        assert (after.capacity.cpu, after.capacity.memory) == (before.capacity.cpu, before.capacity.memory)
        assert after.capacity.gpu == before.capacity.gpu
        assert {name: getattr(after, name) for name in OURS} == {name: getattr(before, name) for name in OURS}


def test_what_the_catalogue_does_not_list_is_not_there() -> None:
    limit = Slots(4000, 8 * GIB, 0, (Gpu("L4", 1000, 24 * GIB),))
    assert capped(HUGE, limit) == Slots(4000, 8 * GIB, HUGE.disk, (Gpu("L4", 1000, 24 * GIB),))
    less = Slots(1, 1, 1, ())
    assert capped(less, limit) == less, "a machine may have less"


async def test_facts_and_name_of_a_join_give_nothing() -> None:
    async with ring() as r:
        await r.agent(group="gold", site="moon")
        token, secret = await r.control.tokens.create_join(site="here", group="hall")
        joined = (await r.control.tokens.join(secret, "key", "gold", FACTS)).agent
        assert (joined.site, joined.group, joined.price, joined.instance, joined.spot) == ("here", "hall", 0, "", False)
        assert joined.name != "gold", "a name that is taken is another's"
        assert joined.key == "key"
        assert token.group == "hall"


@pytest.mark.parametrize("more", [{"group": "gold"}, {"site": "moon"}, {"labels": {"a": "b"}}, {"price": 0}])
async def test_a_join_cannot_even_ask_for_another_group(server: Served, more: dict[str, object]) -> None:
    _, secret = await server.plane.tokens.create_join(site="here", group="hall", uses=1, ttl_s=60, owner="ada")
    status, problem = await server.ask("POST", "/v1/join", {"secret": secret, "csr": "CSR", **more})
    assert (status, problem.code) == (400, "INVALID")
    status, joined = await server.ask("POST", "/v1/join", {"secret": secret, "csr": "CSR", "facts": FACTS})
    assert (status, joined.group) == (200, "hall"), "and a refusal uses nothing up"


async def test_a_renewal_gives_the_same_agent_again() -> None:
    async with ring() as r:
        agent = await r.agent(group="hall")
        [before] = await r.control.agents.list()
        agent._send(wire.Renew(csr="key of hall"))

        async def renewed() -> wire.Certificate | None:
            return next((message for message in agent.got if isinstance(message, wire.Certificate)), None)

        certificate = await until(renewed, "a certificate")
        assert certificate.certificate == f"key of hall signed for {before.id}/2"
        [after] = await r.control.agents.list()
        kept = replace(after, generation=1, issued_by=before.issued_by, version=before.version)
        assert kept == replace(before, generation=1)
