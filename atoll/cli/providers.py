"""`atoll provider` and `atoll sweep`: cloud accounts and what lives in them."""

import argparse
import sys
from getpass import getpass
from pathlib import Path
from typing import Any

from atoll.cli import columns, specflags
from atoll.cli.connect import client
from atoll.cli.files import documents
from atoll.cli.output import note, show, table
from atoll.cli.parser import Parser, Run, run_verb
from atoll.cli.prices import stale_text
from atoll.cli.terraform import provider_document
from atoll.client.synchronous import Client
from atoll.document import provider as read_provider
from atoll.errors import Invalid


def provider(parser: Parser) -> Run:
    """Set up `atoll provider`."""
    add = parser.verbs()
    new = add("add", _add, "add a cloud account", "atoll provider add sim --name cheap --set boot_s=1")
    new.add_argument("kind", nargs="?", help="the driver: sim, aws, gcp, azure, openstack")
    new.add_argument("--name", help="its name here (default: the kind)")
    new.add_argument(
        "--from-terraform", type=Path, metavar="FILE", help="what a module in terraform/ made: `terraform output -json`"
    )
    new.add_argument("--set", action="append", metavar="K=V", help="a setting; may be repeated; a.b=1 goes deeper")
    new.add_argument("-f", "--file", type=Path, help="settings in YAML; --set wins over it")
    new.add_argument("--doctor", action="store_true", help="check it afterwards")
    new.output()
    new.add_argument(
        "--orphans", metavar="WHAT", help="machines with our tag that nobody knows: report, quarantine or terminate"
    )
    rotate = add(
        "rotate", _rotate, "replace its credentials by ones that work",
        "atoll provider rotate aws --set credentials.secret_access_key=@FILE",
    )  # fmt: skip
    rotate.add_argument("name")
    rotate.add_argument(
        "--set", action="append", metavar="credentials.K=V", help="V is a value, @FILE, or - for standard input"
    )
    rotate.add_argument("-f", "--file", type=Path, help="YAML with all of `credentials:`; --set wins over it")
    add("list", _list, "list providers", "atoll provider list").output()
    for name, run, about in (
        ("shapes", _shapes, "what it could make now, with prices"),
        ("doctor", _doctor, "check account, rights and clock; creates nothing"),
        ("delete", _delete, "remove a provider without groups and instances"),
    ):
        verb = add(name, run, about, f"atoll provider {name} sim")
        verb.add_argument("name")
        if name != "delete":
            verb.output()
    return run_verb


def _add(args: argparse.Namespace) -> int:
    made = provider_document(args.from_terraform) if args.from_terraform else {}
    kind = args.kind or made.get("type")
    if not kind:
        raise Invalid("say which kind of provider: sim, aws, gcp, azure, openstack", hint="or --from-terraform FILE")
    if made and kind != made["type"]:
        raise Invalid(
            f"{args.from_terraform} describes a provider of kind {made['type']!r}, not {kind!r}", hint="leave it out"
        )
    settings: dict[str, Any] = made.get("settings", {})
    for document in documents(args.file) if args.file else ():
        settings |= document
    for key, text in specflags.pairs(args.set, "--set").items():
        _put(settings, key, text)
    noun = read_provider(
        {"name": args.name or made.get("name"), "type": kind, "settings": settings, "orphans": args.orphans}
    )
    connection = client(args)
    view = connection.create(noun)
    if args.output == "table":
        print(f"provider {noun.name} added")
    else:
        show(view, args.output)
    return _check(connection, noun.name, "table") if args.doctor else 0


def _rotate(args: argparse.Namespace) -> int:
    settings: dict[str, Any] = {}
    for document in documents(args.file) if args.file else ():
        settings |= document
    for key, text in specflags.pairs(args.set, "--set").items():
        _put(settings, key, text)
    credentials = settings.pop("credentials", None)
    if settings or not isinstance(credentials, dict):
        other = f"not {next(iter(settings))!r}" if settings else "and none were given"
        raise Invalid(f"this changes credentials only, {other}", hint="--set credentials.NAME=@FILE, or -f FILE")
    client(args).rotate(args.name, credentials)
    print(f"provider {args.name} uses the new credentials")
    return 0


def _secret(path: str, text: str) -> str:
    """Return a credential: itself, `@FILE`, or `-` for standard input, so that no secret need be an argument."""
    if text == "-":
        if sys.stdin.isatty():
            return getpass(f"{path}: ")
        return sys.stdin.read().rstrip("\n")
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text().rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise Invalid(f"--set {path}: cannot read {text[1:]}: {why.lower()}", hint="name a text file") from error


def _put(settings: dict[str, Any], path: str, text: str) -> None:
    import yaml

    *above, last = path.split(".")
    place = settings
    for key in above:
        place = place.setdefault(key, {})
        if not isinstance(place, dict):
            raise Invalid(f"--set {path}: {key} is no mapping", hint="write deeper settings in a file: -f FILE")
    if above and above[0] == "credentials":
        place[last] = _secret(path, text)
        return
    try:
        place[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise Invalid(f"--set {path}: {text!r} is not a value", hint="quote it, or write it in a file") from error


def _list(args: argparse.Namespace) -> int:
    show(client(args).providers(), args.output, columns.PROVIDERS, "no providers; `atoll provider add sim` adds one")
    return 0


def _shapes(args: argparse.Namespace) -> int:
    connection = client(args)
    show(connection.shapes(args.name), args.output, columns.SHAPES, "it offers nothing now")
    prices = connection.prices(args.name, shape="")
    if prices.stale:
        note(stale_text(prices))
    return 0


def _doctor(args: argparse.Namespace) -> int:
    return _check(client(args), args.name, args.output)


def _check(connection: Client, name: str, form: str) -> int:
    found = connection.provider_doctor(name)
    show(found, form, columns.FINDINGS)
    if form == "table":
        for finding in found:
            if finding.details:
                print(f"\n{finding.check}:\n{finding.details.rstrip()}")
    return 0 if all(finding.ok for finding in found) else 125


def _delete(args: argparse.Namespace) -> int:
    client(args).delete("providers", args.name)
    print(f"provider {args.name} deleted")
    return 0


def sweep(parser: Parser) -> Run:
    """Set up `atoll sweep`."""
    parser.add_argument("--provider", metavar="NAME", help="only this one (default: all)")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
    parser.output()
    return _sweep


def _sweep(args: argparse.Namespace) -> int:
    connection = client(args)
    names = [args.provider] if args.provider else [view.name for view in connection.providers()]
    found = [finding for name in names for finding in connection.sweep(name, dry_run=args.dry_run)]
    if args.output != "table":
        show(found, args.output)
    elif found:
        print(table(found, columns.SWEEP), end="")
    else:
        note(f"{len(names)} provider(s): cloud and records agree")
    return 0
