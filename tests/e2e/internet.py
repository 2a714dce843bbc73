"""A small Internet of network namespaces: a public segment, and sites behind routers that let nothing in.

Every site's machine has the same address, `10.0.0.2`; only its router tells them apart.
"""

import contextlib
import ctypes
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.processes import listens
from tests.e2e.waiting import until

PUBLIC = "198.51.100.1"
"""The address of `core`, the one machine of the public segment that others can reach."""
INSIDE = "10.0.0.2"
PROXY_PORT = 3128
PASSWORD = "open.sesame"
_CLONE_NEWNET = 0x40000000

_NAT = """
table ip nat {
    chain post { type nat hook postrouting priority 100; oifname "wan" masquerade; }
}
table inet guard {
    counter refused { }
    chain forward {
        type filter hook forward priority 0; policy drop;
        ct state established,related accept
        iifname "lan" oifname "wan" accept
        counter name "refused"
    }
    chain input {
        type filter hook input priority 0; policy drop;
        ct state established,related accept
        iifname "lan" accept
        counter name "refused"
    }
}
"""
# Launched machines look for their cloud's metadata service at a link-local address: no way out, and nobody's business.
_PROXY_ONLY = f"""
table inet guard {{
    counter refused {{ }}
    counter direct {{ }}
    counter proxied {{ }}
    chain forward {{
        type filter hook forward priority 0; policy drop;
        iifname "lan" ip daddr != 169.254.0.0/16 counter name "direct"
    }}
    chain input {{
        type filter hook input priority 0; policy drop;
        iifname "lan" tcp dport {PROXY_PORT} counter name "proxied" accept
        ct state established,related accept
        iif lo accept
        iifname "lan" counter name "direct"
        counter name "refused"
    }}
}}
"""
_HOLE = """
table inet hole {
    chain way { type filter hook forward priority -10; policy drop; }
}
"""
_NO_ICMP = """
table ip mute {
    chain out { type filter hook output priority 0; icmp type destination-unreachable drop; }
}
"""


class Namespace:
    """One network namespace; `prefix` stands before a command that is to run in it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.prefix = ("nsenter", f"--net=/run/netns/{name}")

    def ip(self, *words: str) -> None:
        _call("ip", "-n", self.name, *words)

    def nft(self, *words: str, rules: str = "") -> str:
        return _call(*self.prefix, "nft", *(words or ("-f", "-")), stdin=rules)

    def packets(self, counter: str) -> int:
        """Return how many packets a named counter of its guard has seen."""
        found = re.search(r"packets (\d+)", self.nft("list", "counter", "inet", "guard", counter))
        assert found
        return int(found[1])

    def connect(self, host: str, port: int, timeout: float = 20.0) -> socket.socket:
        """Return a connection made from in there: a socket stays in the namespace it was made in."""
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(self._connect, host, port, timeout).result()

    def _connect(self, host: str, port: int, timeout: float) -> socket.socket:
        with Path(f"/run/netns/{self.name}").open() as file:
            if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        return socket.create_connection((host, port), timeout)


class Site:
    """A machine behind its own router; `number` makes the router's public address."""

    def __init__(self, internet: "Internet", name: str, number: int) -> None:
        self.name = name
        self.core = internet.core
        self.address = f"198.51.100.{10 + number}"
        self.router = Namespace(f"{internet.name}-r{number}")
        self.machine = Namespace(f"{internet.name}-m{number}")
        self._port = f"port{number}"

    def build(self, rules: str, mtu: int) -> None:
        for each in (self.router, self.machine):
            _call("ip", "netns", "add", each.name)
            each.ip("link", "set", "lo", "up")
        self.core.ip(
            "link", "add", self._port, "mtu", str(mtu), "type", "veth", "peer", "wan", "netns", self.router.name
        )
        self.core.ip("link", "set", self._port, "master", "public", "up")
        self.core.ip("link", "set", "public", "mtu", "1500")  # a bridge takes its ports' smallest
        self.router.ip("link", "set", "wan", "mtu", str(mtu), "up")
        self.router.ip("address", "add", f"{self.address}/24", "dev", "wan")
        self.router.ip("link", "add", "lan", "type", "veth", "peer", "eth0", "netns", self.machine.name)
        self.router.ip("address", "add", "10.0.0.1/24", "dev", "lan")
        self.router.ip("link", "set", "lan", "up")
        # Large packets that the kernel cuts up last would pass a small MTU here: no wire is real.
        self.machine.ip("link", "set", "eth0", "gso_max_segs", "1", "up")
        self.machine.ip("address", "add", f"{INSIDE}/24", "dev", "eth0")
        self.machine.ip("route", "add", "default", "via", "10.0.0.1")
        _call(*self.router.prefix, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        self.router.nft(rules=rules)

    def unplug(self) -> None:
        """Pull the cable between its router and the public segment."""
        self.core.ip("link", "set", self._port, "down")

    def plug(self) -> None:
        """Put it back."""
        self.core.ip("link", "set", self._port, "up")

    def swallow(self) -> None:
        """Let its router drop everything, both ways, without a word."""
        self.router.nft(rules=_HOLE)

    def heal(self) -> None:
        """End that."""
        self.router.nft("delete", "table", "inet", "hole")

    def readdress(self, address: str) -> None:
        """Give the router another public address: it forgets how it had translated every connection."""
        self.router.ip("address", "delete", f"{self.address}/24", "dev", "wan")
        self.address = address
        self.router.ip("address", "add", f"{address}/24", "dev", "wan")


class Internet:
    """All of it. `core` is the public machine, for the control plane and its users."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.core = Namespace(f"{name}-core")
        self.sites: dict[str, Site] = {}

    def build(self) -> None:
        _call("ip", "netns", "add", self.core.name)
        self.core.ip("link", "set", "lo", "up")
        self.core.ip("link", "add", "public", "type", "bridge")
        self.core.ip("link", "set", "public", "gso_max_segs", "1", "up")
        self.core.ip("address", "add", f"{PUBLIC}/24", "dev", "public")

    def site(self, name: str, *, proxy: bool = False, mtu: int = 1500) -> Site:
        """Add a site; with `proxy` its router forwards nothing, and a proxy on it is the only way out.

        A way of less than 1500 bytes loses larger packets without telling.
        """
        made = self.sites[name] = Site(self, name, len(self.sites) + 1)
        made.build(_PROXY_ONLY if proxy else _NAT, mtu)
        if mtu < 1500:
            made.router.nft(rules=_NO_ICMP)
        return made

    def remove(self) -> None:
        for each in [self.core, *(space for site in self.sites.values() for space in (site.router, site.machine))]:
            subprocess.run(["ip", "netns", "delete", each.name], capture_output=True, check=False)


@contextlib.contextmanager
def internet() -> Iterator[Internet]:
    """Make a public segment without sites, for as long as the context lasts; skip where that is not permitted."""
    if os.geteuid() != 0:
        pytest.skip("only root can make network namespaces with a network between them")
    for program, package in (("ip", "iproute2"), ("nft", "nftables"), ("nsenter", "util-linux")):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (Debian: {package})")
    made = Internet(f"atoll{os.getpid()}")
    try:
        try:
            made.build()
            made.core.nft(rules=_NAT)
            made.core.nft("flush", "ruleset")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces with NAT here: {error.cmd}: {error.stderr.strip()}")
        yield made
    finally:
        made.remove()


class Proxy:
    """tinyproxy on a site's router, for those who know its password; `url` is what the site's machine is told."""

    def __init__(self, site: Site, folder: Path) -> None:
        self.url = f"http://machine:{PASSWORD}@10.0.0.1:{PROXY_PORT}"
        self._site = site
        self._log = folder / "tinyproxy.log"
        self._config = folder / "tinyproxy.conf"
        self._config.write_text(
            f"Port {PROXY_PORT}\nListen 10.0.0.1\nTimeout 600\nMaxClients 100\nBasicAuth machine {PASSWORD}\n"
            f'ConnectPort 443\nLogLevel Connect\nLogFile "{self._log}"\n'
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = shutil.which("tinyproxy")
        if program is None:
            pytest.skip("tinyproxy is not installed (Debian: tinyproxy-bin)")
        self._process = subprocess.Popen([*self._site.router.prefix, program, "-d", "-c", str(self._config)])
        pid = self._process.pid
        until(lambda: listens(pid), "the proxy listens")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def asked(self) -> list[str]:
        """Return the first lines of all requests that it noted."""
        return re.findall(r"Request \(file descriptor \d+\): (.*)", self._log.read_text()) if self._log.exists() else []


def _call(*command: str, stdin: str = "") -> str:
    done = subprocess.run(command, input=stdin, check=True, capture_output=True, text=True, timeout=30)
    return done.stdout


def scan(origin: Namespace, host: str, ports: Sequence[int], wait_s: float = 0.5) -> list[int]:
    """Return those of `ports` that answer at all, a refusal included, within `wait_s`."""
    script = """
import select, socket, sys, time
host, wait, *ports = sys.argv[1:]
poll, held, found = select.poll(), {}, set()
for port in ports:
    probe = socket.socket()
    probe.setblocking(False)
    probe.connect_ex((host, int(port)))
    held[probe.fileno()] = (probe, port)
    poll.register(probe, select.POLLOUT)
end = time.monotonic() + float(wait)
while time.monotonic() < end:
    for descriptor, _ in poll.poll(100):
        found.add(held[descriptor][1])
        poll.unregister(descriptor)
print(*found)
"""
    words = [*origin.prefix, "python3", "-c", script, host, str(wait_s), *map(str, ports)]
    return sorted(int(port) for port in _call(*words).split())
