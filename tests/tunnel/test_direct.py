"""An agent's own door: reached by its address, with a grant that the agent checks; and what comes in its place."""

import asyncio
import hashlib
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec import structs

from agent.direct import Direct
from agent.permission import Permission
from atoll.errors import AtollError, Forbidden, Invalid, Unauthorized, Unavailable
from atoll.host.system import SystemChance, SystemClock
from tests.ports import free_port
from tests.tunnel.conftest import join
from tests.tunnel.doors import KEY, permit
from tests.tunnel.ends import until
from tests.tunnel.site import AGENT
from tunnel import wire
from tunnel.dialer import DIAL_TIMEOUT_S
from tunnel.door import Way
from tunnel.identity import Authority
from tunnel.resumables import Resumables
from tunnel.userstream import DIRECT_S, Permit, UserStream, enter


class Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)  # type: ignore[attr-defined]


class User(asyncio.Protocol):
    def __init__(self) -> None:
        self.data = b""
        self.lost: list[Exception | None] = []

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)


class Machine:
    """An agent with a door of its own."""

    def __init__(self, authority: Authority, folder: Path) -> None:
        self.port = free_port()
        self.ca = authority.ca_pem
        identity = join(authority, folder, "https://127.0.0.1:1", AGENT)
        self.permission = Permission(SystemClock())
        self.permission.welcomed(wire.Welcome(protocol=3, epoch=1, kill=[], forget=[], grant_key=KEY, now=time.time()))
        self.streams = Resumables()
        self.served = True
        self.direct = Direct(f"127.0.0.1:{self.port}", identity.direct_context)
        self.direct.attach(self.permission.check, self.serve)

    @property
    def way(self) -> Way:
        return Way("127.0.0.1", self.port, AGENT + wire.AGENT_NAMES)

    def serve(self, opening: wire.OpenStream) -> asyncio.Protocol | None:
        return self.streams.lane(opening.resume, opening.run, Echo) if self.served else None

    def permit(self, *others: Way, **fields: object) -> Permit:
        given = permit(self.port, self.ca, **fields)  # type: ignore[arg-type]
        return Permit(given.agent, given.opening, [self.way, *others], given.ca, given.life_s)


@asynccontextmanager
async def machine(authority: Authority, folder: Path) -> AsyncIterator[Machine]:
    made = Machine(authority, folder)
    task = asyncio.create_task(made.direct.run())
    try:
        await until(lambda: made.direct._acceptor is not None)
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        made.streams.close("test over")
        await made.direct.close()
        await asyncio.sleep(0.05)


async def no_other(_stream: bytes) -> Permit:
    raise Unavailable("there is no other permit")


def stream(given: Permit, user: User) -> UserStream:
    made = UserStream(given, no_other, {}, chance=SystemChance())
    made.attach(user)
    made.start()
    return made


CLIENT = b"the certificate of the user's own key"


@pytest.mark.parametrize("client", [b"", CLIENT], ids=["TLS", "bare"])
async def test_a_user_reaches_the_machine_itself(authority: Authority, tmp_path: Path, client: bytes) -> None:
    async with machine(authority, tmp_path) as at:
        answers: list[wire.Answer] = []
        user = User()
        given = at.permit(client=hashlib.sha256(client).digest() if client else b"")
        made = stream(replace(given, opening=structs.replace(given.opening, client=client)), user)
        made.on_enter = lambda way, answer: answers.append(answer)
        made.write(b"x" * 300_000)
        await until(lambda: len(user.data) == 300_000)
        assert (made.entered, answers[0].lane, answers[0].bare) == (at.way, "direct", bool(client))
        # It goes on when the way breaks.
        for line in list(at.direct._door._lines):  # type: ignore[union-attr]
            line.abort()
        made.write(b"more")
        await until(lambda: user.data.endswith(b"more"))
        assert made.resumed == 1
        made.close()
        await until(lambda: user.lost == [None])


REFUSED: dict[str, tuple[dict[str, object], type[AtollError]]] = {
    "no user": ({"user": ""}, Forbidden),
    "no credential": ({"token": ""}, Forbidden),
    "for another port": ({"port": 81}, Unauthorized),
    "expired": ({"expires_at": 1.0}, Unauthorized),
    "a program": ({"exec": True}, Unauthorized),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_without_a_good_grant_nobody_comes_in(authority: Authority, tmp_path: Path, what: str) -> None:
    fields, kind = REFUSED[what]
    async with machine(authority, tmp_path) as at:
        with pytest.raises(kind):
            await enter(at.way, at.permit(**fields), {}, User)
        given = at.permit()
        forged = structs.replace(given.opening, grant=given.opening.grant[:-1] + b"?")
        with pytest.raises(Unauthorized):
            await enter(at.way, Permit(AGENT, forged, [], given.ca, 60.0), {}, User)
        plain = structs.replace(given.opening, resume=b"")
        with pytest.raises(Unauthorized):  # the grant is for a stream that resumes
            await enter(at.way, Permit(AGENT, plain, [], given.ca, 60.0), {}, User)
        at.served = False
        with pytest.raises(Unavailable):
            await enter(at.way, given, {}, User)
        assert at.direct._door is not None
        assert at.direct._door.tokens == []


async def test_before_the_control_plane_gave_a_key_nobody_comes_in(authority: Authority, tmp_path: Path) -> None:
    async with machine(authority, tmp_path) as at:
        at.permission._key = b""
        with pytest.raises(Unauthorized):
            await enter(at.way, at.permit(), {}, User)
        at.permission._needed = False  # an old control plane makes no grants: then this door stays shut
        with pytest.raises(Forbidden):
            await enter(at.way, at.permit(), {}, User)


async def test_another_machine_at_that_address_is_not_believed(authority: Authority, tmp_path: Path) -> None:
    async with machine(authority, tmp_path) as at:
        with pytest.raises(OSError, match="certificate verify failed"):
            await enter(Way("127.0.0.1", at.port, "a-2" + wire.AGENT_NAMES), at.permit(), {}, User)


async def test_a_deleted_token_ends_its_bearers_streams_and_no_others(authority: Authority, tmp_path: Path) -> None:
    async with machine(authority, tmp_path) as at:
        users = [User(), User()]
        made = [stream(at.permit(token=token), user) for token, user in zip(("t-a", "t-b"), users, strict=True)]
        for each in made:
            each.write(b"hi")
        await until(lambda: all(user.data for user in users))
        sent: list[wire.Message] = []
        at.direct.welcomed(wire.Welcome(protocol=3, epoch=1, kill=[], forget=[]), sent.append)
        assert sent == [wire.Inside(tokens=["t-a", "t-b"])]
        more = [stream(at.permit(token=token), User()) for token in ("t-b", "t-c")]
        await until(lambda: sent[1:] == [wire.Inside(tokens=["t-a", "t-b", "t-c"])])
        for each in more:
            each.abort()
        made[0]._permit = Permit(AGENT, made[0]._permit.opening, [], at.ca, 60.0)
        at.direct.evict(["t-a"])
        await until(lambda: not made[0].attached)
        assert made[1].attached
        assert at.direct._door is not None
        await until(lambda: at.direct._door is not None and at.direct._door.tokens == ["t-b"])
        for each in made:
            each.abort()


async def test_an_address_that_answers_nothing_costs_a_second_at_most(authority: Authority, tmp_path: Path) -> None:
    async with machine(authority, tmp_path) as at:
        silent = socket.create_server(("127.0.0.1", 0))
        missed: list[Way] = []
        dead = Way("127.0.0.1", silent.getsockname()[1], "a-9" + wire.AGENT_NAMES)
        given = at.permit()
        user = User()
        made = UserStream(
            Permit(AGENT, given.opening, [dead, at.way], given.ca, 60.0), no_other, {}, chance=SystemChance()
        )
        made.on_miss = missed.append
        made.attach(user)
        loop = asyncio.get_running_loop()
        began = loop.time()
        made.start()
        made.write(b"hi")
        await until(lambda: user.data == b"hi")
        assert DIRECT_S <= loop.time() - began < DIAL_TIMEOUT_S
        assert missed == [dead]
        made.abort()
        silent.close()


def test_an_address_must_be_one_that_users_can_dial(tmp_path: Path) -> None:
    from agent import direct

    path = tmp_path / "direct.json"
    assert direct.load(path) == ""
    direct.save(path, "192.0.2.7:7443")
    assert direct.load(path) == "192.0.2.7:7443"
    for wrong in ("0.0.0.0:7443", "[::]:7443", "192.0.2.7", "192.0.2.7:0", ":7443"):
        with pytest.raises(Invalid):
            direct.save(path, wrong)
    direct.save(path, "")
    assert direct.load(path) == ""
    path.write_text("{")
    with pytest.raises(Invalid, match="damaged"):
        direct.load(path)
