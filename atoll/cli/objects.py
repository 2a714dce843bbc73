"""`atoll get`, `describe` and `watch`: objects of every kind."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from atoll import duration
from atoll.cli import columns
from atoll.cli.connect import client
from atoll.cli.explain import story
from atoll.cli.output import Columns, paint, show, table, to_line, to_yaml
from atoll.cli.parser import Parser, Run
from atoll.client.synchronous import Client
from atoll.client.views import HealthView, WhyView
from atoll.errors import Invalid, NotFound
from atoll.suggest import hint


@dataclass(frozen=True, slots=True)
class Kind:
    """How objects of one kind are listed, fetched and shown; `one` is None where only the list exists."""

    many: Callable[[Client], list[Any]]
    columns: Columns
    one: Callable[[Client, str], Any] | None = None
    why: Callable[[Client, str], WhyView] | None = None
    health: Callable[[Client, str], HealthView] | None = None


KINDS: dict[str, Kind] = {
    "sessions": Kind(lambda c: c.sessions(), columns.SESSIONS, Client.session, Client.why),
    "agents": Kind(lambda c: c.agents(), columns.AGENTS, Client.agent, Client.why_agent),
    "groups": Kind(lambda c: c.groups(), columns.GROUPS, Client.group, Client.why_group),
    "sites": Kind(lambda c: c.sites(), columns.SITES, Client.site),
    "providers": Kind(lambda c: c.providers(), columns.PROVIDERS, Client.provider, health=Client.provider_health),
    "policies": Kind(lambda c: c.policies(), columns.POLICIES, Client.policy),
    "budgets": Kind(lambda c: c.budgets(), columns.BUDGETS, Client.budget),
    "instances": Kind(lambda c: c.instances(live=False), columns.INSTANCES),
    "tokens": Kind(lambda c: c.tokens(), columns.TOKENS),
    "events": Kind(lambda c: c.events(), columns.EVENTS),
}


def kind_named(word: str) -> Kind:
    """Return the kind of `session` or `sessions`; raise `Invalid` with a did-you-mean for others."""
    name = word.lower() if word.endswith("s") else f"{word.lower()}s"
    name = name.replace("policys", "policies")
    if name not in KINDS:
        raise Invalid(f"unknown kind {word!r}", hint=hint(name, KINDS, f"kinds: {', '.join(KINDS)}"))
    return KINDS[name]


def get(parser: Parser) -> Run:
    """Set up `atoll get`."""
    parser.add_argument("kind", help=f"one of {', '.join(KINDS)}")
    parser.add_argument("name", nargs="?", help="id or name; without it all of them")
    parser.add_argument("--project", help=argparse.SUPPRESS)
    parser.output()
    return _get


def _get(args: argparse.Namespace) -> int:
    kind, connection = kind_named(args.kind), client(args)
    if not args.name:
        show(kind.many(connection), args.output, kind.columns, f"no {args.kind}")
        return 0
    view = _one(kind, connection, args.kind, args.name)
    show([view] if args.output == "table" else view, args.output, kind.columns)
    return 0


def _one(kind: Kind, connection: Client, word: str, name: str) -> Any:
    if kind.one is not None:
        return kind.one(connection, name)
    for view in kind.many(connection):
        ident = str(getattr(view, "id", ""))
        if ident == name or (len(name) >= 6 and ident.startswith(name)):
            return view
    raise NotFound(f"there is no {word.removesuffix('s')} {name!r}", hint=f"see `atoll get {word}`")


def describe(parser: Parser) -> Run:
    """Set up `atoll describe`."""
    parser.add_argument("kind", help=f"one of {', '.join(KINDS)}")
    parser.add_argument("name", help="id or name")
    parser.add_argument("--project", help=argparse.SUPPRESS)
    parser.output()
    return _describe


def _describe(args: argparse.Namespace) -> int:
    kind, connection = kind_named(args.kind), client(args)
    view = _one(kind, connection, args.kind, args.name)
    from msgspec import to_builtins

    health = kind.health(connection, args.name) if kind.health else None
    if args.output != "table":
        show({**to_builtins(view), "health": to_builtins(health)} if health else view, args.output)
        return 0
    print(to_yaml(view), end="")
    if health is not None:
        print("\n" + _health(health), end="")
    if members := getattr(view, "members", None):
        print("\n" + table(members, columns.MEMBERS), end="")
    if kind.why is not None:
        print(f"\n{paint('why', 'bold')}\n" + story(kind.why(connection, args.name)), end="")
    return 0


def _health(view: HealthView) -> str:
    """Return a provider's health as people read it."""
    age = "none stored here" if view.credentials_age_s is None else f"{duration.rough(view.credentials_age_s)} old"
    swept = "not yet" if view.swept_at is None else f"{columns.date_time(view.swept_at)}: {view.swept}"
    text = f"{paint('health', 'bold')}\n"
    for name, told in (
        ("live instances", str(view.live)),
        ("orphans", view.orphans),
        ("credentials", age),
        ("last sweep", swept),
        ("limits", "" if view.limits else "none known"),
        ("left alone", "" if view.pauses else "nothing"),
    ):
        text += f"  {name:<15} {told}\n" if told else ""
    for rows, shown in ((view.limits, columns.LIMITS), (view.pauses, columns.PAUSES)):
        text += "\n" + table(rows, shown) if rows else ""
    return text


def watch(parser: Parser) -> Run:
    """Set up `atoll watch`."""
    parser.add_argument("kind", nargs="*", help="only these kinds: sessions, agents, groups, instances, …")
    parser.add_argument("--since", type=int, metavar="REV", help="from this revision on (default: now)")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table", help="json: one object a line")
    return _watch


def _watch(args: argparse.Namespace) -> int:
    kinds = [word.lower().removesuffix("s") for word in args.kind]
    for event in client(args).watch(kinds, since=args.since):
        if args.output == "json":
            print(to_line(event), flush=True)
            continue
        what = f"{event.kind} {columns.event_name(event)}"
        told = f"{event.state:<13} {event.reason} {event.message}".rstrip()
        print(f"{columns.clock_time(event.at)}  {what:<28} {told}", flush=True)
    return 0
