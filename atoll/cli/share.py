"""`atoll share`: whom a session's app lets in besides its owner."""

import argparse

from atoll.cli.connect import client
from atoll.cli.output import note, show
from atoll.cli.parser import Parser, Run
from atoll.errors import Invalid
from atoll.policy import MEMBER


def share(parser: Parser) -> Run:
    """Set up `atoll share`."""
    parser.add_argument("session", help="id or name")
    parser.add_argument("app", help="the app")
    who = parser.add_mutually_exclusive_group()
    who.add_argument("--project", dest="to", action="store_const", const="project", help="members of its project")
    who.add_argument("--public", dest="to", action="store_const", const="public", help="everyone with its address")
    who.add_argument("--off", dest="to", action="store_const", const="owner", help="its owner alone, as at first")
    parser.output()
    return _share


def _share(args: argparse.Namespace) -> int:
    if args.to is None:
        raise Invalid("whom to let in was not said", hint="--project, --public, or --off to let in its owner alone")
    view = client().share(args.session, args.app, args.to)
    if args.output != "table":
        show(view, args.output)
        return 0
    print(view.apps[args.app])
    if args.to == "project":
        role = MEMBER + view.project
        note(f"open to those who have the role {role}: atoll token create --api --owner NAME --role {role}")
    elif args.to == "public":
        note("open to everyone who has this address")
    else:
        note(f"open to {view.owner} alone")
    return 0
