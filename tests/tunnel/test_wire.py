"""Messages of the spoken protocols as bytes: a peer of such a version must be understood for ever."""

import contextlib
import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel import wire

SAMPLES = {
    protocol: json.loads((Path(__file__).parent / "golden" / f"protocol-{protocol}.json").read_text())
    for protocol in (wire.PROTOCOL - 1, wire.PROTOCOL)
}
GOLDEN = SAMPLES[wire.PROTOCOL]
DECODERS = {
    "agent": wire.decode_from_agent,
    "control": wire.decode_from_control,
    "open": wire.decode_open,
}


@pytest.mark.parametrize("protocol", SAMPLES)
def test_golden_messages_are_read_as_ever(protocol: int) -> None:
    for sample in SAMPLES[protocol]:
        message = DECODERS[sample["from"]](bytes.fromhex(sample["bytes"]))
        assert repr(message) == sample["means"]


@pytest.mark.parametrize("sample", GOLDEN, ids=[f"{s['from']}-{s['name']}" for s in GOLDEN])
def test_messages_of_this_protocol_are_written_as_ever(sample: dict[str, str]) -> None:
    message = DECODERS[sample["from"]](bytes.fromhex(sample["bytes"]))
    assert wire.encode(message).hex() == sample["bytes"]


def test_messages_that_the_last_protocol_does_not_know_are_those_that_are_not_sent_to_it() -> None:
    known = {(s["from"], s["name"]) for s in SAMPLES[wire.PROTOCOL - 1]}
    new = {(s["from"], s["name"]) for s in GOLDEN} - known
    to_and_from_relays = {"Attach", "Attached", "Serving", "RelayTerms", "Expel", "Evict", "Drain"}
    assert {each for each in new if each[1] not in to_and_from_relays} == {
        ("agent", "RelayLinks"), ("agent", "Inside"), ("agent", "MeshStatus"), ("agent", "Kept"), ("control", "Trust"),
        ("control", "Dial"), ("control", "Relays"),
        ("control", "MeshWanted"), ("agent", "StreamReports"), ("control", "Noted"),
    }  # fmt: skip
    assert wire.PROTOCOL == wire.DIALS == wire.RELAYS


def test_every_message_has_a_golden_sample() -> None:
    unions = {"agent": wire.FromAgent, "control": wire.FromControl}
    for side, union in unions.items():
        assert {kind.__name__ for kind in union.__args__} == {s["name"] for s in GOLDEN if s["from"] == side}


def test_unknown_fields_are_ignored() -> None:
    raw = msgspec.msgpack.encode({"t": "leave", "reason": "r", "since_protocol_9": [1]})
    assert wire.decode_from_agent(raw) == wire.Leave(reason="r")


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    for decode in DECODERS.values():
        with contextlib.suppress(wire.ProtocolError):
            assert decode(data) is not None
