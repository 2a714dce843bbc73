"""Whom a TLS client means, and what it speaks, read from its first bytes."""

import contextlib
import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.hello import HELLO_LIMIT, RECORDS_LIMIT, Hello, More, NotHello, read


def first_bytes(name: str | None, protocols: list[str]) -> bytes:
    """Return the ClientHello of Python's own TLS client."""
    context = ssl.create_default_context()
    context.check_hostname = False
    if protocols:
        context.set_alpn_protocols(protocols)
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("name", [None, "relay.atoll.internal", "Relay.Example.COM", "192.0.2.1"])
@pytest.mark.parametrize("protocols", [[], ["http/1.1"], ["h2", "atoll-relay/1"]])
def test_name_and_protocols_are_read(name: str | None, protocols: list[str]) -> None:
    found = read(first_bytes(name, protocols))
    assert found == Hello("" if name in (None, "192.0.2.1") else str(name).lower(), tuple(protocols))


def spread(whole: bytes, size: int) -> bytes:
    """Return the same hello in records of so many bytes."""
    message = whole[5:]
    parts = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(whole[:3] + len(part).to_bytes(2, "big") + part for part in parts)


def test_a_hello_may_be_spread_over_some_records_and_not_over_thousands() -> None:
    """Whoever sends them one by one has all before read again each time."""
    whole = first_bytes("relay.atoll.internal", ["atoll-relay/1"])
    message = len(whole) - 5
    few = spread(whole, -(-message // RECORDS_LIMIT))
    assert read(few) == read(whole)
    assert reads_of(spread(whole, 1)) <= 2 * RECORDS_LIMIT + 1


def reads_of(data: bytes) -> int:
    """Return how often bytes are read that come one by one, until they are refused."""
    reads, size = 0, 1
    with contextlib.suppress(NotHello):
        while isinstance(answer := read(data[:size]), More):
            reads, size = reads + 1, answer.size
        raise AssertionError("never refused")
    return reads


def test_a_hello_cut_short_asks_for_more() -> None:
    whole = first_bytes("relay.atoll.internal", ["atoll-relay/1"])
    for size in range(len(whole)):
        answer = read(whole[:size])
        assert isinstance(answer, More)
        assert size < answer.size <= len(whole)


@given(st.binary(max_size=400))
def test_any_bytes_are_a_hello_or_none(data: bytes) -> None:
    with contextlib.suppress(NotHello):
        answer = read(b"\x16\x03\x01" + data)
        assert isinstance(answer, Hello) or answer.size <= HELLO_LIMIT


@given(st.data())
def test_a_damaged_hello_does_no_harm(data: st.DataObject) -> None:
    whole = bytearray(first_bytes("relay.atoll.internal", ["atoll-relay/1"]))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(NotHello):
        assert isinstance(read(bytes(whole)), Hello | More)
