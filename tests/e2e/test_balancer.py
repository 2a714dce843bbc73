"""A load balancer that opens TLS (haproxy) is all that agents and users reach: the tunnel goes inside WebSockets."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.installation import Installation
from tests.e2e.processes import connections, end_all, listens
from tests.e2e.relays import RelayProcess
from tests.e2e.streams import Download, seeded_server
from tests.e2e.waiting import until
from tests.ports import free_port
from tunnel.certificates import new_authority, new_key, new_server
from tunnel.identity import AgentIdentity, Authority, make_key_and_csr

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.xdist_group("sites")]


class Balancer:
    """haproxy in mode http with a certificate of its own, in front of a control plane and of a relay."""

    def __init__(self, folder: Path, behind: int, relay: int) -> None:
        self.port, self.relays_port = free_port(), free_port()
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
            f"frontend relays\n    bind 127.0.0.1:{self.relays_port} ssl crt {both} alpn http/1.1\n"
            "    default_backend relays\n"
            f"backend relays\n    option httpchk GET /healthz\n    server east 127.0.0.1:{relay} check inter 500ms\n"
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


@dataclass(frozen=True, slots=True)
class Hall:
    """A control plane, the balancer in front of it, the home of a workstation that has joined, and a user's laptop."""

    at: Installation
    balancer: Balancer
    desk: Path
    laptop: Installation
    relay: RelayProcess

    @property
    def connected(self) -> bool:
        return any(agent["connected"] for agent in self.at.agents())

    @property
    def home(self) -> Path:
        return self.desk / "agent"

    @property
    def agent(self) -> str:
        """The program that the pasted line has installed."""
        return str(self.desk / "bin" / "atoll-agent")

    @property
    def pid(self) -> int:
        return int((self.home / "agent.pid").read_text().split()[0])

    def log(self) -> str:
        return (self.home / "agent.log").read_text()

    def environment(self) -> dict[str, str]:
        """Return what the workstation's processes see: a Python of its own, and no Atoll."""
        path = f"{self.desk.parent / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin"
        return {"PATH": path, "ATOLL_HOME": str(self.desk), "SSL_CERT_FILE": str(self.balancer.ca), "HOME": "/nowhere"}

    def work(self, *words: str) -> str:
        """Run a command on the workstation."""
        done = subprocess.run(words, env=self.environment(), capture_output=True, text=True, timeout=90, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def hall(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hall]:
    """The workstation joins by the pasted line."""
    haproxy()
    folder, port, relays_port = tmp_path_factory.mktemp("hall"), free_port(), free_port()
    (folder / "bin").mkdir()
    (folder / "bin" / "python3").symlink_to(sys.executable)
    balancer = Balancer(folder, port, relays_port)
    balancer.start()
    settings = {
        "ATOLL_SERVER__PUBLIC_URL": f"https://localhost:{balancer.port}",
        "ATOLL_TIMES__LOST_AFTER_S": "60",
    }
    desk, laptop = folder / "desk", Installation(folder / "laptop", env={"SSL_CERT_FILE": str(balancer.ca)})
    try:
        with Installation(folder, port=port, env=settings) as at:
            at.up("--no-agent")
            relay = RelayProcess(at, folder, "east", f"https://localhost:{balancer.relays_port}", relays_port)
            hall = Hall(at, balancer, desk, laptop, relay)
            made = json.loads(at.atoll("token", "create", "--site", "desk", "-o", "json"))
            assert hall.work("sh", "-c", made["paste"]).startswith("joined as ")
            try:
                yield hall
            finally:
                relay.close()
    finally:
        end_all(folder / "east")
        end_all(desk)
        end_all(laptop.home)
        balancer.kill()


def test_an_agent_joins_and_works_inside_a_websocket(hall: Hall) -> None:
    assert "reached inside a WebSocket" in hall.log()
    assert hall.at.atoll("run", "--name", "said", "--", "echo", "from behind it") == "from behind it\n"
    assert hall.at.atoll("logs", "said") == "from behind it\n"
    assert called(hall) >= {hall.balancer.port}


def test_a_certificate_that_has_ended_is_renewed_inside_a_websocket(hall: Hall) -> None:
    at, home = hall.at, hall.home
    [before] = at.agents()
    os.kill(hall.pid, signal.SIGTERM)
    until(lambda: not hall.connected, "the agent has ended", story=at.story)
    authority = Authority.load_or_create(at.home / "keys", now=time.time())
    ended = authority.sign_agent(
        make_key_and_csr(home), before["id"], generation=1, now=time.time() - 5 * 86400, ttl_s=86400
    )
    AgentIdentity(home).renew(ended)
    hall.work("sh", "-c", f"{hall.agent} run </dev/null >>{home}/agent.log 2>&1 &")
    until(lambda: hall.connected, "the agent is back", within=60, story=hall.log)
    assert AgentIdentity(home).expires_at > time.time()
    assert [each["id"] for each in at.agents()] == [before["id"]]
    # The balancer knows one name and one kind of request: all that was said is inside.
    assert set(re.findall(r'"([A-Z]+ \S+)', hall.balancer.noted())) <= {"GET /join", "GET /v1/tunnel"}


def called(hall: Hall) -> set[int]:
    """Return the ports to which the agent is connected: none that the balancer stands before."""
    found = {int(remote.rpartition(":")[2], 16) for remote in connections(hall.pid)}
    assert not found & {hall.at.port, hall.relay.port}
    return found


def answering(port: int) -> socket.socket:
    """Return a connection to an app that answers."""
    with socket.create_connection(("127.0.0.1", port), 20) as probe:
        probe.sendall(b"GET /name HTTP/1.0\r\n\r\n")
        probe.makefile("rb").read()
    return socket.create_connection(("127.0.0.1", port), 20)


@pytest.fixture(scope="module")
def session(hall: Hall) -> Iterator[int]:
    """The session `data`, whose app listens on a port; and the laptop is logged in."""
    app = free_port()
    hall.at.atoll("run", "--detach", "--name", "data", "--", "python3", "-c", seeded_server(app))
    hall.at.wait(["data"], ["running"])
    made = json.loads(hall.at.atoll("token", "create", "--api", "--owner", "admin", "--role", "admin", "-o", "json"))
    url = f"https://localhost:{hall.balancer.port}"
    hall.laptop.atoll("login", url, "--ca", "system", stdin=made["secret"])
    yield app
    hall.at.atoll("stop", "data", "--wait")


@contextmanager
def forwarded(hall: Hall, app: int, *flags: str) -> Iterator[tuple[int, str]]:
    """A forwarded port of the session on the laptop, and what is said of its way."""
    forwarding = hall.laptop.begin("forward", "-v", *flags, "data", f"0:{app}")
    try:
        assert forwarding.stdout is not None
        assert forwarding.stderr is not None
        found = re.search(r"127\.0\.0\.1:(\d+) ->", forwarding.stdout.readline())
        assert found
        yield int(found[1]), forwarding.stderr.readline()
    finally:
        forwarding.kill()
        forwarding.communicate()


@pytest.mark.parametrize("flags", [(), ("--blind",)], ids=["open", "blind"])
def test_a_users_stream_outlives_the_balancer(hall: Hall, session: int, flags: tuple[str, ...]) -> None:
    at, balancer = hall.at, hall.balancer
    with forwarded(hall, session, *flags) as (near, said):
        assert f"streams that resume, by localhost:{balancer.port} inside a WebSocket" in said
        connection = until(lambda: answering(near), "the app answers", story=at.story)
        begun = Download(connection, "data", 100, 0.05)
        until(lambda: begun.under_way, "a download", story=at.story)
        balancer.kill()
        until(lambda: not hall.connected, "the agent is gone", story=at.story)
        balancer.start()
        begun.finish()
        until(lambda: hall.connected, "the agent is back", within=60, story=at.story)


@pytest.mark.skipif(shutil.which("ssh") is None, reason="OpenSSH's client is not installed")
def test_ssh_comes_through(hall: Hall, session: int) -> None:
    laptop = hall.laptop
    (laptop.home / "sent.txt").write_text("to the session")
    laptop.atoll("cp", str(laptop.home / "sent.txt"), "data:")
    assert laptop.atoll("ssh", "data", "--", "cat", "sent.txt") == "to the session"
    config = laptop.home / "config"
    config.write_text(laptop.atoll("ssh-config", "data"))
    plain = ["ssh", "-F", str(config), "data", "cat", "sent.txt"]
    done = subprocess.run(plain, env=laptop.environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("to the session", 0), done.stderr


def test_a_relay_behind_the_balancer_carries_streams(hall: Hall, session: int) -> None:
    relay = hall.relay
    relay.start(SSL_CERT_FILE=str(hall.balancer.ca))
    until(relay.serves, "the agent's link to the relay", within=60, story=relay.story)

    def goes_there() -> bool:
        with forwarded(hall, session) as (_, said):
            return f"streams that resume, by localhost:{hall.balancer.relays_port} inside a WebSocket" in said

    until(goes_there, "a permit that names the relay", story=relay.story)
    with forwarded(hall, session) as (near, _):
        begun = Download(until(lambda: answering(near), "the app answers", story=relay.story), "data", 20, 0.0)
        until(lambda: begun.under_way, "a download", story=relay.story)
        begun.finish()
    assert called(hall) >= {hall.balancer.port, hall.balancer.relays_port}


def test_it_leaves_inside_a_websocket(hall: Hall) -> None:
    assert hall.work(hall.agent, "leave") == "this machine is no agent any more\n"
    assert hall.at.agents() == []
