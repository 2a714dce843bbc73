"""The client's side of a WebSocket, against the examples of RFC 6455 and against what no server may send."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.websocket import MESSAGE_LIMIT, Decoder, WebSocketError, check_upgraded, goodbye, message, new_key, upgrade

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPTED = (
    b"HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


def sent(data: bytes, code: int = 2, *, fin: bool = True) -> bytes:
    """Return a frame as a server sends it."""
    first, size = (0x80 if fin else 0) | code, len(data)
    if size < 126:
        return bytes([first, size]) + data
    if size < 0x10000:
        return struct.pack("!BBH", first, 126, size) + data
    return struct.pack("!BBQ", first, 127, size) + data


def unmasked(frame: bytes) -> tuple[int, bytes]:
    """Return a client's frame as a server reads it, byte by byte."""
    assert frame[0] & 0xF0 == 0x80
    assert frame[1] & 0x80
    size, at = frame[1] & 0x7F, 2
    if size > 125:
        width = 2 if size == 126 else 8
        size, at = int.from_bytes(frame[2 : 2 + width], "big"), 2 + width
    mask, data = frame[at : at + 4], frame[at + 4 :]
    assert len(data) == size
    return frame[0] & 0x0F, bytes(byte ^ mask[place % 4] for place, byte in enumerate(data))


def test_the_standards_own_handshake() -> None:
    check_upgraded(ACCEPTED, KEY)
    request = upgrade("atoll.example.org", "/v1/tunnel", KEY).decode()
    assert request.startswith("GET /v1/tunnel HTTP/1.1\r\nHost: atoll.example.org\r\n")
    assert f"\r\nSec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n" in request
    assert new_key() != new_key()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 404 Not Found\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nUpgrade: websocket\r\n\r\n",
        ACCEPTED.replace(b"s3pP", b"xxxx"),
        ACCEPTED.replace(b"upgrade: WebSocket\r\n", b""),
        b"\r\n\r\n",
        b"SSH-2.0-nothing\r\n\r\n",
    ],
)
def test_other_answers_open_nothing(answer: bytes) -> None:
    with pytest.raises(WebSocketError):
        check_upgraded(answer, KEY)


@pytest.mark.parametrize("size", [0, 1, 3, 125, 126, 127, 65535, 65536, 70001])
def test_messages_of_all_lengths_go_and_come(size: int) -> None:
    data = bytes(place % 251 for place in range(size))
    assert unmasked(message(data)) == (2, data)
    assert b"".join(Decoder().feed(sent(data))) == data


def test_no_two_frames_are_masked_alike() -> None:
    assert message(b"x" * 64) != message(b"x" * 64)


@given(st.lists(st.binary(max_size=400), max_size=6), st.lists(st.integers(1, 90), max_size=30))
def test_pieces_of_any_size_give_the_same(payloads: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(sent(payload) for payload in payloads)
    decoder, got = Decoder(), b""
    for cut in [*cuts, len(stream)]:
        got += b"".join(decoder.feed(stream[:cut]))
        stream = stream[cut:]
    got += b"".join(decoder.feed(stream))
    assert got == b"".join(payloads)


def test_fragments_pings_and_the_end() -> None:
    decoder = Decoder()
    stream = sent(b"one", fin=False) + sent(b"still there?", 9) + sent(b"two", 0) + sent(b"", 10)
    assert list(decoder.feed(stream)) == [b"one", b"two"]
    assert unmasked(bytes(decoder.replies)) == (10, b"still there?")
    decoder.replies.clear()
    assert list(decoder.feed(sent(struct.pack("!H", 1001) + b"bye", 8) + sent(b"late"))) == []
    assert decoder.closed
    assert unmasked(bytes(decoder.replies)) == (8, struct.pack("!H", 1001))
    assert unmasked(goodbye()) == (8, struct.pack("!H", 1000))


@pytest.mark.parametrize(
    "frame",
    [
        sent(b"text", 1),
        sent(b"x", 3),
        b"\xc2\x01x",  # compressed, which nobody offered
        b"\x82\x81maskx",
        b"\x82\x7f" + struct.pack("!Q", MESSAGE_LIMIT + 1),
        sent(b"p" * 126, 9),
        sent(b"", 9, fin=False),
    ],
)
def test_what_no_server_may_send_ends_it(frame: bytes) -> None:
    with pytest.raises(WebSocketError):
        list(Decoder().feed(frame))


@given(st.binary(max_size=300))
def test_no_bytes_do_more_harm_than_that(data: bytes) -> None:
    try:
        got = b"".join(Decoder().feed(data))
    except WebSocketError:
        return
    assert len(got) <= len(data)
