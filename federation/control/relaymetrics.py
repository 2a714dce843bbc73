"""The figures of relays' processes, as each last said of itself; labels are bounded whatever a relay says. Pure."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from tunnel import wire
from tunnel.figures import LaneFigures
from tunnel.lanes import Lane
from tunnel.metrics import Family, Sample, counter, gauge

REASONS_LIMIT = 16
"""Most reasons of one kind that are told one by one; the others are `other`."""
Said = Sequence[tuple[str, wire.Serving | None, float | None]]
"""Each relay's name, what it said, None while it is not connected, and the round trip over its uplink."""


def relay_process_families(relays: Said) -> list[Family]:
    """Return the families of these relays, none where there are none."""
    said = [(serving, {"relay": name}) for name, serving, _ in relays if serving is not None]
    if not relays:
        return []

    def each(pick: Callable[[wire.Serving], float]) -> Iterable[Sample]:
        return (Sample(pick(serving), who) for serving, who in said)

    return [
        gauge(
            "atoll_relay_up",
            "Whether a relay's process is connected.",
            *(Sample(serving is not None, {"relay": name}) for name, serving, _ in relays),
        ),
        gauge(
            "atoll_relay_rtt_seconds",
            "Smoothed round trip over a relay's link to the control plane.",
            *(Sample(rtt, {"relay": name}) for name, _, rtt in relays if rtt is not None),
        ),
        gauge("atoll_relay_agents", "Agents linked to a relay.", *each(lambda said: said.agents)),
        gauge("atoll_relay_streams", "Users' streams over it.", *each(lambda said: said.streams)),
        gauge("atoll_relay_passing", "Connections that it only passes on.", *each(lambda said: said.passing)),
        gauge("atoll_relay_buffered_bytes", "Bytes that wait there for agents.", *each(lambda said: said.buffered)),
        counter(
            "atoll_relay_bytes_total",
            "Bytes of streams since a relay's process began.",
            *(
                Sample(count, who | {"direction": way})
                for serving, who in said
                for way, count in (("from_agents", serving.received), ("to_agents", serving.sent))
            ),
        ),
        counter(
            "atoll_relay_refusals_total",
            "Users' connections that its door sent away, by reason.",
            *(sample for serving, who in said for sample in _reasons(serving.refused, who)),
        ),
        counter(
            "atoll_relay_port_refusals_total",
            "Connections to its port that never got to a door, by reason.",
            *(sample for serving, who in said for sample in _reasons(serving.port, who)),
        ),
        counter(
            "atoll_relay_reports_lost_total",
            "Ends of streams that it could not keep until they were recorded.",
            *each(lambda said: said.lost),
        ),
        gauge(
            "atoll_relay_data_connections",
            "Agents' data connections to it: ready, in use, or asked for.",
            *(
                Sample(serving.held.get(state, 0), who | {"state": state})
                for serving, who in said
                for state in ("ready", "in_use", "pending")
            ),
        ),
        *_lanes([(lane, figures, who) for serving, who in said for lane, figures in _known(serving)]),
    ]


def _known(serving: wire.Serving) -> list[tuple[Lane, LaneFigures]]:
    return [(lane, serving.lanes[lane]) for lane in Lane if lane in serving.lanes]


def _lanes(told: Sequence[tuple[Lane, LaneFigures, Mapping[str, str]]]) -> list[Family]:
    named = [(figures, {**who, "lane": str(lane)}) for lane, figures, who in told]
    moved = [
        Sample(count, who | {"direction": way})
        for figures, who in named
        for way, count in (("from_agents", figures.received), ("to_agents", figures.sent))
    ]
    return [
        gauge("atoll_relay_lane_streams", "Its streams open now, by lane.", *(Sample(f.streams, w) for f, w in named)),
        counter("atoll_relay_lane_opens_total", "Lanes that it opened.", *(Sample(f.opens, w) for f, w in named)),
        counter(
            "atoll_relay_lane_resumes_total",
            "Those that took the place of a lost one.",
            *(Sample(figures.resumes, who) for figures, who in named),
        ),
        counter("atoll_relay_lane_bytes_total", "Bytes of its streams, by lane.", *moved),
        counter(
            "atoll_relay_lane_refusals_total",
            "Streams that it did not open on a lane, by reason.",
            *(sample for figures, who in named for sample in _reasons(figures.refused, who)),
        ),
    ]


def _reasons(counts: Mapping[str, int], who: Mapping[str, str]) -> list[Sample]:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown, rest = sorted(ordered[:REASONS_LIMIT]), ordered[REASONS_LIMIT:]
    if rest:
        shown.append(("other", sum(count for _, count in rest)))
    return [Sample(count, {**who, "reason": reason[:64]}) for reason, count in shown]
