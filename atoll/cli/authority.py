"""`atoll ca`: the installation's certificate authority, and its rotation."""

import argparse

from atoll.cli.columns import date_time
from atoll.cli.connect import client
from atoll.cli.output import Columns, note, show
from atoll.cli.parser import Parser, Run, run_verb
from atoll.client.views import AuthorityView

AUTHORITIES: Columns = {
    "SHA256": lambda c: c.sha256,
    "UNTIL": lambda c: date_time(c.until),
    "SIGNS": lambda c: "yes" if c.signs else "",
}


def ca(parser: Parser) -> Run:
    """Set up `atoll ca`."""
    add = parser.verbs()
    add(
        "show", _show, "show the CAs that are trusted, and who has yet to move to the new one", "atoll ca show"
    ).output()
    rotate = add("rotate", _rotate, "sign with a new CA; the one before is trusted until retired", "atoll ca rotate")
    rotate.output()
    retire = add("retire", _retire, "trust the new CA alone", "atoll ca retire")
    retire.add_argument("--force", action="store_true", help="lock out agents that have yet to move: they join anew")
    retire.output()
    return run_verb


def _show(args: argparse.Namespace) -> int:
    return _told(client(args).standing_authority(), args)


def _rotate(args: argparse.Namespace) -> int:
    return _told(client(args).rotate_authority(), args)


def _retire(args: argparse.Namespace) -> int:
    return _told(client(args).retire_authority(force=args.force), args)


def _told(view: AuthorityView, args: argparse.Namespace) -> int:
    if args.output != "table":
        show(view, args.output)
        return 0
    show(view.authorities, args.output, AUTHORITIES)
    for each in view.behind:
        note(f"{each.agent} has yet to move: {each.lacks}")
    if len(view.authorities) > 1 and not view.behind:
        note("every agent has moved to the new one: `atoll ca retire` ends the rotation")
    return 0
