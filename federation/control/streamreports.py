"""What relays and agents tell of users' streams: taken for what a grant of ours permitted, and for nothing else."""

from collections import Counter
from collections.abc import Callable

from atoll.agent import Agent
from atoll.clock import Clock
from atoll.streamrecord import Sighting
from federation.control.changes import Changes
from federation.control.streamlog import Page, StreamLog, Visit
from federation.control.streamrecords import StreamRecords
from tunnel import wire
from tunnel.directline import LANE as DIRECT
from tunnel.figures import StreamReport
from tunnel.grant import BadGrant, Grant, agent_key, agent_named, for_record, relay_key
from tunnel.lanes import Lane

REPORTS_LIMIT = 512
"""Most reports of one message that are looked at."""
GENERATIONS = 16
"""Grants by this many of an agent's last keys are known: each lives half a day."""
_MOST = 2**62
_TEXT = 64


class StreamReports:
    """Takes reports into `log`; each message is noted once what it told is stored."""

    def __init__(self, changes: Changes, secret: bytes, log: StreamLog, records: StreamRecords, clock: Clock) -> None:
        self._changes = changes
        self._secret = secret
        self._relay_key = relay_key(secret)
        self._log = log
        self._records = records
        self._clock = clock
        self.refused: Counter[str] = Counter()
        """Reports that were not taken: `grant` (it is none of ours), `agent` (it is another one's), `door`."""
        self.lost: Counter[str] = Counter()
        """Reports that those who tell could not keep, by who."""

    async def from_agent(self, agent: str, message: wire.StreamReports, send: Callable[[wire.Message], None]) -> None:
        """An agent tells of the streams to it, and of what came in by its own door."""
        await self._take(agent, "", message, send)

    async def from_relay(
        self, relay: str, name: str, message: wire.StreamReports, send: Callable[[wire.Message], None]
    ) -> None:
        """A relay of that id and name tells of what came in by its door."""
        await self._take(relay, name, message, send)

    async def _take(
        self, teller: str, relay: str, message: wire.StreamReports, send: Callable[[wire.Message], None]
    ) -> None:
        boot = _clean(message.boot)
        self._log.attends(teller, boot)
        if message.lost:
            self.lost[teller] = _count(message.lost)
        pages: list[Page] = []
        for report in message.reports[:REPORTS_LIMIT]:
            try:
                grant = await self._granted(report.grant)
            except BadGrant:
                self.refused["grant"] += 1
                continue
            if not relay and grant.agent != teller:
                self.refused["agent"] += 1
            elif not _fits(report, relay):
                self.refused["door"] += 1
            else:
                sighting = self._sighting(f"{teller}/{boot}/{report.number}", relay, report)
                page = self._log.saw(visit_by(grant, sighting.source), grant.resume, sighting)
                pages += [page] if page is not None else []
        if message.reports:
            self._records.acknowledge(teller, pages, lambda: send(wire.Noted(serial=message.serial)))

    async def _granted(self, sealed: bytes) -> Grant:
        """Return a user's grant that we made; raise `BadGrant` for any other."""
        name = agent_named(sealed)
        rows = await self._changes.rows()
        row = rows.agents.get(name)
        if row is None:
            async with self._changes.look() as tx:
                row = await tx.get(Agent, name)
        newest = max(row.generation, row.generation_used) if row is not None else -1
        keys = (agent_key(self._secret, name, each) for each in range(newest, max(-1, newest - GENERATIONS), -1))
        grant = for_record(sealed, self._relay_key, keys)
        if not (grant.user and grant.token and grant.resume):
            raise BadGrant("the grant is no user's")
        return grant

    def _sighting(self, by: str, relay: str, report: StreamReport) -> Sighting:
        """Return what is told, by our own clock (I11)."""
        now = self._clock.now()
        began_at = now - min(max(0.0, report.ago_s), now)
        lasted_s = report.lasted_s
        return Sighting(
            by=by,
            whole=report.whole,
            via="" if report.whole else relay or DIRECT,
            lane=_clean(report.lane),
            source=_clean(report.source),
            resumed=_count(report.resumed),
            received=_count(report.received),
            sent=_count(report.sent),
            reason=_clean(report.reason),
            message=report.message,
            began_at=began_at,
            ended_at=None if lasted_s is None else min(now, began_at + max(0.0, lasted_s)),
        )


def _fits(report: StreamReport, relay: str) -> bool:
    """Say whether it tells what such a one can see: a relay connections, an agent streams and its own door."""
    if relay:
        return not report.whole and report.lane in ("", *Lane)
    return report.lane == ("" if report.whole else DIRECT)


def visit_by(grant: Grant, source: str) -> Visit:
    """Return whom a user's grant lets go where: the same for every door, since a record's id is made of it."""
    return Visit(
        door="stream",
        user=grant.user,
        project=grant.project,
        session=grant.session,
        run=grant.run,
        app=grant.app,
        port=grant.port,
        source=source,
    )


def _count(value: int) -> int:
    return max(0, min(value, _MOST))


def _clean(text: str) -> str:
    return "".join(each for each in text[:_TEXT] if each.isprintable() and each != "/")
