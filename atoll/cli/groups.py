"""`atoll group`: elastic and fixed groups of agents."""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from atoll import duration
from atoll.cli import columns, specflags
from atoll.cli.agents import DEADLINE
from atoll.cli.apply import ensure_site
from atoll.cli.connect import client
from atoll.cli.output import colourful, money, note, paint_state, show
from atoll.cli.parser import Parser, Run, run_verb
from atoll.client.views import GroupView, InstanceView, StepView
from atoll.document import group as read_group
from atoll.duration import rough
from atoll.errors import Invalid, Unavailable
from atoll.host.system import SystemClock


def group(parser: Parser) -> Run:
    """Set up `atoll group`."""
    add = parser.verbs()
    _create_flags(add("create", _create, "create a group", "atoll group create burst --provider sim --max 4"))
    add("list", _list, "list groups", "atoll group list").output()
    watch = add("watch", _watch, "follow a group: machines come, work, drain, go", "atoll group watch burst")
    watch.add_argument("name")
    watch.add_argument("--every", type=float, default=1.0, help=argparse.SUPPRESS)
    delete = add("delete", _delete, "remove a group without instances", "atoll group delete burst")
    delete.add_argument("name")
    resize = add("resize", _resize, "change how many machines a group may have", "atoll group resize burst --max 8")
    resize.add_argument("name")
    resize.add_argument("--min", type=int, metavar="N", help="least number of machines")
    resize.add_argument("--max", type=int, metavar="N", help="largest number of machines")
    end = add("terminate", _terminate, "close a group: its machines go", "atoll group terminate burst --now")
    end.add_argument("name")
    end.add_argument("--now", action="store_true", help="end them at once, whatever runs there (else: when empty)")
    end.add_argument("--deadline", metavar="TIME", help=DEADLINE)
    end.add_argument("--yes", action="store_true", help="do not ask")
    end.add_argument(
        "--timeout", default="15m", metavar="TIME", help="with --now: how long to wait for their end (15m)"
    )
    end.add_argument("--every", type=float, default=1.0, help=argparse.SUPPRESS)
    return run_verb


def _create_flags(parser: Parser) -> None:
    parser.add_argument("name")
    parser.add_argument("--provider", help="who makes its machines; without it agents join with a token")
    parser.add_argument("--site", help="where it is (default: the provider's name, or the group's)")
    parser.add_argument("--min", type=int, metavar="N", help="least number of machines (0)")
    parser.add_argument("--max", type=int, metavar="N", help="largest number of machines (4)")
    parser.add_argument("--shape", action="append", metavar="TYPE", help="only this machine type; may be repeated")
    spot = parser.add_mutually_exclusive_group()
    spot.add_argument("--spot", action="store_true", default=None, help="spot machines only")
    spot.add_argument("--on-demand", dest="spot", action="store_false", help="on-demand machines only")
    parser.add_argument("--hot-count", type=int, metavar="N", help="sessions that could start at once")
    parser.add_argument("--hot-cpu", metavar="CORES", help="size of one of those (1)")
    parser.add_argument("--hot-memory", metavar="BYTES", help="size of one of those (256MiB)")
    parser.add_argument("--cold", type=int, metavar="N", help="stopped machines kept ready")
    parser.add_argument("--idle", metavar="TIME", help="end a machine empty for this long (1m)")
    parser.add_argument("--cooldown", metavar="TIME", help="end none for this long after growing (30s)")
    parser.add_argument("--boot", metavar="TIME", help="a launch longer than this has failed (15m)")
    parser.add_argument("--lease", metavar="TIME", help="an idle machine without control plane ends itself (15m)")
    parser.add_argument("--max-life", metavar="TIME", help="no machine lives longer (7d)")
    parser.add_argument("--label", action="append", metavar="K=V", help="may be repeated")
    parser.output()


def _create(args: argparse.Namespace) -> int:
    document = {
        "name": args.name,
        "provider": args.provider,
        "site": args.site,
        "shapes": args.shape,
        "spot": args.spot,
        "size": _some(min=args.min, max=args.max),
        "pools": _some(
            hot=_some(count=args.hot_count, cpu=args.hot_cpu, memory=args.hot_memory), cold=_some(count=args.cold)
        ),
        "scale_down": _some(idle=args.idle, cooldown=args.cooldown),
        "boot": args.boot,
        "lease": args.lease,
        "max_life": args.max_life,
        "labels": specflags.pairs(args.label, "--label") or None,
    }
    noun, connection = read_group(document), client(args)
    if noun.provider:
        connection.provider(noun.provider)
    ensure_site(connection, noun.site)
    view = connection.create(noun)
    if args.output == "table":
        bounds = f", {noun.size.min} to {noun.size.max} machines of provider {noun.provider}" if noun.provider else ""
        print(f"group {noun.name} created at site {noun.site}{bounds}")
    else:
        show(view, args.output)
    return 0


def _some(**given: Any) -> Mapping[str, Any] | None:
    return {key: value for key, value in given.items() if value is not None} or None


def _list(args: argparse.Namespace) -> int:
    show(client(args).groups(), args.output, columns.GROUPS, "no groups")
    return 0


def _delete(args: argparse.Namespace) -> int:
    client(args).delete("groups", args.name)
    print(f"group {args.name} deleted")
    return 0


def _resize(args: argparse.Namespace) -> int:
    if args.min is None and args.max is None:
        raise Invalid("say how many", hint=f"atoll group resize {args.name} --max 4")
    size = client(args).resize(args.name, least=args.min, most=args.max).spec["size"]
    print(f"group {args.name} may have {size['min']} to {size['max']} machines")
    return 0


def _terminate(args: argparse.Namespace) -> int:
    connection, limit = client(args), duration.parse(args.timeout)
    back = f"`atoll group resize {args.name} --max N` opens it again"
    if args.now and not args.yes:
        _confirm(args.name, len(connection.instances(group=args.name)))
    deadline = None if args.deadline is None else duration.parse(args.deadline)
    connection.terminate(args.name, now=args.now, deadline=deadline)
    if not args.now:
        print(f"group {args.name} takes no more sessions; its machines go when they are empty")
        if deadline is not None:
            note(f"what can be moved is moved in {args.deadline}; `atoll agent uncordon` cancels this for a machine")
        note(back)
        return 0
    deadline, shown = time.monotonic() + limit, ""
    while live := connection.instances(group=args.name):
        text = f"{len(live)} left: " + ", ".join(f"{each.id} {each.state}" for each in live)
        if text != shown:
            note(text)
        shown = text
        if time.monotonic() > deadline:
            raise Unavailable(
                f"the cloud has not ended {len(live)} machines of group {args.name} within {args.timeout}",
                hint=f"they are asked to end until they have; see `atoll describe provider {live[0].provider}`",
            )
        time.sleep(args.every)
    print(f"group {args.name} is closed: its cloud has none of its machines any more")
    note(back)
    return 0


def _confirm(group: str, live: int) -> None:
    """Ask whether to end a group's machines; raise `Invalid` where nobody can answer, or the answer is no."""
    if not sys.stdin.isatty():
        raise Invalid(f"--now ends {live} machines of group {group}, whatever runs there", hint="add --yes to mean it")
    if input(f"end {live} machines of group {group} now, whatever runs there? [y/N] ").strip().lower() != "y":
        raise Invalid("nothing was done", hint=f"without --now they go when they are empty: group {group}")


def _watch(args: argparse.Namespace) -> int:
    """Print a line whenever the group changed; on a terminal redraw the whole picture every second."""
    connection, shown = client(args), ""
    drawn = 0
    while True:
        try:
            view = connection.group(args.name)
            machines = connection.instances(group=args.name)
            steps = connection.decisions(args.name, limit=5)[:5]
        except Unavailable as error:
            text = f"{error.message}\n"
        else:
            text = picture(view, machines, steps) if colourful(sys.stdout) else _line(view)
        if text != shown:
            if drawn:
                sys.stdout.write(f"\x1b[{drawn}F\x1b[J")
            sys.stdout.write(text)
            sys.stdout.flush()
            shown = text
            drawn = text.count("\n") if colourful(sys.stdout) else 0
        time.sleep(args.every)


def _line(view: GroupView) -> str:
    return (
        f"{view.name}  agents {view.agents}  pending {view.pending}  draining {view.draining}  cold {view.cold}"
        f"  cost so far {money(view.cost)} USD\n"
    )


def picture(view: GroupView, machines: Sequence[InstanceView], steps: Sequence[StepView]) -> str:
    """Return a group's machines and newest decisions as a person watches them."""
    now = SystemClock().now()
    text = _line(view)
    for machine in machines:
        kind = "spot" if machine.spot else "on demand"
        age = rough(now - machine.created_at)
        text += f"  {machine.id}  {paint_state(machine.state, 9)}  {machine.shape:<24} {kind:<9} {age:>7}"
        text += f"  {money(machine.cost)} USD\n"
    for step in steps:
        text += f"  {columns.clock_time(step.at)} {step.action:<9} {step.reason}: {step.message}\n"
    return text
