"""An agent serves no stream without a grant of just that stream, checked by itself, on whatever lane it comes."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from msgspec import structs

from agent.permission import Permission
from atoll.host.system import SystemChance
from tests.agent.control import ME, RUN, until
from tests.agent.test_run import Echo, House, User
from tunnel import wire
from tunnel.grant import LIFE_S, BadGrant, Grant, agent_key, relay_key, seal
from tunnel.lanes import Lane, Use
from tunnel.relay import Relay
from tunnel.stream import StreamReset

SECRET = b"s" * 32
KEY = agent_key(SECRET, ME, 0)
NOW = 1_700_000_000.0
GOOD = Grant(
    id=bytes(16), agent=ME, run=RUN, project="default", session="s-7k2m9q4x1c", expires_at=NOW + LIFE_S, port=8080
)


def opening(grant: Grant, key: bytes = KEY) -> wire.OpenStream:
    asked = wire.OpenStream(run=grant.run, app=grant.app, port=grant.port, exec=grant.exec, resume=grant.resume)
    return structs.replace(asked, grant=seal(grant, relay_key(SECRET), key))


class StoppedClock:
    """The agent's clock, far from the control plane's."""

    at = 5.0

    def now(self) -> float:
        return 0.0

    def monotonic(self) -> float:
        return self.at


def welcomed(protocol: int = wire.GRANTS, key: bytes = KEY) -> tuple[Permission, StoppedClock]:
    clock = StoppedClock()
    permission = Permission(clock)
    permission.welcomed(wire.Welcome(protocol=protocol, epoch=1, kill=[], forget=[], grant_key=key, now=NOW))
    return permission, clock


BAD = {
    "none": wire.OpenStream(run=RUN, port=8080),
    "another run": structs.replace(opening(GOOD), run="s-other00000.1.0"),
    "another port": structs.replace(opening(GOOD), port=8081),
    "an app": structs.replace(opening(GOOD), app="web"),
    "a program": structs.replace(opening(GOOD), exec=True),
    "another stream": structs.replace(opening(structs.replace(GOOD, resume=bytes(16))), resume=b"x" * 16),
    "resumed": structs.replace(opening(GOOD), resume=bytes(16)),
    "expired": opening(structs.replace(GOOD, expires_at=NOW)),
    "forged": opening(GOOD, b"f" * 32),
    "another agent's": opening(GOOD, agent_key(SECRET, "a-other", 0)),
    "another generation's": opening(GOOD, agent_key(SECRET, ME, 1)),
    "by a relay": opening(GOOD, relay_key(SECRET)),
}


@pytest.mark.parametrize("asked", BAD.values(), ids=BAD)
def test_what_is_not_granted_is_refused(asked: wire.OpenStream) -> None:
    with pytest.raises(BadGrant):
        welcomed()[0].check(asked)


def test_a_grant_counts_by_the_control_planes_time_until_it_ends() -> None:
    permission, clock = welcomed()
    permission.check(opening(GOOD))
    clock.at += LIFE_S - 0.1
    permission.check(opening(GOOD))
    clock.at += 0.2
    with pytest.raises(BadGrant, match="expired"):
        permission.check(opening(GOOD))


def test_nothing_is_let_in_before_a_welcome_and_without_a_key() -> None:
    for permission in (Permission(StoppedClock()), welcomed(key=b"")[0]):
        with pytest.raises(BadGrant, match="no key"):
            permission.check(opening(GOOD, b""))


def test_a_control_plane_of_the_protocol_before_makes_no_grants() -> None:
    welcomed(wire.GRANTS - 1, b"")[0].check(wire.OpenStream(run=RUN, port=8080))


@pytest.fixture
async def house() -> AsyncIterator[tuple[House, Relay]]:
    """An agent with a run that listens on 8080, and a relay for both kinds of lane."""
    house, relay = House(), Relay(SystemChance())
    house.network.listen(house.control.accept, relay.accept)
    house.control.welcome = {"protocol": wire.GRANTS, "grant_key": KEY, "now": NOW}
    house.begin(lines=house.network.dialer(ME, data=True))
    await house.registered()
    house.runtime.apps[8080] = Echo
    house.control.start(apps={"web": 8080})
    await until(lambda: house.control.states() == ["starting", "running"])
    assert house.control.link is not None
    relay.linked(ME, house.control.link, boot="b", dials=True)
    yield house, relay
    await house.shell.stop()
    await asyncio.gather(house.task, return_exceptions=True)
    relay.close("test over")


@pytest.mark.parametrize("lane", [Lane.MUX, Lane.DATA])
@pytest.mark.parametrize("asked", BAD.values(), ids=BAD)
async def test_no_lane_leads_around_it(house: tuple[House, Relay], asked: wire.OpenStream, lane: Lane) -> None:
    user = User()
    await house[1].open(ME, asked, user, use=Use.BULK, lane=lane)
    await until(lambda: user.lost)
    assert user.got == b""
    if lane is Lane.MUX:
        assert isinstance(user.lost, StreamReset)


async def test_what_is_granted_is_served(house: tuple[House, Relay]) -> None:
    user = User()
    opened = await house[1].open(ME, opening(GOOD), user, lane=Lane.MUX)
    opened.transport.write(b"hello")
    await until(lambda: user.got == b"hello")
    opened.transport.abort()
