"""Figures in the text that Prometheus reads (format 0.0.4), and those of a relay: its lanes and its port. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from tunnel.relay import Carried

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
Labels: TypeAlias = Mapping[str, str]


class Kind(StrEnum):
    """What a figure does over time."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Sample:
    """One value; `suffix` is appended to its family's name (`_bucket`, `_sum`, `_count` of a histogram)."""

    value: float
    labels: Labels = field(default_factory=dict)
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class Family:
    """Values of one name. A counter's name ends in `_total`; seconds and bytes are its units, said in the name."""

    name: str
    kind: Kind
    about: str
    samples: Sequence[Sample]


def counter(name: str, about: str, *samples: Sample) -> Family:
    """Return a family of values that only rise, until a process begins anew."""
    return Family(name, Kind.COUNTER, about, samples)


def gauge(name: str, about: str, *samples: Sample) -> Family:
    """Return a family of values that rise and fall."""
    return Family(name, Kind.GAUGE, about, samples)


def text(families: Iterable[Family]) -> str:
    """Return the families as text. Raises `ValueError` where two have one name: no reader takes that."""
    seen: set[str] = set()
    lines: list[str] = []
    for family in families:
        if family.name in seen:
            raise ValueError(f"two families are called {family.name}")
        seen.add(family.name)
        about = family.about.replace("\\", "\\\\").replace("\n", "\\n")
        lines += [f"# HELP {family.name} {about}", f"# TYPE {family.name} {family.kind}"]
        lines += [f"{family.name}{each.suffix}{_labels(each.labels)} {_number(each.value)}" for each in family.samples]
    return "".join(f"{line}\n" for line in lines)


class Histogram:
    """How often a value was at most each of `bounds`. Adding is cheap; nothing is forgotten."""

    def __init__(self, *bounds: float) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self._sum += value
        self._counts[sum(bound < value for bound in self._bounds)] += 1

    def family(self, name: str, about: str) -> Family:
        """Return it as a family."""
        samples, below = [], 0
        for bound, count in zip((*self._bounds, float("inf")), self._counts, strict=True):
            below += count
            samples.append(Sample(below, {"le": _number(bound)}, "_bucket"))
        samples += [Sample(self._sum, suffix="_sum"), Sample(below, suffix="_count")]
        return Family(name, Kind.HISTOGRAM, about, samples)


def relay_families(carried: "Carried", relay: str = "") -> list[Family]:
    """Return what a relay's lanes carry and have carried, for all agents; `relay` names it where there are several."""
    base = {"relay": relay} if relay else {}

    def each(pick: str) -> list[Sample]:
        return [Sample(getattr(tally, pick), {**base, "lane": lane}) for lane, tally in carried.lanes.items()]

    moved = [
        Sample(count, {**base, "lane": lane, "direction": way})
        for lane, tally in carried.lanes.items()
        for way, count in (("from_agents", tally.received), ("to_agents", tally.sent))
    ]
    refused = [
        Sample(count, {**base, "lane": lane, "reason": reason})
        for lane, tally in carried.lanes.items()
        for reason, count in sorted(tally.refused.items())
    ]
    held = {"ready": carried.held.ready, "in_use": carried.held.in_use, "pending": carried.held.pending}
    return [
        counter("atoll_tunnel_bytes_total", "Bytes of streams, by lane.", *moved),
        counter("atoll_tunnel_opens_total", "Streams opened, by lane.", *each("opens")),
        counter("atoll_tunnel_resumes_total", "Lanes that took the place of a lost one.", *each("resumes")),
        counter("atoll_tunnel_refusals_total", "Streams not opened on a lane, by reason.", *refused),
        gauge(
            "atoll_tunnel_streams",
            "Streams open now, by lane.",
            *(Sample(count, {**base, "lane": lane}) for lane, count in carried.streams.items()),
        ),
        gauge(
            "atoll_tunnel_data_connections",
            "Data connections of agents: ready, in use, or asked for.",
            *(Sample(count, {**base, "state": state}) for state, count in held.items()),
        ),
        gauge(
            "atoll_tunnel_waiting_streams",
            "Streams that wait for a data connection.",
            Sample(carried.held.waiting, base),
        ),
        gauge("atoll_tunnel_buffered_bytes", "Bytes that wait to be sent to agents.", Sample(carried.buffered, base)),
    ]


def port_families(refused: Mapping[str, int], pending: int) -> list[Family]:
    """Return what the one port refused before anybody was served, and how many handshakes are under way."""
    samples = [Sample(count, {"reason": reason}) for reason, count in sorted(refused.items())]
    return [
        counter("atoll_port_refusals_total", "Connections to the port that were not served, by reason.", *samples),
        gauge("atoll_port_handshakes", "Connections between accept and the end of the handshake.", Sample(pending)),
    ]


def door_families(refused: Mapping[str, int]) -> list[Family]:
    """Return what the users' door of this process sent away."""
    samples = [Sample(count, {"reason": reason}) for reason, count in sorted(refused.items())]
    return [counter("atoll_door_refusals_total", "Users' connections that the door sent away, by reason.", *samples)]


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    if value == float("inf"):
        return "+Inf"
    return str(int(value)) if value == int(value) else repr(float(value))
