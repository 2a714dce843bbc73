"""An agent behind a load balancer that opens TLS (haproxy): it joins and works inside a WebSocket, by itself."""

import json
import os
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.installation import Installation, free_port
from tests.e2e.processes import end_all, listens
from tests.e2e.streams import Download, seeded_server
from tests.e2e.waiting import until
from tunnel.certificates import new_authority, new_key, new_server
from tunnel.jointoken import JoinToken

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.xdist_group("sites")]


class Balancer:
    """haproxy in mode http with a certificate of its own, in front of an HTTP port of this machine."""

    def __init__(self, folder: Path, behind: int) -> None:
        self.port = free_port()
        self.ca = folder / "balancers.pem"
        self._log = folder / "haproxy.log"
        self._config = folder / "haproxy.cfg"
        authority, key, now = new_key(), new_key(), time.time()
        self.ca.write_text(new_authority(authority, now=now, ttl_s=86400))
        shown = new_server(key, self.ca.read_text(), authority, names=["localhost"], now=now, ttl_s=86400)
        both = folder / "both.pem"
        both.write_bytes(shown.encode() + key)
        self._config.write_text(
            "global\n    log stdout format raw local0\n"
            "defaults\n    mode http\n    log global\n    option httplog\n    timeout connect 5s\n"
            "    timeout client 30s\n    timeout server 30s\n    timeout tunnel 1h\n"
            f"frontend public\n    bind 127.0.0.1:{self.port} ssl crt {both} strict-sni alpn http/1.1\n"
            "    default_backend control\n"
            f"backend control\n    server one 127.0.0.1:{behind}\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            process = subprocess.Popen([haproxy(), "-f", str(self._config)], stdout=log, stderr=log)
        self._process = process
        until(lambda: listens(process.pid), "the balancer listens", story=self._log.read_text)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def noted(self) -> str:
        """Return its log: a request is there once it is over."""
        return self._log.read_text()


def haproxy() -> str:
    found = shutil.which("haproxy", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if found is None:
        pytest.skip("haproxy is not installed (Debian: haproxy)")
    return found


def test_an_agent_joins_and_works_inside_a_websocket(tmp_path: Path) -> None:
    haproxy()
    port = free_port()
    balancer = Balancer(tmp_path, port)
    balancer.start()
    settings = {
        "ATOLL_SERVER__PUBLIC_URL": f"https://localhost:{balancer.port}",
        "ATOLL_TIMES__LOST_AFTER_S": "60",
        "SSL_CERT_FILE": str(balancer.ca),
    }
    desk = tmp_path / "desk"
    try:
        with Installation(tmp_path, port=port, env=settings) as at:
            at.up("--no-agent")
            secret = json.loads(at.atoll("token", "create", "--site", "desk", "-o", "json"))["secret"]
            url = JoinToken.parse(secret).url
            assert url == f"https://localhost:{balancer.port}"
            at.atoll("agent", "join", url, "--token", secret, "--name", "desk", "--home", str(desk))
            assert "reached inside a WebSocket" in (desk / "agent.log").read_text()
            works(at, balancer)
    finally:
        end_all(desk)
        balancer.kill()
    # It knew one name and one kind of request: all that was said is inside.
    assert set(re.findall(r'"([A-Z]+ \S+)', balancer.noted())) == {"GET /v1/tunnel"}


def answering(port: int) -> socket.socket:
    """Return a connection to an app that answers."""
    with socket.create_connection(("127.0.0.1", port), 20) as probe:
        probe.sendall(b"GET /name HTTP/1.0\r\n\r\n")
        probe.makefile("rb").read()
    return socket.create_connection(("127.0.0.1", port), 20)


def works(at: Installation, balancer: Balancer) -> None:
    assert at.atoll("run", "--", "echo", "from behind it") == "from behind it\n"
    app = free_port()
    at.atoll("run", "--detach", "--name", "data", "--", "python3", "-c", seeded_server(app))
    at.wait(["data"], ["running"])
    forwarding = at.begin("forward", "data", f"0:{app}")
    try:
        assert forwarding.stdout is not None
        found = re.search(r"127\.0\.0\.1:(\d+) ->", forwarding.stdout.readline())
        assert found
        near = int(found[1])
        connection = until(lambda: answering(near), "the app answers", story=at.story)
        begun = Download(connection, "data", 100, 0.05)
        until(lambda: begun.under_way, "a download", story=at.story)
        balancer.kill()
        until(lambda: not at.agents()[0]["connected"], "the agent is gone", story=at.story)
        balancer.start()
        begun.finish()
        until(lambda: at.agents()[0]["connected"], "the agent is back", within=60, story=at.story)
        assert at.atoll("run", "--", "echo", "again") == "again\n"
    finally:
        forwarding.kill()
        forwarding.communicate()
        at.atoll("stop", "data", "--wait")
