import socket
from collections.abc import Iterator
from pathlib import Path

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


def test_what_is_no_tcp_connection_is_left_alone() -> None:
    near, far = socket.socketpair()
    with near, far:
        tcp.tune(near)
        tcp.tune_link(near, 4096)
        assert tcp.silence(near) == 0.0
    tcp.tune(None)
    tcp.tune_link(None, 4096)
    assert tcp.silence(None) == 0.0
