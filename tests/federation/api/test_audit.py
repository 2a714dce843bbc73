"""Records of users' streams, made by real doors over the real control plane, and who may read them."""

import asyncio
from collections.abc import Callable

import pytest
from aiohttp import WSServerHandshakeError

from atoll.client.linkviews import StreamRecordView
from atoll.client.synchronous import Client
from atoll.policy import ADMIN
from atoll.streamrecord import StreamRecord, StreamState
from federation.control.streamrecords import StreamRecords
from tests.federation.api.test_through import Whole, whole
from tests.federation.control.ring import Ring
from tests.federation.served import SESSIONS

__all__ = ["whole"]


async def bearer(whole: Whole, owner: str, *roles: str) -> dict[str, str]:
    _, secret = await whole.server.services.control.tokens.create_api(owner, roles)
    return {"Authorization": f"Bearer {secret}"}


async def told(whole: Whole, session: str, good: Callable[[list[StreamRecordView]], bool]) -> list[StreamRecordView]:
    """Return a session's records once they are as they should be."""
    async with asyncio.timeout(60):
        while True:
            found: list[StreamRecordView] = (await whole.server.good("GET", f"{SESSIONS}/{session}/streams")).items
            if good(found):
                return found
            await asyncio.sleep(0.02)


async def test_a_forwarded_port_is_recorded_with_who_what_and_how_much(whole: Whole) -> None:
    session = await whole.running(apps={"web": 0})
    url = f"{whole.server.url}{SESSIONS}/{session}/forward?port={whole.agent._apps['web']}"
    asked = b"GET /f HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    got = 0
    async with asyncio.timeout(60), whole.server.http.ws_connect(url, headers=whole.server.bearer) as socket:
        await socket.send_bytes(asked)
        (record,) = await told(whole, session, lambda found: len(found) == 1 and found[0].lanes != [])
        assert record.state in ("open", "ended")
        async for message in socket:
            got += len(message.data) if isinstance(message.data, bytes) else 0
    (record,) = await told(whole, session, lambda found: found[0].state == "ended")
    assert (record.user, record.door, record.source, record.project) == ("ada", "forward", "127.0.0.1", "default")
    assert (record.port, record.run, record.lanes) == (whole.agent._apps["web"], f"{session}.1.0", ["data"])
    assert (record.sent, record.received, record.streams, record.resumed) == (len(asked), got, 1, 0)
    assert record.ended_at is not None
    assert record.ended_at >= record.began_at


async def test_an_agents_refusal_and_a_strangers_attempt_are_recorded(whole: Whole) -> None:
    session = await whole.running(apps={"web": 0})
    bo = await bearer(whole, "bo")
    with pytest.raises(WSServerHandshakeError) as refused:
        await whole.server.http.ws_connect(f"{whole.server.url}{SESSIONS}/{session}/forward?port=80", headers=bo)
    assert refused.value.status == 403
    (record,) = await told(whole, session, lambda found: len(found) == 1)
    assert (record.state, record.user, record.reason, record.port) == ("refused", "bo", "FORBIDDEN", 80)
    whole.agent.refused = True
    url = f"{whole.server.url}{SESSIONS}/{session}/forward?port=81"
    async with whole.server.http.ws_connect(url, headers=whole.server.bearer) as socket:
        await socket.receive()
    found = await told(whole, session, lambda found: len(found) == 2 and found[0].state == "ended")
    assert (found[0].user, found[0].reason, found[0].port) == ("ada", "RESET", 81)
    assert "refused" in found[0].message


async def test_requests_to_an_app_are_one_record_with_their_bytes(whole: Whole) -> None:
    session = await whole.running(apps={"web": 0})
    host = {"Host": f"web--{session}.localhost", **whole.server.bearer}
    for _ in range(5):
        async with whole.server.http.post(whole.server.url + "/upload", headers=host, data=bytes(1000)) as answer:
            body = await answer.read()
    async with whole.server.http.get(whole.server.url, headers={**host, **await bearer(whole, "bo")}) as answer:
        assert answer.status == 403
    found = await told(whole, session, lambda found: sum(each.streams for each in found) == 6)
    assert {(each.state, each.user, each.door, each.app, each.streams) for each in found} == {
        ("summed", "ada", "app", "web", 5),
        ("refused", "bo", "app", "web", 1),
    }
    summed = next(each for each in found if each.state == "summed")
    assert (summed.sent, summed.received) == (5000, 5 * len(body))


async def test_records_are_for_the_owner_and_for_administrators(whole: Whole) -> None:
    session = await whole.running(apps={"web": 0})
    path = f"{whole.server.url}{SESSIONS}/{session}/streams"
    for headers, status in (
        (whole.server.bearer, 200),
        (await bearer(whole, "bo"), 403),
        (await bearer(whole, "eve", ADMIN), 200),
    ):
        async with whole.server.http.get(path, headers=headers) as answer:
            assert answer.status == status
    for headers, status in ((whole.server.bearer, 403), (await bearer(whole, "eve", ADMIN), 200)):
        async with whole.server.http.get(whole.server.url + "/v1/audit/streams?user=bo", headers=headers) as answer:
            assert answer.status == status


async def test_a_permit_is_recorded(whole: Whole) -> None:
    session = await whole.running(apps={"web": 0})
    await whole.server.good("POST", f"{SESSIONS}/{session}/streams", {"app": "web"})
    (record,) = await told(whole, session, lambda found: len(found) == 1)
    assert (record.state, record.user, record.door, record.app) == ("permitted", "ada", "stream", "web")


async def test_records_are_read_page_by_page(whole: Whole) -> None:
    session = await whole.running(apps={"web": 0})
    records = whole.server.services.control.records
    assert isinstance(records, StreamRecords)
    async with records._changes.commit("test") as change:
        for number in range(450):
            row = StreamRecord(id=f"st-{number:03}", state=StreamState.ENDED, session=session, began_at=float(number))
            await change.tx.insert(row)
    client = Client(whole.server.url, token=whole.server.bearer["Authorization"].partition(" ")[2])
    found = await asyncio.to_thread(lambda: list(client.streams(session)))
    assert [each.id for each in found] == [f"st-{number:03}" for number in reversed(range(450))]


async def test_open_records_of_a_process_before_are_closed_and_old_ones_go(ring: Ring) -> None:
    records = StreamRecords(ring.control.changes, ring.control.streams.log, kept=10)
    async with ring.control.changes.commit("test") as change:
        for number in range(30):
            row = StreamRecord(id=f"st-{number:02}", state=StreamState.OPEN, began_at=float(number))
            await change.tx.insert(row)
    await records.round()
    rows = ring.store.rows(StreamRecord)
    assert {(row.state, row.reason) for row in rows} == {(StreamState.ENDED, "UNKNOWN")}
    await records._trim()
    assert sorted(row.id for row in ring.store.rows(StreamRecord)) == [f"st-{number}" for number in range(20, 30)]


@pytest.fixture
async def ring() -> Ring:
    return Ring()
