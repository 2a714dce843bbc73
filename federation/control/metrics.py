"""The control plane's figures: sessions, agents, instances, links and reconcilers; labels are bounded in number."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from atoll import __version__
from atoll.clock import Clock
from atoll.session import Session
from atoll.states import WAITING
from federation.control.changes import Changes
from federation.control.linkfacts import LinkFacts, LinkStanding, middle
from federation.control.links import Links
from federation.control.reconcile import Reconciler
from federation.control.relaymetrics import Said, relay_process_families
from federation.control.relays import Relays
from federation.control.streamreports import StreamReports
from tunnel.metrics import Family, Sample, counter, gauge, relay_families

AGENTS_SHOWN = 256
"""Links are shown one by one while no more agents than this are on record, else by group alone."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What is counted, all of one moment; times in seconds. `waits` is how long the oldest session has waited.

    `reach` has each agent's group, whether its link is up, and its round trip; `links` are those shown one by one;
    `relays` what each last said of itself. `refused` counts streams that were not opened since their user had too
    many, `untaken` reports of streams that were not believed, by reason; `lost` those that their tellers dropped.
    """

    sessions: Mapping[str, int]
    agents: Mapping[str, int]
    instances: Mapping[str, int]
    waits: float
    reach: Sequence[tuple[str, bool, float | None]]
    links: Sequence[LinkStanding]
    relays: Said
    connects: int
    drops: int
    rounds: Sequence[tuple[str, int, int, float | None]]
    """Name, rounds, failed rounds, and the age of the last good one of each reconciler."""
    refused: Mapping[str, int] = field(default_factory=dict)
    untaken: Mapping[str, int] = field(default_factory=dict)
    lost: int = 0


class Metrics:
    """Reads the figures; nothing is kept for it."""

    def __init__(
        self,
        changes: Changes,
        links: Links,
        facts: LinkFacts,
        clock: Clock,
        relays: Relays,
        reports: StreamReports,
        reconcilers: Callable[[], Iterable[Reconciler]],
        *,
        shown: int = AGENTS_SHOWN,
    ) -> None:
        self._shown = shown
        self._changes = changes
        self._links = links
        self._facts = facts
        self._clock = clock
        self._relays = relays
        self._reports = reports
        self._reconcilers = reconcilers

    async def families(self) -> list[Family]:
        """Return all families of this moment, those of the relay in this process included."""
        rows = await self._changes.rows()
        async with self._changes.look() as tx:
            sessions = await tx.tally(Session, "state")
        agents = [(row, self._links.live(row.id)) for row in rows.agents.values()]
        waiting = [row.queued_at for row in rows.sessions.values() if row.state in WAITING]
        figures = Figures(
            sessions=sessions,
            agents=Counter(str(row.state) for row in rows.agents.values()),
            instances=Counter(str(row.state) for row in rows.instances.values()),
            waits=max(0.0, self._clock.now() - min(waiting)) if waiting else 0.0,
            reach=[(row.group, live is not None, live.rtt if live else None) for row, live in agents],
            links=[self._facts.standing(row) for row, _ in agents] if len(agents) <= self._shown else [],
            relays=[
                (row.name, self._relays.live(row.id), self._relays.rtt(row.id)) for row in await self._relays.list()
            ],
            connects=self._links.history.connects,
            drops=self._links.history.drops,
            rounds=[(each.name, each.rounds, each.failures, each.age) for each in self._reconcilers()],
            refused=self._links.streams.refused,
            untaken=self._reports.refused,
            lost=sum(self._reports.lost.values()),
        )
        return [*families(figures), *relay_families(self._links.streams.relay.carried())]


def families(figures: Figures) -> list[Family]:
    """Return the families of these figures. Pure."""
    return [
        gauge("atoll_build_info", "Always 1; the version is a label.", Sample(1, {"version": __version__})),
        gauge("atoll_sessions", "Sessions on record, by state.", *_by("state", figures.sessions)),
        gauge("atoll_agents", "Agents of the installation, by state.", *_by("state", figures.agents)),
        gauge("atoll_instances", "Instances that may exist, by state.", *_by("state", figures.instances)),
        gauge("atoll_oldest_wait_seconds", "How long the oldest waiting session has waited.", Sample(figures.waits)),
        *_rounds(figures),
        counter("atoll_link_connects_total", "Agents' links that were registered.", Sample(figures.connects)),
        counter("atoll_link_drops_total", "Agents' links that were lost.", Sample(figures.drops)),
        *_groups(figures.reach),
        *relay_process_families(figures.relays),
        *_records(figures),
        *(_links(figures.links) if figures.links else ()),
    ]


def _by(label: str, counts: Mapping[str, int]) -> list[Sample]:
    return [Sample(count, {label: value}) for value, count in sorted(counts.items())]


def _rounds(figures: Figures) -> list[Family]:
    ages = [Sample(age, {"reconciler": name}) for name, _, _, age in figures.rounds if age is not None]
    return [
        counter(
            "atoll_rounds_total",
            "Rounds of each reconciler.",
            *(Sample(rounds, {"reconciler": name}) for name, rounds, _, _ in figures.rounds),
        ),
        counter(
            "atoll_rounds_failed_total",
            "Those that ended with an error.",
            *(Sample(failures, {"reconciler": name}) for name, _, failures, _ in figures.rounds),
        ),
        gauge("atoll_round_age_seconds", "Time since each one's last good round; `schedule` plans.", *ages),
    ]


def _records(figures: Figures) -> list[Family]:
    return [
        counter(
            "atoll_user_stream_refusals_total",
            "Streams that were not opened since their user had too many.",
            *_by("reason", figures.refused),
        ),
        counter(
            "atoll_stream_reports_refused_total",
            "Reports of streams by relays and agents that no grant of ours is behind.",
            *_by("reason", figures.untaken),
        ),
        counter(
            "atoll_stream_reports_lost_total",
            "Ends of streams that relays and agents could not keep until they were recorded.",
            Sample(figures.lost),
        ),
    ]


def _groups(reach: Sequence[tuple[str, bool, float | None]]) -> list[Family]:
    connected: dict[str, int] = {}
    trips: dict[str, list[float]] = {}
    for group, up, rtt in reach:
        connected[group] = connected.get(group, 0) + up
        if up and rtt is not None:
            trips.setdefault(group, []).append(rtt)
    return [
        gauge(
            "atoll_agents_connected",
            "Agents whose link is up, by group.",
            *_by("group", connected),
        ),
        gauge(
            "atoll_group_rtt_seconds",
            "Round trips over the links of a group's agents.",
            *(
                Sample(value, {"group": group, "quantile": quantile})
                for group, times in sorted(trips.items())
                for quantile, value in (("0.5", middle(times)), ("1", max(times)))
            ),
        ),
    ]


def _links(links: Sequence[LinkStanding]) -> list[Family]:
    named = [(link, {"agent": link.agent.id, "name": link.agent.name, "group": link.agent.group}) for link in links]
    lanes = [
        (labels | {"lane": lane}, tally, link.carried.streams[lane])
        for link, labels in named
        for lane, tally in link.carried.lanes.items()
    ]
    return [
        gauge(
            "atoll_link_up", "Whether an agent's link is up.", *(Sample(link.connected, each) for link, each in named)
        ),
        gauge(
            "atoll_link_rtt_seconds",
            "Smoothed round trip over an agent's link.",
            *(Sample(link.rtt, each) for link, each in named if link.rtt is not None),
        ),
        gauge(
            "atoll_link_buffered_bytes",
            "Bytes that wait to be sent to an agent.",
            *(Sample(link.carried.buffered, each) for link, each in named),
        ),
        counter(
            "atoll_link_agent_drops_total",
            "How often an agent's link was lost.",
            *(Sample(link.drops, each) for link, each in named),
        ),
        counter(
            "atoll_link_bytes_total",
            "Bytes of an agent's streams, by lane, since its process began.",
            *(
                Sample(count, each | {"direction": way})
                for each, tally, _ in lanes
                for way, count in (("from_agents", tally.received), ("to_agents", tally.sent))
            ),
        ),
        gauge("atoll_link_streams", "An agent's streams, by lane.", *(Sample(count, each) for each, _, count in lanes)),
    ]
