"""Who passes the control plane's door for users' streams, besides a good grant, and who is sent home."""

import asyncio
import time

import pytest

from atoll.agent import Agent
from atoll.errors import AtollError, Conflict, Forbidden, Unauthorized
from atoll.event import Event
from atoll.session import Member, MemberState
from atoll.slots import Slots
from atoll.states import AgentState, SessionState
from atoll.token import Token, TokenKind
from federation.gateway.userdoor import UserDoor
from tests.fakes.plane import NOW
from tests.federation.served import Served
from tunnel.door import Visit
from tunnel.grant import Grant
from tunnel.relay import Relay


class Caller(Visit):
    """A visit whose end is written down."""

    def __init__(self, grant: Grant) -> None:
        super().__init__(None)  # type: ignore[arg-type]
        self.grant = grant
        self.told: list[str] = []

    def end(self, reason: str) -> None:
        self.told.append(reason)


def grant(session: str, *, user: str = "ada", token: str = "t-ada", agent: str = "a-1") -> Grant:
    return Grant(
        id=b"g", agent=agent, run=f"{session}.1.0", project="default", session=session, expires_at=time.time() + 60,
        user=user, token=token, port=80,
    )  # fmt: skip


async def house(server: Served) -> tuple[UserDoor, str]:
    plane = server.plane
    row = await plane.sessions.get("default", (await server.submit(name="nb")).id)
    member = Member(rank=0, agent="a-1", slots=Slots(1000), state=MemberState.RUNNING, started_at=NOW)
    row = await plane.change(row, state=SessionState.RUNNING, attempt=1, started_at=NOW, members=(member,))
    async with plane.store.transaction() as tx:
        await tx.insert(Token(id="t-ada", kind=TokenKind.API, owner="ada"))
        await tx.insert(Token(id="t-join", kind=TokenKind.JOIN, owner="ada"))
        await tx.insert(Agent(id="a-1", name="box", site="here", group="here", joined_at=NOW))
        await tx.insert(
            Agent(id="a-9", name="gone", site="here", group="here", joined_at=NOW, state=AgentState.REVOKED)
        )
    return UserDoor(plane, Relay(plane.chance), time.time), row.id


REFUSED: dict[str, tuple[dict[str, str], type[AtollError]]] = {
    "no token": ({"token": ""}, Forbidden),
    "no user": ({"user": ""}, Forbidden),
    "a token that is gone": ({"token": "t-gone"}, Unauthorized),
    "another's token": ({"user": "bo"}, Unauthorized),
    "a join token": ({"token": "t-join"}, Unauthorized),
    "a revoked agent": ({"agent": "a-9"}, Conflict),
    "an unknown agent": ({"agent": "a-8"}, Conflict),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_a_good_grant_is_not_enough(server: Served, what: str) -> None:
    door, session = await house(server)
    fields, kind = REFUSED[what]
    visit = Caller(grant(session, **fields))
    with pytest.raises(kind):
        await door.admit(visit)
    door.left(visit)
    await door.close()
    assert visit.told == []


async def ended(visit: Caller, within: float = 30.0) -> str:
    async with asyncio.timeout(within):
        while not visit.told:
            await asyncio.sleep(0.01)
    return visit.told[0]


async def test_a_deleted_token_sends_home_whom_it_let_in(server: Served) -> None:
    door, session = await house(server)
    visit = Caller(grant(session))
    await door.admit(visit)
    async with server.plane.store.transaction() as tx:
        await tx.delete(Token, "t-ada")
        await tx.append(Event(kind="token", key="t-ada", state="deleted", at=NOW))
    server.plane.bus.publish("events")
    assert "token was deleted" in await ended(visit)
    with pytest.raises(Unauthorized):
        await door.admit(Caller(grant(session)))
    await door.close()


async def test_a_session_that_ends_sends_its_visitors_home(server: Served) -> None:
    door, session = await house(server)
    visit, gone = Caller(grant(session)), Caller(grant(session))
    await door.admit(gone)
    door.left(gone)
    await door.admit(visit)
    row = await server.plane.sessions.get("default", session)
    await server.plane.change(row, state=SessionState.FAILED)
    assert "has ended" in await ended(visit)
    assert gone.told == []
    with pytest.raises(Conflict, match="ended"):
        await door.admit(Caller(grant(session)))
    await door.close()


async def test_visitors_are_sent_home_when_the_door_closes(server: Served) -> None:
    door, session = await house(server)
    visit = Caller(grant(session))
    await door.admit(visit)
    await door.close()
    assert visit.told == ["the control plane is stopping"]
