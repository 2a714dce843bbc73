"""`atoll relay`: processes that carry users' streams beside the control plane; `run` is one, on this machine."""

import argparse
from pathlib import Path

from atoll import duration
from atoll.cli import columns
from atoll.cli.connect import client
from atoll.cli.output import note, show
from atoll.cli.parser import Parser, Run, run_verb
from atoll.cli.server import server_side


def relay(parser: Parser) -> Run:
    """Set up `atoll relay`."""
    add = parser.verbs()
    create = add("create", _create, "create a relay", "atoll relay create east --url https://relay1.example.com")
    create.add_argument("name")
    create.add_argument("--url", required=True, metavar="URL", help="where agents and users will find it")
    create.add_argument("--ttl", default="1h", metavar="TIME", help="how long its token is good (1h)")
    create.output()
    add("list", _list, "list relays", "atoll relay list -o json").output()
    drain = add("drain", _drain, "let it take nothing new, and end; streams go on elsewhere", "atoll relay drain east")
    drain.add_argument("relay", help="name or id")
    drain.add_argument("--deadline", default="60s", metavar="TIME", help="it ends after this at the latest (60s)")
    drain.output()
    remove = add("remove", _remove, "take it out of the installation, at once", "atoll relay remove east")
    remove.add_argument("relay", help="name or id")
    run = add("run", _run, "be a relay, in the foreground", "atoll relay run --listen 0.0.0.0:443 --token atj_…")
    run.add_argument("--token", default="", help="from `atoll relay create`; the first time only ($ATOLL_RELAY_TOKEN)")
    run.add_argument("--listen", default="0.0.0.0:443", metavar="HOST:PORT", help="where to listen (0.0.0.0:443)")
    run.add_argument("--home", type=Path, help="where it keeps its state (default $ATOLL_HOME/relay)")
    return run_verb


def _create(args: argparse.Namespace) -> int:
    made = client(args).create_relay(args.name, args.url, ttl_s=duration.parse(args.ttl))
    if args.output != "table":
        show(made, args.output)
        return 0
    print(made.secret)
    note(f"on the relay's machine: {made.command}")
    return 0


def _list(args: argparse.Namespace) -> int:
    show(client(args).relays(), args.output, columns.RELAYS, "no relays; the control plane carries all streams itself")
    return 0


def _drain(args: argparse.Namespace) -> int:
    view = client(args).drain_relay(args.relay, deadline=duration.parse(args.deadline))
    if args.output != "table":
        show(view, args.output)
        return 0
    print(f"relay {view.name}: it is {view.state} and ends within {args.deadline}; start it again to have it serve")
    return 0


def _remove(args: argparse.Namespace) -> int:
    client(args).delete("relays", args.relay)
    print(f"relay {args.relay} removed")
    return 0


def _run(args: argparse.Namespace) -> int:
    return server_side("federation.relay.command", "run", args)
