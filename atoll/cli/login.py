"""`atoll login URL`: keep on this machine how to reach a control plane, once it has been seen to work."""

import argparse
import sys
from pathlib import Path

from atoll.cli.output import note
from atoll.cli.parser import Parser, Run
from atoll.client import profile
from atoll.client.address import Address
from atoll.client.synchronous import Client
from atoll.errors import Invalid, Unauthorized
from atoll.host.pem import blocks, pins

_SYSTEM = "system"


def login(parser: Parser) -> Run:
    """Set up `atoll login`."""
    parser.add_argument("url", metavar="URL", help="like https://fed.example.com:8700")
    parser.add_argument("--token", help="API token; safer: leave it out, it is asked for or read from stdin")
    trust = parser.add_mutually_exclusive_group()
    trust.add_argument(
        "--ca", default=_SYSTEM, metavar="FILE", help="trust only this CA (PEM); system: those that this machine trusts"
    )
    trust.add_argument("--pin", metavar="SHA256", help="fetch the CA and trust it if it has this SHA-256")
    parser.add_argument("--project", default="default", help="project (default: default)")
    return _login


def _login(args: argparse.Namespace) -> int:
    url = Address.parse(args.url).url
    ca = fetch_ca(url, args.pin) if args.pin else None if args.ca == _SYSTEM else _read(Path(args.ca))
    token = (args.token or _ask()).strip()
    if not token:
        raise Unauthorized("no token was given", hint="on the control plane: `atoll token create --api --owner YOU`")
    status = Client(url, token, ca=ca, project=args.project).status()
    profile.save(profile.Profile(url=url, token=token, ca=ca, project=args.project))
    print(f"logged in to {url} (installation {status.installation}, version {status.version})")
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"cannot read the CA {path}: {error}", hint="a PEM file is wanted") from error


def fetch_ca(url: str, pin: str) -> str:
    """Return the CA that the control plane shows, if it has the pinned SHA-256; else raise `Unauthorized`.

    The fetch itself trusts nobody: only the pin decides.
    """
    wanted = pin.lower().replace(":", "").removeprefix("sha256/")
    if len(wanted) != 64 or not all(c in "0123456789abcdef" for c in wanted):
        raise Invalid("the pin is not a SHA-256 in hex", hint="`atoll up` prints it")
    shown = Client(url, "-", unverified=True).authority()
    try:
        found = dict(zip(pins(shown), blocks(shown), strict=True))
    except Invalid as error:
        raise Unauthorized(f"{url} shows no CA certificate", hint="check the URL") from error
    if wanted not in found:
        raise Unauthorized(
            f"the CA of {url} has the SHA-256 {next(iter(found))}, not the pinned one",
            hint="somebody is in between, or a new CA",
        )
    return found[wanted]


def _ask() -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline()
    import getpass

    note("paste an API token: `atoll token create --api` makes one on the control plane")
    return getpass.getpass("token: ")
