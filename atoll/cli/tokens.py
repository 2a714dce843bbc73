"""`atoll token`: credentials that let machines join and people log in."""

import argparse

from atoll import duration
from atoll.cli import columns
from atoll.cli.connect import client
from atoll.cli.output import note, show
from atoll.cli.parser import Parser, Run, run_verb
from atoll.errors import Invalid


def token(parser: Parser) -> Run:
    """Set up `atoll token`."""
    add = parser.verbs()
    create = add("create", _create, "make a token", "atoll token create --site ws-alice --uses 1 --ttl 1h")
    create.add_argument("--site", help="where the machine is; makes a join token")
    create.add_argument("--group", help="the group it joins (default: the site's name)")
    create.add_argument("--uses", type=int, default=1, metavar="N", help="how many machines may use it (1)")
    create.add_argument("--ttl", default="1h", metavar="TIME", help="how long it is good (1h)")
    create.add_argument("--owner", default="", help="whose machine or login it is")
    create.add_argument("--role", action="append", default=[], metavar="ROLE", help="a role of --owner (repeatable)")
    create.add_argument("--api", action="store_true", help="a token for `atoll login`, for --owner")
    create.output()
    add("list", _list, "list tokens, without secrets", "atoll token list").output()
    delete = add("delete", _delete, "make a token worthless", "atoll token delete 3f2a9c")
    delete.add_argument("id", help="its id or the beginning of it")
    return run_verb


def _create(args: argparse.Namespace) -> int:
    if args.api == bool(args.site):
        raise Invalid("say which token: --site NAME for a machine, or --api for a login", hint="exactly one of both")
    if args.role and not args.api:
        raise Invalid("roles are of API tokens", hint="add --api, and --owner for whom it is")
    connection = client(args)
    if args.api:
        made = connection.create_api_token(args.owner, args.role)
    else:
        made = connection.create_token(
            site=args.site,
            group=args.group or args.site,
            uses=args.uses,
            ttl_s=duration.parse(args.ttl),
            owner=args.owner,
        )
    if args.output != "table":
        show(made, args.output)
        return 0
    print(made.secret)
    if made.paste:
        note(f"on the machine: {made.paste}")
    if made.command:
        note(f"or, with atoll installed there: {made.command}" if made.paste else f"use it with: {made.command}")
    return 0


def _list(args: argparse.Namespace) -> int:
    show(client(args).tokens(), args.output, columns.TOKENS, "no tokens")
    return 0


def _delete(args: argparse.Namespace) -> int:
    client(args).delete_token(args.id)
    print(f"token {args.id} deleted")
    return 0
