"""What relays and agents tell of streams is taken for what was granted, to whom, and for nothing else."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from msgspec import structs

from atoll.streamrecord import StreamRecord, StreamState
from federation.control.streamreports import GENERATIONS
from tests.federation.control.ring import Ring, ring, until
from tests.federation.control.test_relays import RelayEnd, enrolled
from tunnel import wire
from tunnel.figures import StreamReport
from tunnel.grant import Grant, agent_key, relay_key, seal

VIRTUAL_TIME = True

SECRET = b"k" * 32


class Told:
    """A control plane, an agent whose grants are known, another one, and a relay; they tell what they like."""

    def __init__(self, r: Ring) -> None:
        self.r = r
        self.serial = 0

    async def begin(self) -> None:
        self.mine, self.other = await self.r.agent(group="one"), await self.r.agent(group="two")
        self.agent, self.stranger = self.r.agents
        self.relay = RelayEnd(self.r, await enrolled(self.r))
        await self.relay.welcome()

    def grant(self, *, relay: bytes = relay_key(SECRET), key: bytes = b"", **more: object) -> bytes:
        grant = Grant(
            id=b"g", agent=self.agent, run="s-1.1.0", project="default", session="s-1", expires_at=1.0, user="ada",
            token="t-ada", port=80, resume=b"r" * 16,
        )  # fmt: skip
        grant = structs.replace(grant, **more)
        return seal(grant, relay, key or agent_key(SECRET, grant.agent, 0))

    async def tell(self, link: object, report: StreamReport, boot: str = "b1") -> list[StreamRecord]:
        """Tell it, wait until it was noted, and return all records."""
        self.serial += 1
        owner = self.relay if link is self.relay else link
        message = wire.StreamReports(boot=boot, serial=self.serial, reports=[report])
        owner.link.send(message)  # type: ignore[attr-defined]
        heard = self.relay.messages if link is self.relay else owner.got  # type: ignore[attr-defined]

        async def noted() -> bool:
            await self.r.control.records.flush()
            return wire.Noted(serial=self.serial) in heard

        await until(noted, "noted")
        return list(await self.r.control.records.list())

    def report(self, **more: object) -> StreamReport:
        fields = {"number": 1, "ago_s": 5.0, "lane": "data", "source": "192.0.2.1", "received": 7, "sent": 8}
        return StreamReport(**{"grant": self.grant(), **fields, **more})  # type: ignore[arg-type]


@pytest.fixture
async def told() -> AsyncIterator[Told]:
    async with ring() as r:
        made = Told(r)
        await made.begin()
        yield made
        made.relay.link.close("test over")


async def test_a_relay_tells_of_a_connection_again_and_again(told: Told) -> None:
    for _ in range(3):
        (row,) = await told.tell(told.relay, told.report())
    assert (row.state, row.user, row.session, row.port, row.source, row.lanes) == (
        StreamState.OPEN, "ada", "s-1", 80, "192.0.2.1", ("data",),
    )  # fmt: skip
    assert (row.received, row.sent, row.resumed, row.seen[0].via) == (7, 8, 0, "east")
    (row,) = await told.tell(told.relay, told.report(received=9, lasted_s=5.0))
    assert (row.state, row.received) == (StreamState.ENDED, 9)
    assert row.ended_at == pytest.approx(row.began_at + 5.0)


async def test_bytes_are_told_in_no_more_than_numbers_and_texts_in_no_more_than_lines(told: Told) -> None:
    (row,) = await told.tell(
        told.relay,
        told.report(
            received=-5, sent=2**64 - 1, resumed=-1, ago_s=-9.0, lasted_s=1e300, reason="A\n" * 99, source="x/y"
        ),
    )
    assert (row.received, row.sent, row.source) == (0, 2**62, "xy")
    assert "\n" not in row.reason
    assert row.ended_at is not None
    assert row.ended_at <= told.r.clock.now()


FORGED: dict[str, dict[str, object]] = {
    "of no user": {"user": ""},
    "without a credential": {"token": ""},
    "that cannot be resumed": {"resume": b""},
    "by a relay": {"key": b"x" * 32},
    "by an agent": {"relay": b"x" * 32},
    "of an agent that does not exist": {"agent": "a-none"},
}


@pytest.mark.parametrize("what", FORGED)
async def test_a_grant_that_was_not_made_is_no_record(told: Told, what: str) -> None:
    report = told.report(grant=told.grant(**FORGED[what]))  # type: ignore[arg-type]
    assert await told.tell(told.relay, report) == []
    assert await told.tell(told.mine, structs.replace(report, whole=True, lane="")) == []
    assert await told.tell(told.relay, told.report(grant=b"")) == []
    assert told.r.control.reports.refused == {"grant": 3}


async def test_an_agent_tells_of_its_own_streams_only(told: Told) -> None:
    whole = told.report(whole=True, lane="", lasted_s=1.0)
    assert await told.tell(told.other, whole) == []
    assert await told.tell(told.other, told.report(lane="direct")) == []
    assert told.r.control.reports.refused == {"agent": 2}
    (row,) = await told.tell(told.mine, whole)
    assert (row.state, row.received) == (StreamState.ENDED, 7)
    theirs = told.grant(agent=told.stranger, user="eve")
    rows = await told.tell(told.other, told.report(grant=theirs, whole=True, lane=""))
    assert [row.user for row in rows if row.state is StreamState.ENDED] == ["ada"]


async def test_neither_tells_what_it_cannot_see(told: Told) -> None:
    for who, report in (
        (told.relay, told.report(whole=True, lane="")),
        (told.relay, told.report(lane="direct")),
        (told.mine, told.report(lane="data")),
        (told.mine, told.report(lane="")),
    ):
        assert await told.tell(who, report) == []
    assert told.r.control.reports.refused == {"door": 4}


@pytest.mark.parametrize(("age", "known"), [(0, True), (GENERATIONS - 1, True), (GENERATIONS, False)])
async def test_grants_of_an_agents_last_certificates_are_known(told: Told, age: int, known: bool) -> None:
    newest = GENERATIONS + 3
    async with told.r.control.changes.commit("test") as change:
        row = (await told.r.control.changes.rows()).agents[told.agent]
        await change.tx.update(replace(row, generation=newest))
    grant = told.grant(key=agent_key(SECRET, told.agent, newest - age))
    assert bool(await told.tell(told.relay, told.report(grant=grant))) is known


async def test_drops_are_counted_by_who_had_them(told: Told) -> None:
    told.relay.link.send(wire.StreamReports(boot="b1", serial=9, lost=4))
    told.relay.link.send(wire.StreamReports(boot="b1", serial=10, lost=6))

    async def counted() -> bool:
        return sum(told.r.control.reports.lost.values()) == 6

    await until(counted, "counted")
