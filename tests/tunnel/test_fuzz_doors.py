"""Anything at all may come to a door, in a message, or inside an encrypted stream: it is refused, and nothing stays."""

import asyncio
import contextlib
import hmac
import ssl
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tunnel.conftest import join
from tests.tunnel.ends import SeededChance
from tests.tunnel.site import AGENT
from tests.tunnel.test_innertls import End
from tests.tunnel.test_wire import DECODERS, GOLDEN
from tunnel import exec as programs
from tunnel import websocket, wire
from tunnel.directline import DirectDoor
from tunnel.door import Door, framed, payload_of
from tunnel.grant import BadGrant, Grant, agent_key, for_agent, relay_key, seal
from tunnel.identity import AgentIdentity, Authority
from tunnel.innertls import OwnKey, towards_agent, towards_user
from tunnel.relay import Relay

SECRET = b"s" * 32
DEEP = b"\x91" * 3000 + b"\xc0"
"""A list in a list in a list: more than this interpreter's stack takes."""
TEXT = wire.encode(wire.OpenStream(run="s-1")).replace(b"s-1", b"\xff\xfe\xfd")
NESTED = b"\x82\xa1t\xa5leave\xa1x" + DEEP


@pytest.mark.parametrize("data", [DEEP, TEXT, NESTED], ids=["deep", "no text", "deep inside"])
@pytest.mark.parametrize("side", DECODERS)
def test_what_msgspec_stumbles_over_is_a_protocol_error(side: str, data: bytes) -> None:
    with pytest.raises(wire.ProtocolError):
        DECODERS[side](data)


@pytest.mark.parametrize("data", [DEEP, b"\x81\xa7command\xa2\xff\xfe"])
def test_an_order_for_a_program_is_no_better(data: bytes) -> None:
    with pytest.raises(programs.ExecError):
        programs.read(data, programs.Order)


@given(st.sampled_from(GOLDEN), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=5))
@settings(max_examples=400)
def test_a_changed_message_is_another_or_refused(sample: dict[str, str], changes: list[tuple[int, int]]) -> None:
    raw = bytearray.fromhex(sample["bytes"])
    for at, value in changes:
        raw[at % len(raw)] = value
    with contextlib.suppress(wire.ProtocolError):
        assert DECODERS[sample["from"]](bytes(raw)) is not None


@given(st.binary(max_size=300), st.binary(max_size=80))
def test_any_answer_opens_a_websocket_or_says_why_not(head: bytes, key: bytes) -> None:
    for answer in (head, b"HTTP/1.1 101 Switching Protocols\r\n" + head):
        with contextlib.suppress(websocket.WebSocketError):
            websocket.check_upgraded(answer, key.hex())
            raise AssertionError("nobody can know the answer to the key")


class Pipe(asyncio.Transport):
    """A connection that keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    abort = close

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("192.0.2.1", 5000) if name == "peername" else default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


def check(opening: wire.OpenStream) -> Grant | None:
    return for_agent(opening.grant, agent_key(SECRET, AGENT, 0), time.time())


DOORS: dict[str, Callable[[], Door | DirectDoor]] = {
    "a relay's": lambda: Door(Relay(SeededChance()), relay_key(SECRET), time.time),
    "an agent's own": lambda: DirectDoor(check, lambda _: None),
}


@st.composite
def openings(draw: st.DrawFn) -> bytes:
    """What somebody says at a door: noise, a frame of noise, an opening with any grant, or one with a changed one."""
    kind = draw(st.integers(0, 3))
    noise = draw(st.binary(max_size=120))
    if kind == 0:
        return noise
    if kind == 1:
        return framed(draw(st.sampled_from([noise, DEEP, TEXT])))
    grant = Grant(id=b"g", agent=AGENT, run="s-1.1.0", project="p", session="s-1", expires_at=9e9, user="u", token="t")
    sealed = bytearray(seal(grant, relay_key(SECRET), agent_key(SECRET, AGENT, 0)))
    for at in draw(st.lists(st.integers(0, len(sealed) - 1), max_size=3)):
        sealed[at] ^= 1
    run = draw(st.sampled_from(["s-1.1.0", "s-2.1.0", ""]))
    resume = draw(st.sampled_from([b"", b"r" * 16]))
    opening = wire.OpenStream(run=run, resume=resume, grant=bytes(sealed) if kind == 2 else noise)
    return framed(wire.encode(opening)) + draw(st.sampled_from([b"", b"more"]))


@pytest.mark.parametrize("which", DOORS)
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_nobody_gets_in_with_noise_and_each_is_answered_once(which: str, data: st.DataObject) -> None:
    said = data.draw(openings())
    cuts = sorted(data.draw(st.lists(st.integers(0, len(said)), max_size=4)))

    async def main() -> None:
        failed: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context))
        door, pipe = DOORS[which](), Pipe()
        visit = door.accept()
        visit.connection_made(pipe)
        for start, end in zip([0, *cuts], [*cuts, len(said)], strict=True):
            visit.data_received(said[start:end])
            await asyncio.sleep(0)
        for _ in range(3):
            await asyncio.sleep(0)
        answer = payload_of(pipe.sent)
        assert bool(pipe.closing) == (answer is not None), "who is answered is refused and closed"
        if answer is not None:
            assert wire.decode_answer(answer).code in ("INVALID", "UNAUTHORIZED", "UNAVAILABLE")
            assert door.refused.total() == 1
        else:
            assert payload_of(said) is None, "who has said everything is answered"
        if answer is not None:
            visit.data_received(bytes(100_000))
            assert payload_of(pipe.sent) == answer, "answered once"
            assert len(visit._head) < 10_000, "what comes after that is not kept"
        visit.connection_lost(None)
        await asyncio.sleep(0)
        assert not failed

    asyncio.run(main())


@pytest.fixture(scope="module")
def own() -> OwnKey:
    return OwnKey(time.time())


@pytest.fixture(scope="module")
def identity(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> AgentIdentity:
    return join(authority, tmp_path_factory.mktemp("agent"), "https://127.0.0.1:1", AGENT)


class Stream(Pipe):
    """What carries an encrypted stream from one end to the other, and changes what passes."""

    def __init__(self) -> None:
        super().__init__()
        self.reasons: list[str] = []

    def reset(self, reason: str) -> None:
        self.reasons.append(reason)
        self.closing = True

    def take(self) -> bytes:
        sent, self.sent = self.sent, b""
        return sent


SAID = (b"from the user", b"from the agent")
Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


@pytest.fixture(scope="module")
def contexts(authority: Authority, own: OwnKey, identity: AgentIdentity) -> Contexts:
    return own.context(authority.ca_pem), identity.inner_context(own.certificate)


async def carried(
    contexts: Contexts, own: OwnKey, disturb: Callable[[int, int, bytes], bytes]
) -> tuple[tuple[End, Stream], tuple[End, Stream]]:
    """Let both ends speak over streams on which `disturb(turn, end, bytes)` says what comes of what an end has sent."""
    ends, ways = (End(), End()), (Stream(), Stream())
    inner = towards_agent(contexts[0], AGENT, ends[0]), towards_user(contexts[1], own.certificate, ends[1])
    for which in (0, 1):
        inner[which].connection_made(ways[which])
    for turn in range(8):
        for which in (0, 1):
            if turn == 4 and ends[which].transport is not None:
                inner[which].write(SAID[which])
            if passing := ways[which].take():
                inner[1 - which].data_received(disturb(turn, which, passing))
    for each in inner:
        each.connection_lost(None)
    return (ends[0], ways[0]), (ends[1], ways[1])


def test_an_encrypted_stream_that_nobody_disturbs_brings_everything(contexts: Contexts, own: OwnKey) -> None:
    (user, _), (agent, _) = asyncio.run(carried(contexts, own, lambda _turn, _end, data: data))
    assert (bytes(agent.got), bytes(user.got)) == SAID


@settings(max_examples=100)
@given(
    where=st.tuples(st.integers(0, 5), st.integers(0, 1)),
    at=st.integers(0, 4000),
    how=st.sampled_from(["change", "cut", "insert", "noise", "twice"]),
    noise=st.binary(min_size=1, max_size=60),
)
def test_who_carries_an_encrypted_stream_can_only_break_it(
    contexts: Contexts, own: OwnKey, where: tuple[int, int], at: int, how: str, noise: bytes
) -> None:
    def disturb(turn: int, end: int, data: bytes) -> bytes:
        return disturbed(data, how, at % len(data), noise) if (turn, end) == where else data

    both = asyncio.run(carried(contexts, own, disturb))
    for which, (end, way) in enumerate(both):
        assert SAID[1 - which].startswith(bytes(end.got)), "nothing but what the other end has said"
        assert end.error is not None or not way.reasons


def disturbed(data: bytes, how: str, at: int, noise: bytes) -> bytes:
    """Return bytes as somebody on the way may pass them on."""
    changed = bytes(a ^ b for a, b in zip(data[at : at + len(noise)], noise, strict=False))
    return {
        "change": data[:at] + changed + data[at + len(noise) :],
        "cut": data[:at],
        "insert": data[:at] + noise + data[at:],
        "noise": noise,
        "twice": data + data,
    }[how]


def test_a_sealed_grant_that_is_no_grant_is_refused() -> None:
    key, other = agent_key(SECRET, AGENT, 0), relay_key(SECRET)
    for payload in (DEEP, TEXT, b"\xc1"):
        inner = hmac.digest(other, payload, "sha256") + payload
        with pytest.raises(BadGrant):
            for_agent(hmac.digest(key, inner, "sha256") + inner, key, 0.0)
