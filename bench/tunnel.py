"""B3: the tunnel beside what people use instead, with real processes and in turns on one machine.

Ours by three lanes: *mux* (a stream of the agent's link), *data* (an agent-dialled connection with a resumable stream
that ends in the relay's process, as the gateway's do) and *splice* (the same with the client's end in a process of its
own: the relay only copies bytes). User and server speak plain TCP with all contenders. Each row is the round with the
median ratio. Processor seconds are the kernel's count for the relay's processes, and the steadier measure.
"""

import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench import wan
from bench.peers.tunnels import Field, Way, ours, peers, raw, relay_end, server
from bench.processes import LOOPBACK, Place, Process
from bench.rows import Row, main, row
from bench.tunnelends import enrol
from tests.e2e.processes import pss

MB, GB = 1_000_000, 1_000_000_000
PARALLEL = 8
IDLE_TARGET = 5000
LANES = ("mux", "data", "splice")


@dataclass(frozen=True)
class Size:
    """How much is done."""

    rounds: int
    bytes: int
    echoes: int
    opens_s: float
    idle: int
    reconnect: int
    kills: int
    wan: bool


QUICK = Size(rounds=5, bytes=64 << 20, echoes=200, opens_s=0.15, idle=500, reconnect=0, kills=2, wan=False)
FULL = Size(rounds=5, bytes=256 << 20, echoes=2000, opens_s=1.0, idle=IDLE_TARGET, reconnect=2000, kills=6, wan=True)

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
        (f"relay CPU, 8 streams {way}", lane, "haproxy TLS pair"): Target(1.1)
        for way in ("down", "up")
        for lane in ("data", "splice")
    },
    ("echo p50, added to raw TCP", "mux", "OpenSSH -R"): Target(1.0),
    ("opens", "mux", "raw TCP"): Target(5000, "ours"),
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


class Bench:
    """One load and the ways that it is sent by, in turns."""

    def __init__(self, load: Process, ways: list[Way], size: Size, host: str = LOOPBACK.host) -> None:
        self._load = load
        self._ways = ways
        self._size = size
        self._host = host
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
        self._added()

    def _ask(self, way: Way, do: str, **order: Any) -> dict[str, Any]:
        try:
            return self._load.ask(do=do, host=self._host, port=way.port, **order)
        except RuntimeError as error:
            raise RuntimeError(f"{way.name}: {error}") from error

    def _bulk(self, way: Way, mode: str, streams: int, what: str) -> None:
        before = way.cpu()
        took = self._ask(way, "bulk", mode=mode, streams=streams, bytes=self._size.bytes)["seconds"]
        self.values[what][way.name].append(self._size.bytes / took / MB)
        if way.relay:
            self.values[f"relay CPU, {what}"][way.name].append((way.cpu() - before) / (self._size.bytes / GB))

    def _echo(self, way: Way) -> None:
        got = self._ask(way, "echo", count=self._size.echoes, size=64)
        for name in ("p50", "p99"):
            self.values[f"echo {name}"][way.name].append(got[name] * 1e6)

    def _opens(self, way: Way) -> None:
        before = way.cpu()
        got = self._ask(way, "opens", seconds=self._size.opens_s, parallel=PARALLEL)
        self.values["opens"][way.name].append(got["count"] / got["seconds"])
        if way.relay:
            self.values["relay CPU, opens"][way.name].append((way.cpu() - before) / got["count"] * 1000)

    def _added(self) -> None:
        """What a way adds to the echo over raw TCP, 1 us at least."""
        echo = self.values["echo p50"]
        for way in self._ways:
            if way.relay:
                added = max(1.0, echo[way.name][-1] - echo["raw TCP"][-1])
                self.values["echo p50, added to raw TCP"][way.name].append(added)


def shown(measure: str, lane: str, peer: str) -> bool:
    """Say whether a comparison is worth a row."""
    if peer in LANES or (measure, lane, peer) in TARGETS:
        return peer not in LANES
    if peer == "raw TCP":
        return lane == "data" and measure.startswith("1 stream")
    if lane == "splice":  # the user's end is a process more: what counts is what the relay does
        return measure.startswith("relay CPU, 8") and peer == "OpenSSH -R"
    if lane == "mux":
        return not measure.startswith("8 streams") and not measure.startswith("relay CPU, 8")
    return True


def rows_of(values: Values) -> list[Row]:
    """Return a row for each measure, lane of ours and peer."""
    found = []
    for measure, by_way in ((measure, values[measure]) for measure in MEASURES):
        unit = next((unit for start, unit in UNITS.items() if measure.startswith(start)), "MB/s")
        better = "higher" if unit in ("MB/s", "1/s") else "lower"
        for lane in (lane for lane in LANES if lane in by_way):
            for peer in (peer for peer in by_way if shown(measure, lane, peer)):
                target = TARGETS.get((measure, lane, peer))
                mine, theirs = middle(by_way[lane], by_way[peer])
                found.append(
                    row(
                        f"{lane}: {measure}",
                        unit,
                        mine,
                        peer=peer,
                        theirs=theirs,
                        better=better,
                        target=target.bound if target else None,
                        of=target.of if target else "ours",
                    )
                )
    return found


def middle(mine: list[float], theirs: list[float]) -> tuple[float, float]:
    """Return the round with the median ratio."""
    pairs = sorted(zip(mine, theirs, strict=True), key=lambda pair: pair[0] / pair[1])
    return pairs[len(pairs) // 2]


# The relay dies.


class Relays:
    """Relays of one installation, and one agent linked with all."""

    def __init__(self, stack: ExitStack, folder: Path, count: int, port: int) -> None:
        enrol(folder)
        self._stack, self._folder = stack, folder
        self.processes = [stack.enter_context(relay_end(folder)) for _ in range(count)]
        self.doors = [process.answer() for process in self.processes]
        urls = [f"https://127.0.0.1:{doors['port']}" for doors in self.doors]
        agent = Process.python("bench.tunnelends", "agent", folder, "127.0.0.1", port, *urls)
        self.agent = stack.enter_context(agent)
        self.linked(count)

    def linked(self, count: int) -> None:
        """Wait until the agent was welcomed so many more times."""
        while count:
            count -= bool(self.agent.answer().get("welcomed"))

    def kill(self, number: int) -> float:
        """`kill -9` one and start it again on its ports; return when it was killed."""
        at = time.monotonic()
        self.processes[number].kill()
        self.start(number)
        return at

    def start(self, number: int) -> None:
        """Start one that was killed."""
        doors = dict(self.doors[number])
        listen, words = doors.pop("port"), str(doors).replace("'", '"')
        self.processes[number] = self._stack.enter_context(relay_end(self._folder, listen, words))
        self.processes[number].answer()


def stalls(folder: Path, port: int, load: Process, count: int, kills: int) -> tuple[list[float], dict[str, Any]]:
    """Kill relays in turn under a resumable echo; return how long each kill stalled it, and what the load says."""
    with ExitStack() as stack:
        relays = Relays(stack, folder, count, port)
        doors = [doors["splice"] for doors in relays.doors]
        client = stack.enter_context(Process.python("bench.tunnelends", "client", "127.0.0.1", *doors))
        load.tell({"do": "digest", "host": "127.0.0.1", "port": client.answer()["port"], "rate": 20 * MB})
        killed = []
        for number in range(kills):
            time.sleep(0.7)
            killed.append(relays.kill(number % count))
            relays.linked(1)
        time.sleep(1.0)
        load.tell({})
        answer = load.answer()
    return [_stall(at, answer["gaps"]) for at in killed], answer


def _stall(killed: float, gaps: list[list[float]]) -> float:
    """Return the longest gap that began about when a relay was killed."""
    return max((end - begin for begin, end in gaps if killed - 0.2 < begin < killed + 0.3), default=0.0)


def kill_rows(folder: Path, port: int, load: Process, kills: int) -> tuple[list[Row], list[str]]:
    """Measure both: with a second relay to go to, and with one that is started again."""
    rows, notes = [], []
    for count, name, bound in ((2, "another stands by", 0.5), (1, "it is started again", None)):
        found, answer = stalls(folder / f"kills-{count}", port, load, count, kills)
        what = f"relay kill -9, {name}"
        rows.append(row(f"{what}: digests equal", "of 1", float(answer["equal"]), target=1))
        rows.append(row(f"{what}: longest stall", "s", max(found), better="lower", target=bound))
        told = ", ".join(f"{one:.2f}" for one in found)
        notes.append(f"{what}: {answer['bytes'] / MB:.0f} MB echoed over {kills} kills, stalls of {told} s")
    return rows, notes


# Links that idle, come back, and die.


@contextmanager
def crowded(folder: Path, count: int) -> Iterator[tuple[Process, Process, dict[str, Any], int]]:
    """Have a relay with so many idle links: its process, the crowd's, the relay's ports, and its PSS before."""
    with ExitStack() as stack:
        enrol(folder)
        relay = stack.enter_context(relay_end(folder))
        doors = relay.answer()
        time.sleep(0.5)
        before = pss([relay.pid])
        url = f"https://127.0.0.1:{doors['port']}"
        crowd = stack.enter_context(Process.python("bench.tunnelends", "crowd", folder, count, url))
        while crowd.answer().get("all") != count:
            pass
        yield relay, crowd, doors, before


def idle_rows(folder: Path, size: Size) -> list[Row]:
    """Measure the relay's memory with idle links."""
    with crowded(folder, size.idle) as (relay, _, _, before):
        time.sleep(4.0)  # two pings of each
        after, cpu = pss([relay.pid]), relay.cpu()
        time.sleep(3.0)
        cpu = (relay.cpu() - cpu) / 3
    each = (after - before) / size.idle
    whole = before + each * IDLE_TARGET
    how = "" if size.idle == IDLE_TARGET else f", extrapolated from {size.idle}"
    return [
        row(f"relay with {IDLE_TARGET} idle links (PSS){how}", "MB", whole / MB, better="lower", target=300),
        row("one idle link (PSS)", "KB", each / 1000, better="lower"),
        row(f"relay CPU with {size.idle} idle links", "% of a core", cpu * 100, better="lower"),
    ]


def reconnect_rows(folder: Path, count: int) -> list[Row]:
    """Kill the relay under many links, start it again, and see when all are back."""
    with crowded(folder, count) as (relay, crowd, doors, _), ExitStack() as stack:
        killed = time.monotonic()
        relay.kill()
        again = stack.enter_context(relay_end(folder, doors["port"]))
        again.answer()
        while (said := crowd.answer()).get("all") != count:
            pass
        return [row(f"{count} agents back after a relay's restart", "s", said["at"] - killed, better="lower", target=8)]


def dead_rows(folder: Path, port: int) -> list[Row]:
    """Stop (not end) either end, and see when the other notices."""
    with ExitStack() as stack:
        relays = Relays(stack, folder, 1, port)
        relay = relays.processes[0]
        times = []
        for stopped, other, key in ((relays.agent, relay, "lost"), (relay, relays.agent, "at")):
            began = time.monotonic()
            stopped.signal(signal.SIGSTOP)
            times.append(other.answer()[key] - began)
            stopped.signal(signal.SIGCONT)
            if stopped is relays.agent:
                relays.linked(1)
    names = ("the agent, noticed by the relay", "the relay, noticed by the agent")
    return [row(f"dead link: {n}", "s", t, better="lower", target=5) for n, t in zip(names, times, strict=True)]


# Far away.


def wan_rows(folder: Path, rounds: int) -> tuple[list[Row], list[str]]:
    """Measure over a long way, without and with loss; say where that cannot be done."""
    if why := wan.lacks():
        return [], [f"WAN rows left out: {why}"]
    rows, notes = [], []
    for path in (wan.LONG, wan.LOSSY):
        with ExitStack() as stack:
            near, far = stack.enter_context(wan.between(folder, path))
            values, absent = _over(stack, folder / path.name.replace(" ", "-"), near, far, path, rounds)
        notes.append(f"{path.name}: {path.say()}; not there: {', '.join(absent) or 'none'}")
        for measure, lane, peer, bound in wan.COMPARED[path.name]:
            if peer in values[measure] and lane in values[measure]:
                mine, theirs = middle(values[measure][lane], values[measure][peer])
                rows.append(row(f"{path.name}, {lane}: {measure}", "MB/s", mine, peer=peer, theirs=theirs,
                                target=bound, of="ratio"))  # fmt: skip
        opens = median(values["open"]["data"]) / path.rtt_s
        rows.append(row(f"{path.name}, data: warm open", "RTT", opens, better="lower", target=wan.OPEN[path.name]))
    return rows, notes


def _over(
    stack: ExitStack, folder: Path, near: Place, far: Place, path: wan.Path, rounds: int
) -> tuple[Values, list[str]]:
    folder.mkdir()
    field = Field(folder, stack.enter_context(server(far)), near, far)
    load = stack.enter_context(Process.python("bench.traffic", "load", place=near))
    others, absent = peers(field, stack)
    ways = ours(field, stack) + [wan.direct(field)] + [way for way in others if way.name in wan.PEERS]
    values: Values = defaultdict(lambda: defaultdict(list))
    for _ in range(rounds):
        for way in ways:
            host = far.host if way.relay is None else near.host
            order = {"host": host, "port": way.port, "mode": "D", "streams": 1, "bytes": path.bytes}
            took = load.ask(do="bulk", **order)["seconds"]
            values["1 stream down"][way.name].append(path.bytes / took / MB)
            got = load.ask(do="opens", host=host, port=way.port, seconds=2 * path.rtt_s, parallel=1)
            values["open"][way.name].append(got["p50"])
    return values, absent


def run(quick: bool) -> tuple[list[Row], list[str]]:
    """Measure everything (quick: smaller, no WAN, no mass reconnect)."""
    size = QUICK if quick else FULL
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that all that was started is ended
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="atoll-bench-")))
        port = stack.enter_context(server())
        load = stack.enter_context(Process.python("bench.traffic", "load"))
        with ExitStack() as started:
            field = Field(folder, port)
            others, absent = peers(field, started)
            bench = Bench(load, raw(field, started) + ours(field, started) + others, size)
            for _ in range(size.rounds):
                bench.round()
        rows = rows_of(bench.values)
        killed, notes = kill_rows(folder, port, load, size.kills)
        rows += killed + idle_rows(folder / "idle", size) + dead_rows(folder / "dead", port)
        if size.reconnect:
            rows += reconnect_rows(folder / "back", size.reconnect)
        if size.wan:
            far, said = wan_rows(folder, size.rounds)
            rows, notes = rows + far, notes + said
    return rows, [
        f"{size.rounds} rounds in turns, {size.bytes >> 20} MiB each; opens: {PARALLEL} at a time, all on this machine",
        f"not on this machine: {', '.join(absent) or 'no peer'}",
        *([] if size.wan else ["WAN and the return of 2,000 agents: without --quick only"]),
        *notes,
        "not measured: `federation.relay` as a process, blind streams, direct lane; links' memory has no control state",
    ]


if __name__ == "__main__":
    sys.exit(main("the tunnel beside its peers", run))
