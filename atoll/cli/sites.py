"""`atoll site`: places and their prices."""

import argparse

from atoll.cli import columns, specflags
from atoll.cli.connect import client
from atoll.cli.output import show
from atoll.cli.parser import Parser, Run, run_verb
from atoll.document import site as read_site


def site(parser: Parser) -> Run:
    """Set up `atoll site`."""
    add = parser.verbs()
    create = add("create", _create, "create a site", "atoll site create hall --price 0.12 --label room=3")
    create.add_argument("name")
    create.add_argument("--price", type=float, metavar="PRICE", help="of an hour of a whole agent there, in units")
    create.add_argument("--blind", action="store_true", help="its sessions are reached by encrypted streams alone")
    create.add_argument("--label", action="append", metavar="K=V", help="may be repeated")
    create.output()
    add("list", _list, "list sites", "atoll site list").output()
    delete = add("delete", _delete, "remove a site without groups", "atoll site delete hall")
    delete.add_argument("name")
    return run_verb


def _create(args: argparse.Namespace) -> int:
    document = {
        "name": args.name,
        "labels": specflags.pairs(args.label, "--label"),
        "price": args.price,
        "blind": args.blind,
    }
    view = client(args).create(read_site(document))
    if args.output == "table":
        print(f"site {args.name} created")
    else:
        show(view, args.output)
    return 0


def _list(args: argparse.Namespace) -> int:
    show(client(args).sites(), args.output, columns.SITES, "no sites")
    return 0


def _delete(args: argparse.Namespace) -> int:
    client(args).delete("sites", args.name)
    print(f"site {args.name} deleted")
    return 0
