"""What the doors of users leave in the log of streams."""

import pytest
from msgspec import structs

from atoll.errors import NotFound, Unauthorized
from atoll.streamrecord import StreamRecord, StreamState
from federation.gateway.sshdoor import SshDoor
from tests.federation.gateway.test_sshdoor import let_in, running, token
from tests.federation.gateway.test_userdoor import Caller, grant, house
from tests.federation.served import Served


def told(server: Served) -> list[StreamRecord]:
    return [page.row for page in server.plane.streams.log.unstored()]


async def test_a_visit_is_recorded_and_goes_on_with_its_stream(server: Served) -> None:
    door, session = await house(server)
    for source in ("192.0.2.1", "198.51.100.9"):
        visit = Caller(structs.replace(grant(session), resume=b"r" * 16))
        visit.source = source
        await door.admit(visit)
        assert [row.state for row in told(server)] == [StreamState.OPEN]
        door.left(visit)
    (row,) = told(server)
    assert (row.user, row.door, row.session, row.run, row.port) == ("ada", "stream", session, f"{session}.1.0", 80)
    assert (row.state, row.source) == (StreamState.ENDED, "198.51.100.9")
    assert [each.source for each in row.seen] == ["192.0.2.1", "198.51.100.9"]
    await door.close()


async def test_a_visit_that_is_not_let_in_is_recorded_as_refused(server: Served) -> None:
    door, session = await house(server)
    visit = Caller(grant(session, token="t-gone"))
    with pytest.raises(Unauthorized):
        await door.admit(visit)
    door.left(visit)
    (row,) = told(server)
    assert (row.state, row.user, row.reason) == (StreamState.REFUSED, "ada", "UNAUTHORIZED")
    await door.close()


async def test_who_may_not_enter_by_ssh_is_recorded(server: Served) -> None:
    door = SshDoor(server.services)
    session = await running(server)
    await token(server, "t-eve", "eve", "member")
    with pytest.raises(NotFound):
        await let_in(door, "nb", "eve", "t-eve")
    (row,) = told(server)
    assert (row.state, row.user, row.door, row.session) == (StreamState.REFUSED, "eve", "ssh", session)
    await door.close()
