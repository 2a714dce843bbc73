"""`atoll ps`, `logs`, `stop` and `open`: sessions that exist."""

import argparse
import sys

from atoll import duration
from atoll.cli import columns
from atoll.cli.connect import client
from atoll.cli.output import note, show
from atoll.cli.parser import Parser, Run
from atoll.client.stream import LogChunk
from atoll.errors import Invalid
from atoll.states import SessionState


def ps(parser: Parser) -> Run:
    """Set up `atoll ps`."""
    parser.add_argument("-a", "--all", action="store_true", help="ended sessions, too")
    parser.add_argument("--state", action="append", metavar="STATE", help="only in this state; may be repeated")
    parser.add_argument("--limit", type=int, default=1000, metavar="N", help="newest N only (default 1000)")
    parser.add_argument("--project", help=argparse.SUPPRESS)
    parser.output()
    return _ps


def _ps(args: argparse.Namespace) -> int:
    if args.limit < 1:
        raise Invalid(f"--limit is {args.limit}", hint="1 or more")
    found = client(args).sessions(args.state or (), live=not args.all and not args.state, limit=args.limit)
    show(found, args.output, columns.SESSIONS, "no sessions; `atoll run -- COMMAND` starts one, --all shows ended ones")
    return 0


def logs(parser: Parser) -> Run:
    """Set up `atoll logs`."""
    parser.add_argument("session", help="id or name")
    parser.add_argument("-f", "--follow", action="store_true", help="stay until it has ended")
    parser.add_argument("--channel", choices=("both", "out", "err"), default="both", help="stdout, stderr or both")
    parser.add_argument("--rank", type=int, default=0, help="member of a gang (default 0)")
    parser.add_argument("--attempt", type=int, default=0, help="an earlier attempt (default: the newest)")
    parser.add_argument("--project", help=argparse.SUPPRESS)
    return _logs


def _logs(args: argparse.Namespace) -> int:
    connection = client(args)
    follow = connection.follow(
        args.session, channel=args.channel, rank=args.rank, attempt=args.attempt, stay=args.follow
    )
    for news in follow:
        if isinstance(news, LogChunk):
            stream = sys.stderr.buffer if news.channel == "err" else sys.stdout.buffer
            stream.write(news.data)
            stream.flush()
    return 0


def stop(parser: Parser) -> Run:
    """Set up `atoll stop`."""
    parser.add_argument("session", nargs="+", help="ids or names")
    parser.add_argument("--wait", action="store_true", help="return once they have ended")
    parser.add_argument("--timeout", metavar="TIME", help="with --wait: give up after this long")
    parser.add_argument("--project", help=argparse.SUPPRESS)
    return _stop


def _stop(args: argparse.Namespace) -> int:
    connection = client(args)
    limit = None if args.timeout is None else duration.parse(args.timeout)
    for ref in args.session:
        view = connection.stop(ref)
        note(f"{view.name} is {view.state}")
    if args.wait:
        for ref in args.session:
            ended = connection.wait(ref, timeout=limit)
            note(f"{ended.name} is {ended.state}")
    return 0


def move(parser: Parser) -> Run:
    """Set up `atoll move`."""
    parser.add_argument("session", help="id or name; it must take checkpoints")
    parser.add_argument("--to", default="", metavar="SITE|AGENT", help="where to (default: wherever there is a place)")
    parser.add_argument("--project", help=argparse.SUPPRESS)
    return _move


def _move(args: argparse.Namespace) -> int:
    view = client(args).move(args.session, args.to)
    note(f"{view.name} {view.message}")
    return 0


def open_app(parser: Parser) -> Run:
    """Set up `atoll open`."""
    parser.add_argument("session", nargs="?", help="id or name; without it the page of the control plane")
    parser.add_argument("app", nargs="?", help="the app (default: the only one)")
    parser.add_argument("--project", help=argparse.SUPPRESS)
    return _open


def _open(args: argparse.Namespace) -> int:
    connection = client(args)
    if not args.session:
        print(connection.login_link())
        return 0
    view = connection.session(args.session)
    names = list(view.spec.get("apps", {}))
    if not args.app and len(names) != 1:
        found = ", ".join(names) if names else "none"
        raise Invalid(f"{view.name} has these apps: {found}", hint="name one, or start it with `atoll run --app NAME`")
    if view.state != SessionState.RUNNING:
        note(f"{view.name} is {view.state}: the link works once it runs")
    print(connection.app_link(view.id, args.app or names[0]))
    return 0
