"""Who listens on a port: the kernel's two ways of telling agree, and only the asked processes count."""

import os
import socket

import pytest

from agent.runtime.sockets import _asked, _read, listener

HOSTS = [
    (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
    (socket.AF_INET, "0.0.0.0", "127.0.0.1"),
    (socket.AF_INET6, "::1", "::1"),
    (socket.AF_INET6, "::", "::1"),
]


@pytest.mark.parametrize(("family", "host", "dialled"), HOSTS)
def test_a_listener_is_found_by_both_ways_while_it_listens(family: int, host: str, dialled: str) -> None:
    with socket.create_server((host, 0), family=family) as server:
        port = server.getsockname()[1]
        inode = str(os.fstat(server.fileno()).st_ino)
        assert dict(_read(port)) == {inode: dialled}
        assert dict(_asked(port)) == {inode: dialled}
        assert listener([os.getpid()], port) == dialled
        assert listener([1], port) is None
        connected = socket.create_connection((dialled, port))  # a connection of that port is no listener
    assert listener([os.getpid()], port) is None
    assert dict(_asked(port)) == {}
    connected.close()
