"""Far away: our lanes beside their peers between two network namespaces, with a delay, a rate and a loss on the way.

`wan.c` carries the packets between a TUN device in each. It needs root, iproute2 and a C compiler.
"""

import contextlib
import os
import pathlib
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median

from bench.lanes import MB, RAW, Values, ask, composed, middle
from bench.peers.tunnels import Field, Way, peers, server
from bench.processes import Place, Process
from bench.rows import Row, row

CUBIC = "raw TCP, cubic"
"""What most machines have as their default, whatever this one's is."""
_NEAR, _FAR = "198.18.77.1", "198.18.77.2"
_BUFFERS = "4096 1048576 67108864"
_CONTROLS = pathlib.Path("/proc/sys/net/ipv4")


@dataclass(frozen=True)
class Path:
    """A way through the net."""

    name: str
    rtt_s: float
    loss: float
    mbit: int
    mtu: int
    bytes: int
    most_s: float
    """A stream is measured for so long at most: with loss, cubic takes minutes for what others do in seconds."""

    def say(self) -> str:
        """Return what it is like, for people."""
        path = f"{self.rtt_s * 1000:g} ms RTT, {self.loss:.1%} loss, {self.mbit} Mbit/s, MTU {self.mtu}"
        return f"{path}; {self.most_s:g} s of each stream at most"


LONG = Path("WAN", rtt_s=0.04, loss=0.0, mbit=2000, mtu=9000, bytes=256 << 20, most_s=4.0)
LOSSY = Path("WAN with loss", rtt_s=0.04, loss=0.001, mbit=1000, mtu=1500, bytes=256 << 20, most_s=6.0)
COMPARED: dict[str, list[tuple[str, str, float | None]]] = {
    "WAN": [
        ("data", RAW, 0.97),
        ("data", "OpenSSH -R", 8.0),
        ("data", "asyncssh reverse", None),
        ("mux", RAW, None),
        ("copy", RAW, None),
    ],
    "WAN with loss": [
        ("data", CUBIC, 20.0),
        ("data", RAW, None),
        ("data", "OpenSSH -R", None),
        ("mux", CUBIC, None),
        ("mux", RAW, None),
    ],
}
OPEN: dict[str, float | None] = {"WAN": 1.1, "WAN with loss": None}


def wan_rows(folder: pathlib.Path, rounds: int) -> tuple[list[Row], list[str]]:
    """Measure over a long way, without and with loss; say where that cannot be done."""
    if why := lacks():
        return [], [f"WAN rows left out: {why}"]
    rows, notes = [], []
    for path in (LONG, LOSSY):
        values, absent = _measured(folder, path, rounds)
        notes.append(f"{path.name}: {path.say()}; not there: {', '.join(absent) or 'none'}")
        rates = values["1 stream down"]
        for lane, peer, bound in COMPARED[path.name]:
            if peer in rates:
                mine, theirs = middle(rates[lane], rates[peer])
                measure = f"{path.name}, {lane}: 1 stream down"
                rows.append(row(measure, "MB/s", mine, peer=peer, theirs=theirs, target=bound, of="ratio"))
        opens = median(values["open"]["data"]) / path.rtt_s
        rows.append(row(f"{path.name}, data: warm open", "RTT", opens, better="lower", target=OPEN[path.name]))
    return rows, notes


def _measured(folder: pathlib.Path, path: Path, rounds: int) -> tuple[Values, list[str]]:
    """Have everything carried in turns over one path; return the values and the peers that are not there."""
    with ExitStack() as stack:
        near, far = stack.enter_context(between(folder, path))
        inside = folder / path.name.replace(" ", "-")
        inside.mkdir()
        field = Field(inside, stack.enter_context(server(far)), near, far)
        load = stack.enter_context(Process.python("bench.traffic", "load", place=near))
        others, absent = peers(field, stack)
        compared = {name for lane, peer, _ in COMPARED[path.name] for name in (lane, peer)}
        ways = [way for way in (*composed(field, stack), *raws(field, stack), *others) if way.name in compared]
        values: Values = defaultdict(lambda: defaultdict(list))
        for _ in range(rounds):
            for way in ways:
                took = ask(load, way, do="bulk", mode="D", streams=1, bytes=path.bytes, most=path.most_s)
                values["1 stream down"][way.name].append(took["bytes"] / took["seconds"] / MB)
                got = ask(load, way, do="opens", seconds=10 * path.rtt_s, parallel=1)
                values["open"][way.name].append(got["p50"])
        return values, absent


def raws(field: Field, stack: ExitStack) -> list[Way]:
    """The server itself, far away: with the kernel's congestion control and, where there is it, with cubic."""
    host = field.far.host
    found = [Way(RAW, host, field.server)]
    if "cubic" in _control("available"):
        other = stack.enter_context(server(field.far, "cubic"))
        found.append(Way(CUBIC, host, other, congestion="cubic"))
    return found


def controls() -> str:
    """Say who controls congestion how."""
    default = _control("")[0]
    cubic = "" if "cubic" in _control("available") else " (it has no cubic)"
    return (
        f"congestion control: peers have the kernel's default, here {default}{cubic}; ours asks for what suits the path"
    )


def _control(kind: str) -> list[str]:
    name = f"tcp_{kind}_congestion_control" if kind else "tcp_congestion_control"
    return (_CONTROLS / name).read_text().split()


def lacks() -> str:
    """Return what this machine lacks; "" for nothing."""
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    missing = [name for name in ("ip", "cc") if shutil.which(name) is None]
    if missing:
        return f"{' and '.join(missing)} not found"
    return "" if pathlib.Path("/dev/net/tun").exists() else "no /dev/net/tun"


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
