"""`atoll approve`: the word of somebody with a role, which a session waits for."""

import argparse

from atoll.cli.connect import client
from atoll.cli.output import show
from atoll.cli.parser import Parser, Run


def approve(parser: Parser) -> Run:
    """Set up `atoll approve`."""
    parser.add_argument("session", help="id or name; `atoll why SESSION` says whose approval it needs")
    parser.add_argument("--as", dest="role", metavar="ROLE", default="", help="one of your roles (default: all asked)")
    parser.add_argument("--project", help=argparse.SUPPRESS)
    parser.output()
    return _approve


def _approve(args: argparse.Namespace) -> int:
    view = client(args).approve(args.session, args.role)
    if args.output != "table":
        show(view, args.output)
    else:
        print(f"{view.name} is {view.state}: {view.message}")
    return 0
