"""`atoll apply -f FILE`: make the control plane hold what YAML documents describe."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from atoll.budget import Budget
from atoll.cli.connect import client
from atoll.cli.files import documents
from atoll.cli.parser import Parser, Run
from atoll.client.synchronous import Client
from atoll.document import READERS, Noun, dump_session_spec, kind_of
from atoll.errors import Conflict, Invalid, NotFound
from atoll.group import Group, Provider
from atoll.policy import Policy
from atoll.session import SessionSpec
from atoll.site import Site
from atoll.states import ENDED

R = TypeVar("R", Policy, Budget)
_ORDER = ("budget", "policy", "site", "provider", "group", "session")
"""What limits comes before what it limits."""


def apply(parser: Parser) -> Run:
    """Set up `atoll apply`."""
    parser.add_argument("-f", "--file", type=Path, required=True, help="YAML documents; `-` reads standard input")
    parser.add_argument("--project", help=argparse.SUPPRESS)
    return _apply


def _apply(args: argparse.Namespace) -> int:
    found = documents(args.file)
    if not found:
        raise Invalid(f"{args.file} holds no document", hint="begin one with `kind: session`")
    # All are read before any is sent: a mistake in the last changes nothing.
    nouns = [(kind_of(document), READERS[kind_of(document)](document)) for document in found]
    connection = client(args)
    for kind, noun in sorted(nouns, key=lambda pair: _ORDER.index(pair[0])):
        name, verb = _apply_one(connection, noun)
        print(f"{kind}/{name} {verb}", flush=True)
    return 0


def _apply_one(connection: Client, noun: Noun) -> tuple[str, str]:
    if isinstance(noun, SessionSpec):
        return apply_session(connection, noun)
    if isinstance(noun, Policy):
        return apply_rules(noun, connection.policy, connection.apply_policy)
    if isinstance(noun, Budget):
        return apply_rules(noun, connection.budget, connection.apply_budget)
    return apply_object(connection, noun)


def apply_rules(noun: R, ask: Callable[[str], Any], put: Callable[[R], Any]) -> tuple[str, str]:
    """Make a policy or a budget as given; return its name and `created`, `changed` or `unchanged`."""
    try:
        before = ask(noun.name).spec
    except NotFound:
        before = None
    after = put(noun).spec
    return noun.name, "created" if before is None else "unchanged" if before == after else "changed"


def apply_object(connection: Client, noun: Site | Group | Provider) -> tuple[str, str]:
    """Make the object as given; return its name and `created`, `changed` or `unchanged`."""
    if isinstance(noun, Group):
        ensure_site(connection, noun.site)
    before = _facts(connection, noun)
    after = connection.apply(noun)
    if before is None:
        return noun.name, "created"
    return noun.name, "unchanged" if before == _told(after) else "changed"


def apply_session(connection: Client, spec: SessionSpec) -> tuple[str, str]:
    """Submit a session unless one of its name is under way; raise `Conflict` when that one differs."""
    if spec.name:
        try:
            there = connection.session(spec.name)
        except NotFound:
            there = None
        if there is not None and there.state not in ENDED:
            if _asked(there.spec) == _asked(dump_session_spec(spec)):
                return there.name, "unchanged"
            raise Conflict(
                f"session {there.name} is {there.state} with another spec, and sessions do not change",
                hint=f"`atoll stop {there.name}` first, or give the new one another name",
            )
    return connection.submit(spec)[0].name, "created"


def _asked(document: dict[str, Any]) -> dict[str, Any]:
    """Return a session's document without the number that the control plane adds to its environment."""
    env = {key: value for key, value in document.get("env", {}).items() if key != "ATOLL_INDEX"}
    return {**document, "env": env}


def ensure_site(connection: Client, name: str) -> None:
    """Create the site where it is missing: a group needs one, and a name is all that a site must have."""
    try:
        connection.site(name)
    except NotFound:
        try:
            connection.create(Site(name=name))
        except Conflict:  # somebody else just did
            return


def _facts(connection: Client, noun: Site | Group | Provider) -> Any:
    ask = {Site: connection.site, Group: connection.group, Provider: connection.provider}[type(noun)]
    try:
        return _told(ask(noun.name))
    except NotFound:
        return None


def _told(view: Any) -> Any:
    """Return what a user said about an object, out of its view."""
    keys = ("spec", "settings", "kind", "labels", "price", "upkeep", "egress", "prices", "orphans", "credentials_at")
    return [getattr(view, key, None) for key in keys]
