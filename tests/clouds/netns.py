"""A network namespace as a cloud: its machines may dial out to this host, and nothing may dial in to them."""

import contextlib
import ipaddress
import itertools
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

_NUMBER = itertools.count()
_GUARD = """
table inet guard {
    chain input {
        type filter hook input priority 0; policy drop;
        iif lo accept
        ct state established,related accept
    }
}
"""


@dataclass(frozen=True)
class Network:
    """`prefix` runs a command inside; `host` is where those inside reach this machine, `inside` their own address."""

    name: str
    host: str
    inside: str

    @property
    def prefix(self) -> tuple[str, ...]:
        return ("ip", "netns", "exec", self.name)


@contextlib.contextmanager
def outbound_only() -> Iterator[Network]:
    """Make such a network for as long as the context lasts; skip the test where that is not permitted."""
    if os.geteuid() != 0:
        pytest.skip("only root can make a network namespace with a way out")
    for program, package in (("ip", "iproute2"), ("nft", "nftables")):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (Debian: {package})")
    number = os.getpid() % 4096 * 4 + next(_NUMBER) % 4
    host, inside = list(ipaddress.ip_network(f"10.213.{number // 64}.{number % 64 * 4}/30").hosts())
    network = Network(f"atoll-{number}", str(host), str(inside))
    try:
        _make(network, f"atoll{number}")
    except subprocess.CalledProcessError as error:
        _remove(network)
        pytest.skip(f"no network namespace here: {error.cmd}: {error.stderr.strip()}")
    try:
        yield network
    finally:
        _remove(network)


def _make(network: Network, link: str) -> None:
    inner = ("ip", "-n", network.name)
    _call("ip", "netns", "add", network.name)
    _call("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", network.name)
    _call("ip", "address", "add", f"{network.host}/30", "dev", link)
    _call("ip", "link", "set", link, "up")
    _call(*inner, "link", "set", "lo", "up")
    _call(*inner, "address", "add", f"{network.inside}/30", "dev", "eth0")
    _call(*inner, "link", "set", "eth0", "up")
    _call(*inner, "route", "add", "default", "via", network.host)
    _call(*network.prefix, "nft", "-f", "-", stdin=_GUARD)


def _remove(network: Network) -> None:
    # The pair of links goes with the namespace, once its last process is gone.
    subprocess.run(["ip", "netns", "delete", network.name], capture_output=True, check=False)


def _call(*command: str, stdin: str = "") -> None:
    subprocess.run(command, input=stdin, check=True, capture_output=True, text=True, timeout=20)
