"""Real agents behind real NAT and a real proxy: nothing dials in, and what breaks on the way is lived through.

One installation with four sites, whose machines all have the same address, serves all tests of this module.
"""

import hashlib
import http.client
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.installation import BIN, Installation
from tests.e2e.internet import INSIDE, PROXY_PORT, PUBLIC, Internet, Proxy, internet, scan
from tests.e2e.processes import alive, end_all, listens
from tests.e2e.streams import PATIENCE_S, Download, seeded_server
from tests.e2e.waiting import until
from tunnel.identity import AgentIdentity, Authority, make_key_and_csr
from tunnel.jointoken import JoinToken

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.xdist_group("sites")]

SITES = ("west", "east", "vault", "narrow")
APP_PORT = 8080


class World:
    """An installation on the public segment, an agent and a session at each site, and a forwarded port to each."""

    def __init__(self, net: Internet, folder: Path) -> None:
        settings = {
            "ATOLL_SERVER__LISTEN": f"{PUBLIC}:443",
            "ATOLL_TIMES__SETTLE_S": "1",
            "ATOLL_TIMES__LOST_AFTER_S": "60",
        }
        self.core = net.core
        self.at = Installation(folder, port=443, prefix=net.core.prefix, env=settings)
        self.sites = {
            name: net.site(name, proxy=name == "vault", mtu=1280 if name == "narrow" else 1500) for name in SITES
        }
        self.proxy = Proxy(self.sites["vault"], folder)
        self._folder = folder
        self._ports: dict[str, int] = {}
        self._started: list[subprocess.Popen[str]] = []

    def open(self) -> None:
        self.proxy.start()
        self.at.up("--no-agent")
        joins = {site: self.atoll_at(site, *self._joining(site)) for site in SITES}
        self._started += joins.values()
        for site, process in joins.items():
            assert process.stdout is not None
            told = process.stdout.readline()
            assert told.startswith(f"joined as {site} "), f"{site}: {told}{process.stdout.read()}"
        for site in SITES:
            command = ("python3", "-c", seeded_server(APP_PORT))
            self.at.atoll("run", "--detach", "--site", site, "--name", site, "--app", f"web={APP_PORT}", "--", *command)
        self.at.wait(SITES, ["running"], within=PATIENCE_S)
        for site in SITES:
            process = self.at.begin("forward", site, f"0:{APP_PORT}")
            self._started.append(process)
            assert process.stdout is not None
            found = re.search(r"127\.0\.0\.1:(\d+) ->", process.stdout.readline())
            assert found, process.communicate()
            self._ports[site] = int(found[1])
            until(lambda: self.fetch(site) == site.encode(), f"the app of {site}", story=self.at.story)  # noqa: B023

    def close(self) -> None:
        for process in self._started:
            process.kill()
            process.communicate()
        self.at.close()
        for site in SITES:
            end_all(self.home(site))
        self.proxy.stop()

    def home(self, site: str) -> Path:
        return self._folder / site

    def log(self, site: str) -> str:
        path = self.home(site) / "agent" / "agent.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def atoll_at(self, site: str, *words: str, home: Path | None = None) -> "subprocess.Popen[str]":
        """Begin a command on a site's machine."""
        own = {"ATOLL_HOME": str(home or self.home(site)), "ATOLL_AGENT_SLOTS": "cpu=2,memory=2GiB"}
        if site == "vault":
            own["HTTPS_PROXY"] = self.proxy.url
        plain = {key: value for key, value in self.at.environment.items() if not key.startswith("ATOLL_")}
        return subprocess.Popen(
            [*self.sites[site].machine.prefix, str(BIN / "atoll"), *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**plain, **own},
        )

    def _joining(self, site: str) -> tuple[str, ...]:
        secret = json.loads(self.at.atoll("token", "create", "--site", site, "-o", "json"))["secret"]
        return ("agent", "join", JoinToken.parse(secret).url, "--token", secret, "--name", site)

    def adopt(self, process: "subprocess.Popen[str]") -> None:
        """End a process with everything else."""
        self._started.append(process)

    def agent_pid(self, site: str) -> int:
        return int((self.home(site) / "agent" / "lock").read_text().split()[0])

    def connected(self, *sites: str) -> bool:
        """Whether the agents of all these sites are."""
        up = {agent["site"] for agent in self.at.agents() if agent["connected"]}
        return up >= set(sites or SITES)

    def fetch(self, site: str) -> bytes:
        """Return what the site's app says that it is, over the forwarded port."""
        with self.core.connect("127.0.0.1", self._ports[site]) as connection:
            connection.sendall(b"GET /name HTTP/1.0\r\n\r\n")
            return connection.makefile("rb").read().rpartition(b"\r\n\r\n")[2]

    def browse(self, site: str) -> bytes:
        """Return the same by the app's own host name, as a browser has it."""
        profile = json.loads((self.at.home / "client.json").read_text())
        context = ssl.create_default_context(cadata=profile["ca"])
        with context.wrap_socket(self.core.connect(PUBLIC, 443), server_hostname=PUBLIC) as secured:
            connection = http.client.HTTPConnection(PUBLIC)
            connection.sock = secured
            headers = {"Host": f"web--{site}.localhost", "Authorization": f"Bearer {profile['token']}"}
            connection.request("GET", "/name", headers=headers)
            return connection.getresponse().read()

    def download(self, site: str, seconds: float) -> Download:
        """Begin a download of about that length through the forwarded port, and return it under way."""
        connection = self.core.connect("127.0.0.1", self._ports[site])
        begun = Download(connection, site, int(seconds * 20), 0.05)
        until(lambda: begun.under_way, f"a download from {site}", story=lambda: begun.error + self.at.story())
        return begun

    def live_on(self) -> None:
        """Check that every session is still the one that was started, and reached."""
        until(self.connected, "all agents", within=PATIENCE_S, story=self.at.story)
        views = {view["name"]: (view["state"], view["attempt"]) for view in self.at.sessions()}
        assert views == dict.fromkeys(SITES, ("running", 1)), self.at.story()
        for site in SITES:
            until(lambda: self.reached(site), f"the app of {site}", within=PATIENCE_S, story=self.at.story)  # noqa: B023

    def reached(self, site: str) -> bool:
        try:
            return self.fetch(site) == site.encode()
        except OSError:
            return False


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with internet() as net:
        made = World(net, tmp_path_factory.mktemp("sites"))
        try:
            made.open()
            yield made
        finally:
            made.close()


Note = Callable[[str, object], None]


def test_nothing_can_dial_in(world: World) -> None:
    ports = [*range(1, 1025), PROXY_PORT, 5000, 8000, 8080, 8443, 8700, 9000]
    for site in world.sites.values():
        assert scan(world.core, site.address, ports) == []
        assert site.router.packets("refused") >= len(ports)
    # Nor by the inner address, through the router.
    west = world.sites["west"]
    world.core.ip("route", "add", f"{INSIDE}/32", "via", west.address)
    try:
        assert scan(world.core, INSIDE, [22, APP_PORT]) == []
    finally:
        world.core.ip("route", "delete", f"{INSIDE}/32")
    for name in SITES:
        assert listens(world.agent_pid(name)) == []


def test_each_stream_reaches_its_own_of_four_machines_with_one_address(world: World) -> None:
    for site in SITES:
        assert world.fetch(site) == site.encode()
        assert world.browse(site) == site.encode()
        told = world.at.atoll("ssh", site, "--", "sh", "-c", "echo $ATOLL_SESSION_NAME; ip -4 -o address")
        assert told.startswith(f"{site}\n")
        assert f" {INSIDE}/24 " in told


def test_all_that_a_proxied_agent_does_goes_through_its_proxy(world: World) -> None:
    """Join, link and data connections, and the renewal of a certificate that has ended."""
    asked = len(world.proxy.asked())
    world.download("vault", 1.0).finish()
    home = world.home("vault") / "agent"
    identity = AgentIdentity(home)
    pid = world.agent_pid("vault")
    os.kill(pid, signal.SIGTERM)
    until(lambda: not alive(pid), "the agent's end")
    authority = Authority.load_or_create(world.at.home / "keys", now=time.time())
    ended = authority.sign_agent(
        make_key_and_csr(home), identity.agent_id, generation=1, now=time.time() - 5 * 86400, ttl_s=86400
    )
    identity.renew(ended)
    until(lambda: not world.connected("vault"), "no agent at the vault", story=world.at.story)
    agent = world.atoll_at("vault", "agent", "run")
    world.adopt(agent)
    until(lambda: world.connected("vault"), "the agent at the vault again", within=60, story=world.at.story)
    assert AgentIdentity(home).expires_at > time.time()
    assert world.fetch("vault") == b"vault"

    lines = world.proxy.asked()
    assert set(lines) == {f"CONNECT {PUBLIC}:443 HTTP/1.1"}
    assert asked >= 4  # the CA, the join, the link, a data connection
    assert len(lines) >= asked + 2  # the renewal and the next link
    router = world.sites["vault"].router
    assert router.packets("direct") == 0
    assert router.packets("proxied") > 0


def test_people_behind_a_proxy_that_wants_a_password_reach_their_sessions(world: World, tmp_path: Path) -> None:
    """Each command once: those that ask and end, and those that stay."""
    asked = len(world.proxy.asked())
    shutil.copy(world.at.home / "client.json", tmp_path)
    listed = world.atoll_at("vault", "ps", "-o", "json", home=tmp_path).communicate(timeout=30)[0]
    assert {session["name"] for session in json.loads(listed)} >= {"vault"}, listed
    forward = world.atoll_at("vault", "forward", "west", f"0:{APP_PORT}", home=tmp_path)
    world.adopt(forward)
    assert forward.stdout is not None
    told = forward.stdout.readline()
    found = re.search(r"127\.0\.0\.1:(\d+) ->", told)
    assert found, told + forward.communicate()[0]
    with world.sites["vault"].machine.connect("127.0.0.1", int(found[1])) as connection:
        connection.sendall(b"GET /name HTTP/1.0\r\n\r\n")
        assert connection.makefile("rb").read().endswith(b"\r\n\r\nwest")
    assert len(world.proxy.asked()) >= asked + 3  # what is listed, the permit, the stream
    assert world.sites["vault"].router.packets("direct") == 0


def test_links_that_break_with_and_without_a_word_are_noticed_and_lived_through(
    world: World, record_property: Note
) -> None:
    downloads = {site: world.download(site, 15.0) for site in ("west", "east")}
    before = {site: len(world.log(site)) for site in downloads}
    began = time.monotonic()
    world.sites["west"].unplug()
    world.sites["east"].swallow()
    try:
        for site in downloads:
            until(lambda: not world.connected(site), f"{site} is gone", within=30, story=world.at.story)  # noqa: B023
            record_property(f"{site}_gone_s", round(time.monotonic() - began, 1))
        for site in downloads:
            heard = f"the agent of {site} hears nothing"
            until(lambda: "nothing heard" in world.log(site)[before[site] :], heard, within=30)  # noqa: B023
        record_property("both_ends_noticed_s", round(time.monotonic() - began, 1))
        time.sleep(max(0.0, began + 8.0 - time.monotonic()))
    finally:
        world.sites["west"].plug()
        world.sites["east"].heal()
    for site, download in downloads.items():
        download.finish()
        record_property(f"stall_{site}_s", round(download.stall, 1))
    world.live_on()


def test_a_router_with_a_new_address_cuts_no_stream(world: World, record_property: Note) -> None:
    download = world.download("west", 6.0)
    world.sites["west"].readdress("198.51.100.99")
    download.finish()
    record_property("stall_s", round(download.stall, 1))
    world.live_on()


def test_a_way_that_loses_large_packets_carries_bulk(world: World, record_property: Note) -> None:
    """MTU 1280 and no ICMP: the machine had joined over it, too."""
    download = world.download("narrow", 2.0)
    download.finish()
    record_property("stall_s", round(download.stall, 1))
    data = os.urandom(2_000_000)
    sent = hashlib.sha256(data).hexdigest()
    (world.home("narrow") / "data").write_bytes(data)
    world.at.atoll("cp", "-q", str(world.home("narrow") / "data"), "narrow:data", timeout=PATIENCE_S)
    assert world.at.atoll("ssh", "narrow", "--", "sha256sum", "data").split()[0] == sent


def test_a_proxy_that_restarts_gets_its_agent_back(world: World, record_property: Note) -> None:
    download = world.download("vault", 6.0)
    world.proxy.stop()
    until(lambda: not world.connected("vault"), "the vault is gone", story=world.at.story)
    world.proxy.start()
    download.finish()
    record_property("stall_s", round(download.stall, 1))
    world.live_on()
    assert world.sites["vault"].router.packets("direct") == 0  # nor did it try another way meanwhile


def test_a_stopped_control_plane_goes_on_where_it_was(world: World, record_property: Note) -> None:
    downloads = [world.download(site, 9.0) for site in ("west", "vault")]
    pid = world.at.pid("control")
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(8.0)
    finally:
        os.kill(pid, signal.SIGCONT)
    for download in downloads:
        download.finish()
    record_property("stall_s", [round(download.stall, 1) for download in downloads])
    world.live_on()


def test_a_killed_control_plane_finds_everything_running(world: World, record_property: Note) -> None:
    began = time.monotonic()
    world.at.kill("control")
    world.at.up("--no-agent")
    record_property("up_s", round(time.monotonic() - began, 1))
    world.live_on()
    record_property("all_back_s", round(time.monotonic() - began, 1))
    world.download("east", 1.0).finish()
