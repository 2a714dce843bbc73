"""Our lanes beside what people use instead, in turns: throughput, the relay's processor time, echo, opens.

*mux*, *data* and *copy* are put together for the benchmark: a stream of the agent's link, an agent-dialled connection
with a resumable stream that ends in the relay's process (as the gateway's do), and the same with the client's end in a
process of its own, so that the relay only copies bytes. *relay*, *blind* and *direct* are `bench.forwarding`'s.
"""

import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.ends.common import enrol
from bench.peers.tunnels import CHAIN, Field, Way
from bench.processes import LOOPBACK, Place, Process
from bench.rows import Row, row

MB, GB = 1_000_000, 1_000_000_000
PARALLEL = 8
_REUSE_S = 1.2
"""After bare opens half of the ports to the server are in use for a second more: who connects to it then waits."""
RAW = "raw TCP"
COMPOSED = ("mux", "data", "copy")
BESIDE = {
    "relay": ("OpenSSH -R", "haproxy TLS pair", CHAIN),
    "blind": ("OpenSSH -R", "haproxy TLS pair"),
    "direct": ("OpenSSH -R", "haproxy TLS pair"),
}
"""The lanes of `atoll forward`, and the peers that each is shown beside."""
OURS = (*COMPOSED, *BESIDE)

Values = dict[str, dict[str, list[float]]]
"""By measure and contender: one value a round."""


@dataclass(frozen=True)
class Target:
    """What a measure of one of our lanes is to be beside a peer (or for itself), as `bench.rows.row` judges it."""

    bound: float
    of: str = "ratio"


TARGETS: dict[tuple[str, str, str], Target] = {
    **{
        (f"1 stream {way}", "data", peer): Target(bound)
        for way in ("down", "up")
        for peer, bound in (("OpenSSH -R", 0.9), ("asyncssh reverse", 2.0), ("chisel", 4.0))
    },
    **{(f"8 streams {way}", "data", "haproxy TLS pair"): Target(1.0) for way in ("down", "up")},
    **{
        (f"relay CPU, 8 streams {way}", lane, "haproxy TLS pair"): Target(bound)
        for way in ("down", "up")
        for lane, bound in (("data", 1.1), ("copy", 1.1), ("relay", 1.1), ("blind", 0.2))
    },
    ("echo p50, added to raw TCP", "mux", "OpenSSH -R"): Target(1.0),
    ("opens", "mux", RAW): Target(5000, "ours"),
}
MEASURES = (
    *(f"{streams} {way}" for streams in ("1 stream", "8 streams") for way in ("down", "up")),
    *(f"relay CPU, 8 streams {way}" for way in ("down", "up")),
    "echo p50, added to raw TCP",
    "echo p99",
    "opens",
    "relay CPU, opens",
)
"""What gets rows, in this order."""
UNITS = {"relay CPU, opens": "ms/open", "relay CPU": "s/GB", "opens": "1/s", "echo": "us"}


class Turns:
    """One load and the ways that it is sent by, in turns."""

    def __init__(self, load: Process, ways: list[Way], size: int, echoes: int, opens_s: float) -> None:
        self._load = load
        self._ways = ways
        self._size = size
        self._echoes = echoes
        self._opens_s = opens_s
        self.values: Values = defaultdict(lambda: defaultdict(list))

    def round(self) -> None:
        """Take every measure once, of all contenders one after the other."""
        for streams in (1, PARALLEL):
            for mode, word in (("D", "down"), ("U", "up")):
                for way in self._ways:
                    self._bulk(way, mode, streams, f"{streams} stream{'s' * (streams > 1)} {word}")
        for way in self._ways:
            self._echo(way)
        for way in self._ways:
            self._opens(way)
            if way.name == RAW:
                time.sleep(_REUSE_S)
        self._added()

    def _bulk(self, way: Way, mode: str, streams: int, what: str) -> None:
        took = ask(self._load, way, do="bulk", mode=mode, streams=streams, bytes=self._size, relays=way.relays)
        self.values[what][way.name].append(took["bytes"] / took["seconds"] / MB)
        if way.relays:
            self.values[f"relay CPU, {what}"][way.name].append(took["cpu"] / (took["bytes"] / GB))

    def _echo(self, way: Way) -> None:
        got = ask(self._load, way, do="echo", count=self._echoes, size=64)
        for name in ("p50", "p99"):
            self.values[f"echo {name}"][way.name].append(got[name] * 1e6)

    def _opens(self, way: Way) -> None:
        before = way.cpu()
        got = ask(self._load, way, do="opens", seconds=self._opens_s, parallel=PARALLEL)
        self.values["opens"][way.name].append(got["count"] / got["seconds"])
        if way.relays:
            self.values["relay CPU, opens"][way.name].append((way.cpu() - before) / got["count"] * 1000)

    def _added(self) -> None:
        """What a way adds to the echo over raw TCP, 1 us at least."""
        echo = self.values["echo p50"]
        for way in self._ways:
            if way.name != RAW:
                added = max(1.0, echo[way.name][-1] - echo[RAW][-1])
                self.values["echo p50, added to raw TCP"][way.name].append(added)


def ask(load: Process, way: Way, **order: Any) -> dict[str, Any]:
    """Have the load do something by a way; raise `RuntimeError` naming it when that fails."""
    try:
        return load.ask(**order, host=way.host, port=way.port, congestion=way.congestion)
    except RuntimeError as error:
        raise RuntimeError(f"{way.name}: {error}") from error


def rows_of(values: Values) -> list[Row]:
    """Return a row for each measure, lane of ours and peer."""
    found = []
    for measure in MEASURES:
        by_way = values[measure]
        unit = next((unit for start, unit in UNITS.items() if measure.startswith(start)), "MB/s")
        better = "higher" if unit in ("MB/s", "1/s") else "lower"
        for lane in (lane for lane in OURS if lane in by_way):
            for peer in (peer for peer in by_way if shown(measure, lane, peer)):
                mine, theirs = middle(by_way[lane], by_way[peer])
                target = TARGETS.get((measure, lane, peer))
                bound, of = (target.bound, target.of) if target else (None, "ours")
                found.append(
                    row(f"{lane}: {measure}", unit, mine, peer=peer, theirs=theirs, better=better, target=bound, of=of)
                )
    return found


def shown(measure: str, lane: str, peer: str) -> bool:
    """Say whether a comparison is worth a row."""
    if peer in OURS or (measure, lane, peer) in TARGETS:
        return peer not in OURS
    if lane in BESIDE or peer == CHAIN:
        return peer in BESIDE.get(lane, ()) and measure != "echo p99"
    if peer == RAW:
        return lane == "data" and measure.startswith("1 stream")
    if lane == "copy":  # the user's end is a process more: what counts is what the relay does
        return measure.startswith("relay CPU, 8") and peer == "OpenSSH -R"
    if lane == "mux":
        return not measure.startswith("8 streams") and not measure.startswith("relay CPU, 8")
    return True


def middle(mine: list[float], theirs: list[float]) -> tuple[float, float]:
    """Return the round with the median ratio."""
    pairs = sorted(zip(mine, theirs, strict=True), key=lambda pair: pair[0] / pair[1])
    return pairs[len(pairs) // 2]


# Ours, put together from parts.


def composed(field: Field, stack: ExitStack) -> list[Way]:
    """Start relay, agent and client; return a way for each lane."""
    folder, near = field.folder / "ours", field.near
    enrol(folder)
    relay = stack.enter_context(relay_end(folder, place=near))
    doors = relay.answer()
    stack.enter_context(agent_end(folder, field.server, doors["port"], near, field.far))
    client = stack.enter_context(Process.python("bench.ends", "client", near.host, doors["copy"], place=near))
    ports = {"mux": doors["mux"], "data": doors["data"], "copy": client.answer()["port"]}
    return [Way(name, near.host, port, (relay.pid,)) for name, port in ports.items()]


def relay_end(folder: Path, place: Place = LOOPBACK) -> Process:
    """Start our relay; its first line says its ports."""
    return Process.python("bench.ends", "relay", folder, place.host, place=place)


def agent_end(folder: Path, server: int, relay: int, near: Place = LOOPBACK, far: Place = LOOPBACK) -> Process:
    """Start our agent, which serves streams to the server, and wait until the relay has welcomed it."""
    url = f"https://{near.host}:{relay}"
    agent = Process.python("bench.ends", "agent", folder, far.host, server, url, place=far)
    if not agent.answer()["welcomed"]:
        raise RuntimeError("the agent was not welcomed")
    return agent
