"""`atoll audit`: who did what; `streams` tells who reached which session, from where, and how much passed."""

import argparse

from atoll import duration
from atoll.cli import columns
from atoll.cli.connect import client
from atoll.cli.output import Columns, show, size
from atoll.cli.parser import Parser, Run, run_verb
from atoll.client.linkviews import StreamRecordView
from atoll.host.system import SystemClock


def audit(parser: Parser) -> Run:
    """Set up `atoll audit`."""
    add = parser.verbs()
    streams = add("streams", _streams, "list who reached which session", "atoll audit streams nb --since 1d")
    streams.add_argument("session", nargs="?", default="", help="id or name (default: all, for administrators)")
    streams.add_argument("--user", default="", help="of this user only; for administrators")
    streams.add_argument("--refused", action="store_true", help="only those that were not let through")
    streams.add_argument("--since", default="7d", metavar="TIME", help="how far back: 12h, 30d (default 7d)")
    streams.add_argument("--limit", type=int, default=200, metavar="N", help="at most so many, newest first (200)")
    streams.output()
    return run_verb


def _streams(args: argparse.Namespace) -> int:
    since = SystemClock().now() - duration.parse(args.since)
    found: list[StreamRecordView] = []
    for each in client(args).streams(args.session, user=args.user):
        if each.began_at < since or len(found) >= args.limit:
            break
        if args.user in ("", each.user) and (not args.refused or each.state == "refused"):
            found.append(each)
    show(found, args.output, STREAMS, "nobody reached it in this time")
    return 0


def _target(record: StreamRecordView) -> str:
    if record.exec:
        return "program"
    return f"app {record.app}" if record.app else f"port {record.port}" if record.port else "several"


def _end(record: StreamRecordView) -> str:
    return f"{record.reason}: {record.message}" if record.message else record.reason


def _lasted(record: StreamRecordView) -> str:
    return "" if record.ended_at is None else duration.rough(record.ended_at - record.began_at)


STREAMS: Columns = {
    "BEGAN": lambda record: columns.date_time(record.began_at),
    "STATE": lambda record: record.state,
    "USER": lambda record: record.user,
    "FROM": lambda record: record.source,
    "DOOR": lambda record: record.door,
    "SESSION": lambda record: record.session,
    "TARGET": _target,
    "N": lambda record: str(record.streams),
    "VIA": lambda record: ",".join(dict.fromkeys(each.via for each in record.ways)),
    "LANES": lambda record: ",".join(record.lanes),
    "RESUMED": lambda record: str(record.resumed),
    "IN": lambda record: size(record.received),
    "OUT": lambda record: size(record.sent),
    "LASTED": _lasted,
    "END": _end,
}
