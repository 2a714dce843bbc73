"""`atoll mesh`: sites joined at the network layer by WireGuard."""

import argparse
import time

from atoll import duration
from atoll.cli import columns
from atoll.cli.connect import client
from atoll.cli.output import note, show
from atoll.cli.parser import Parser, Run, run_verb
from atoll.client.mesh import MeshView
from atoll.client.synchronous import Client
from atoll.errors import Invalid, Unavailable

_LOOK_S = 0.25


def mesh(parser: Parser) -> Run:
    """Set up `atoll mesh`."""
    add = parser.verbs()
    up = add("up", _up, "join two sites", "atoll mesh up hall desk --subnet hall=10.20.0.0/16")
    up.add_argument("site")
    up.add_argument("other")
    up.add_argument(
        "--subnet", action="append", metavar="SITE=CIDR", help="let the other site reach this network of SITE; repeat"
    )
    up.add_argument("--timeout", default="30s", metavar="TIME", help="wait at most this long until it is up (30s)")
    up.add_argument("--no-wait", action="store_true", help="do not wait")
    up.output()
    add("list", _list, "how all meshes are", "atoll mesh list").output()
    rotate = add("rotate", _rotate, "change the keys of both gateways now", "atoll mesh rotate hall desk")
    down = add("down", _down, "part two sites", "atoll mesh down hall desk")
    for verb in (rotate, down):
        verb.add_argument("site")
        verb.add_argument("other")
    return run_verb


def _up(args: argparse.Namespace) -> int:
    limit = duration.parse(args.timeout)
    connection = client(args)
    view = connection.mesh_up(args.site, args.other, _subnets(args.subnet))
    if not args.no_wait:
        view = _wait(connection, view, limit)
    if args.output == "table":
        first, second = view.ends
        print(f"{first.site} and {second.site}: {view.state}")
        for end in view.ends:
            print(f"  {end.agent_name or 'the gateway'} of {end.site}: {' '.join(end.addresses)}")
        if view.message:
            note(f"{view.message} ({view.hint})")
    else:
        show(view, args.output)
    return 0


def _wait(connection: Client, view: MeshView, limit: float) -> MeshView:
    """Return the mesh once it is up; raise `Unavailable` with what is missing when it takes too long."""
    first, second = (end.site for end in view.ends)
    deadline = time.monotonic() + limit
    while view.state != "up":
        if time.monotonic() > deadline:
            raise Unavailable(
                f"{first} and {second} are not joined as wanted: {view.message or view.state}",
                hint=view.hint or "see `atoll mesh list`",
            )
        time.sleep(_LOOK_S)
        view = connection.mesh(first, second)
    return view


def _subnets(given: list[str] | None) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for text in given or ():
        site, separator, network = text.partition("=")
        if not separator or not site or not network:
            raise Invalid(f"--subnet {text!r} is not SITE=CIDR", hint="write it like --subnet hall=10.20.0.0/16")
        found.setdefault(site, []).append(network)
    return found


def _list(args: argparse.Namespace) -> int:
    views = client(args).meshes()
    show(views, args.output, columns.MESHES, "no meshes; `atoll mesh up SITE SITE` joins two sites")
    if args.output == "table":
        for view in views:
            if view.message:
                note(f"{view.ends[0].site} and {view.ends[1].site}: {view.message}\n  {view.hint}")
    return 0


def _rotate(args: argparse.Namespace) -> int:
    client(args).mesh_rotate(args.site, args.other)
    print(f"{args.site} and {args.other}: both gateways change their keys")
    return 0


def _down(args: argparse.Namespace) -> int:
    client(args).mesh_down(args.site, args.other)
    print(f"{args.site} and {args.other} are parted")
    return 0
