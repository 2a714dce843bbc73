"""`atoll forward` with a control plane that has no door for streams that resume: a WebSocket for each connection."""

import re
import signal
import socket
import subprocess
import sys

import msgspec

from atoll.client import Client
from tests.atoll.plane import TOKEN, Plane


def test_a_websocket_serves_where_there_is_no_door(logged_in: Plane) -> None:
    ref = Client(logged_in.url, TOKEN).submit({"command": ["true"]})[0].id
    logged_in.sessions[ref] = msgspec.structs.replace(logged_in.sessions[ref], state="running")
    command = [sys.executable, "-m", "atoll", "forward", ref, "0:8080"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"127\.0\.0\.1:(\d+) -> port 8080", process.stdout.readline())
            assert found
            with socket.create_connection(("127.0.0.1", int(found[1])), 20) as connection:
                connection.sendall(b"abc")
                connection.shutdown(socket.SHUT_WR)
                got = b""
                while data := connection.recv(4096):
                    got += data
            assert got == b"ABCport 8080"
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 0
            assert process.stderr is not None
            told = process.stderr.read()
        finally:
            process.kill()
    assert "through a WebSocket: a connection ends when its way breaks" in told
