import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tunnel import tcp

CONGESTION = getattr(socket, "TCP_CONGESTION", 13)
ALLOWED = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as near:
        far, _ = server.accept()
        with far:
            yield near, far


def test_real_connections_take_it_and_tell_of_silence(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    tcp.tune(near)
    tcp.tune_link(far, 4096)
    for each in pair:
        assert each.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert 0.0 <= tcp.silence(each) < 60.0
        if ALLOWED.exists() and "bbr" in ALLOWED.read_text().split():
            assert each.getsockopt(socket.IPPROTO_TCP, CONGESTION, 16).startswith(b"bbr")
    assert near.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_a_near_path_is_eased_and_needs_no_rousing(pair: tuple[socket.socket, socket.socket]) -> None:
    near, _ = pair
    tcp.tune(near)
    tcp.ease(near)
    assert tcp.rouse(near) == 0
    if ALLOWED.exists() and "cubic" in ALLOWED.read_text().split():
        assert near.getsockopt(socket.IPPROTO_TCP, CONGESTION, 16).startswith(b"cubic")


class Far:
    """A connection over 40 ms, as Linux tells of it."""

    def __init__(self, segment: int) -> None:
        self.told = bytearray(200)
        self.told[16:20] = segment.to_bytes(4, sys.byteorder)
        self.told[148:152] = (40_000).to_bytes(4, sys.byteorder)
        self.set: list[int] = []

    def getsockopt(self, _level: int, _option: int, size: int) -> bytes:
        return bytes(self.told[:size])

    def setsockopt(self, _level: int, option: int, _value: object) -> None:
        self.set.append(option)


@pytest.mark.parametrize(("segment", "roused"), [(1448, 1448), (8948, 8948), (65_483, 9000)])
def test_a_far_one_is_roused_by_a_packet_more_and_keeps_bbr(segment: int, roused: int) -> None:
    far: Any = Far(segment)
    assert tcp.rouse(far) == roused
    tcp.ease(far)
    assert far.set == []
    far.told = far.told[:120]  # an older kernel's
    assert tcp.rouse(far) == 0
    tcp.ease(far)
    assert far.set == []


def test_what_is_no_tcp_connection_is_left_alone() -> None:
    near, far = socket.socketpair()
    with near, far:
        tcp.tune(near)
        tcp.tune_link(near, 4096)
        tcp.ease(near)
        assert tcp.silence(near) == tcp.rouse(near) == 0.0
    tcp.ease(None)
    assert tcp.rouse(None) == 0
    tcp.tune(None)
    tcp.tune_link(None, 4096)
    assert tcp.silence(None) == 0.0
