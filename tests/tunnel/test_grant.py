"""Grants: no byte of one can be changed, and none is good at another place, later, or for another stream."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel import wire
from tunnel.frames import LIMITS, Kind
from tunnel.grant import LIMIT, BadGrant, Grant, agent_key, for_agent, for_relay, permits, relay_key, seal

SECRET = b"s" * 32
ME = "a-0123456789"
RELAY, AGENT = relay_key(SECRET), agent_key(SECRET, ME, 0)
NOW = 1_700_000_000.0

names = st.text(max_size=64)
ids = st.binary(min_size=16, max_size=16)
grants = st.builds(
    Grant,
    id=ids,
    agent=names,
    run=names,
    project=names,
    session=names,
    expires_at=st.floats(NOW + 1, NOW + 600),
    user=names,
    app=names,
    port=st.integers(0, 65535),
    exec=st.booleans(),
    resume=st.just(b"") | ids,
)


def opening(grant: Grant) -> wire.OpenStream:
    return wire.OpenStream(run=grant.run, app=grant.app, port=grant.port, exec=grant.exec, resume=grant.resume)


@given(grants)
def test_what_was_sealed_is_read_by_relay_and_agent(grant: Grant) -> None:
    sealed = seal(grant, RELAY, AGENT)
    assert for_relay(sealed, RELAY, NOW) == grant
    assert for_agent(sealed, AGENT, NOW) == grant
    assert permits(grant, opening(grant))


@given(grants, st.data())
def test_any_change_of_any_byte_is_refused(grant: Grant, data: st.DataObject) -> None:
    sealed = seal(grant, RELAY, AGENT)
    at = data.draw(st.integers(0, len(sealed) - 1))
    other = data.draw(st.integers(1, 255))
    changed = sealed[:at] + bytes([sealed[at] ^ other]) + sealed[at + 1 :]
    with pytest.raises(BadGrant):
        for_agent(changed, AGENT, NOW)
    if at >= 32:  # the agent's own tag means nothing to a relay
        with pytest.raises(BadGrant):
            for_relay(changed, RELAY, NOW)


def test_each_bit_of_one_grant() -> None:
    grant = Grant(id=bytes(16), agent=ME, run="s-1.1.0", project="default", session="s-1", expires_at=NOW + 1, port=80)
    sealed = seal(grant, RELAY, AGENT)
    for bit in range(8 * len(sealed)):
        changed = bytearray(sealed)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BadGrant):
            for_agent(bytes(changed), AGENT, NOW)


@given(grants, st.binary(min_size=1, max_size=40), st.data())
def test_more_or_less_bytes_are_refused(grant: Grant, more: bytes, data: st.DataObject) -> None:
    sealed = seal(grant, RELAY, AGENT)
    cut = data.draw(st.integers(0, len(sealed) - 1))
    for changed in (sealed + more, more + sealed, sealed[:cut]):
        for check, key in ((for_agent, AGENT), (for_relay, RELAY)):
            with pytest.raises(BadGrant):
                check(changed, key, NOW)


@given(st.binary(max_size=LIMIT + 100))
def test_any_other_bytes_are_refused(data: bytes) -> None:
    for check, key in ((for_agent, AGENT), (for_relay, RELAY)):
        with pytest.raises(BadGrant):
            check(data, key, NOW)


@given(grants, names.filter(lambda name: name != ME), st.integers(1, 99), st.binary(max_size=40))
def test_no_other_key_seals_for_an_agent(grant: Grant, other: str, generation: int, forged: bytes) -> None:
    for key in (agent_key(SECRET, other, 0), agent_key(SECRET, ME, generation), RELAY, forged):
        with pytest.raises(BadGrant, match="not made for this place"):
            for_agent(seal(grant, RELAY, key), AGENT, NOW)
    with pytest.raises(BadGrant, match="not made for this place"):
        for_relay(seal(grant, AGENT, AGENT), RELAY, NOW)


@given(grants)
def test_it_ends_when_it_says(grant: Grant) -> None:
    sealed = seal(grant, RELAY, AGENT)
    for check, key in ((for_agent, AGENT), (for_relay, RELAY)):
        for late in (grant.expires_at, grant.expires_at + 1, float("inf"), float("nan")):
            with pytest.raises(BadGrant, match="expired"):
                check(sealed, key, late)


@given(grants, grants)
def test_it_is_for_one_stream(grant: Grant, other: Grant) -> None:
    same = opening(grant) == opening(other)
    assert permits(grant, opening(other)) is same
    for field in ("run", "app", "port", "exec", "resume"):
        mixed = msgspec.structs.replace(opening(grant), **{field: getattr(other, field)})
        assert permits(grant, mixed) is (getattr(grant, field) == getattr(other, field))


def test_keys_do_not_run_into_each_other() -> None:
    pairs = [("a-1", 10), ("a-11", 0), ("a-1", 1), ("a-1", 0), ("a-10", 1)]
    keys = {agent_key(SECRET, agent, generation) for agent, generation in pairs}
    assert len(keys | {RELAY, SECRET}) == len(pairs) + 2


def test_an_opening_with_the_longest_grant_fits_a_frame() -> None:
    longest = wire.OpenStream(
        run="s-0123456789.999.999", app="x" * 64, port=65535, resume=bytes(16), grant=bytes(LIMIT)
    )
    assert len(wire.encode(longest)) < LIMITS[Kind.OPEN]
