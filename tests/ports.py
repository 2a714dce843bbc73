"""Ports of loopback for servers that begin to listen later, whatever runs beside the test."""

import os
import random
import re
import socket

_FIRST, _END = 10_000, 32_768
"""Below those that Linux takes for connections and for port 0, unless it is told otherwise."""
_WORKERS = 16
_chance = random.SystemRandom()
_given: set[int] = set()


def free_port() -> int:
    """Return a TCP port that nothing uses and that nobody else gets meanwhile: every process has its own of them."""
    worker = int(re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", "")) or 0) % _WORKERS
    while True:
        port = _chance.randrange(_FIRST + worker, _END, _WORKERS)
        if port not in _given and _is_free(port):
            _given.add(port)
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
