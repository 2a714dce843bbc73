"""A long way for the benchmark of the tunnel: two network namespaces, and between them a delay, a rate and a loss.

`wan.c` carries the packets between a TUN device in each. It needs root, iproute2 and a C compiler.
"""

import contextlib
import os
import pathlib
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

from bench.peers.tunnels import Field, Way
from bench.processes import Place, Process

PEERS = ("OpenSSH -R", "asyncssh reverse")
_NEAR, _FAR = "198.18.77.1", "198.18.77.2"
_BUFFERS = "4096 1048576 67108864"


@dataclass(frozen=True)
class Path:
    """A way through the net."""

    name: str
    rtt_s: float
    loss: float
    mbit: int
    mtu: int
    bytes: int

    def say(self) -> str:
        """Return what it is like, for people."""
        return f"{self.rtt_s * 1000:g} ms RTT, {self.loss:.1%} loss, {self.mbit} Mbit/s, MTU {self.mtu}"


LONG = Path("WAN", rtt_s=0.04, loss=0.0, mbit=2000, mtu=9000, bytes=256 << 20)
LOSSY = Path("WAN with loss", rtt_s=0.04, loss=0.001, mbit=1000, mtu=1500, bytes=16 << 20)
COMPARED: dict[str, list[tuple[str, str, str, float | None]]] = {
    "WAN": [
        ("1 stream down", "data", "raw TCP", 0.97),
        ("1 stream down", "data", "OpenSSH -R", 8.0),
        ("1 stream down", "data", "asyncssh reverse", None),
        ("1 stream down", "mux", "raw TCP", None),
        ("1 stream down", "splice", "raw TCP", None),
    ],
    "WAN with loss": [
        ("1 stream down", "data", "raw TCP", 20.0),
        ("1 stream down", "mux", "raw TCP", None),
        ("1 stream down", "data", "OpenSSH -R", None),
    ],
}
OPEN: dict[str, float | None] = {"WAN": 1.1, "WAN with loss": None}


def lacks() -> str:
    """Return what this machine lacks; "" for nothing."""
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    missing = [name for name in ("ip", "cc") if shutil.which(name) is None]
    if missing:
        return f"{' and '.join(missing)} not found"
    return "" if pathlib.Path("/dev/net/tun").exists() else "no /dev/net/tun"


def direct(field: Field) -> Way:
    """The server itself, at the far place."""
    return Way("raw TCP", field.server)


@contextlib.contextmanager
def between(folder: pathlib.Path, path: Path) -> Iterator[tuple[Place, Place]]:
    """Make two namespaces with a way between them; yield the places. All is gone afterwards."""
    program = folder / "wan"
    if not program.exists():
        source = pathlib.Path(__file__).with_name("wan.c")
        subprocess.run(["cc", "-O2", "-o", str(program), str(source)], check=True)
    names = [f"atoll-{end}-{os.getpid()}" for end in ("near", "far")]
    with ExitStack() as stack:
        for name in names:
            _ip("netns", "add", name)
            stack.callback(_ip, "netns", "del", name)
        half_ms = path.rtt_s * 500
        words = [*names, f"{half_ms:g}", f"{path.loss:g}", f"{path.mbit:g}"]
        shim = stack.enter_context(Process([str(program), *words]))
        shim.line()
        for name, own, other in zip(names, (_NEAR, _FAR), (_FAR, _NEAR), strict=True):
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "addr", "add", own, "peer", other, "dev", "wan0")
            _ip("-n", name, "link", "set", "wan0", "mtu", str(path.mtu), "txqueuelen", "10000", "up")
            for kind in ("rmem", "wmem"):
                inside = ["ip", "netns", "exec", name, "sh", "-c"]
                setting = f"echo {_BUFFERS} > /proc/sys/net/ipv4/tcp_{kind}"
                subprocess.run([*inside, setting], check=False)
        near, far = (
            Place(host, ("ip", "netns", "exec", name)) for host, name in zip((_NEAR, _FAR), names, strict=True)
        )
        yield near, far


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
