"""`atoll doctor` and `atoll version`: is all well on this machine and with the control plane?"""

import argparse
import os
import sys
from collections.abc import Iterator

from atoll import __version__
from atoll.cli import columns
from atoll.cli.output import show
from atoll.cli.parser import Parser, Run
from atoll.cli.prices import stale_text
from atoll.client import profile
from atoll.client.synchronous import Client
from atoll.client.views import FindingView, PriceListView, StatusView
from atoll.errors import AtollError
from atoll.host.config import atoll_home
from atoll.host.system import SystemClock

PACKAGES = ("atoll", "tunnel", "providers", "autoscaler", "agent", "federation")
CLOCK_OFF_S = 30.0
MIN_FILES = 1024
MIN_FREE = 256 * 1024 * 1024


def doctor(parser: Parser) -> Run:
    """Set up `atoll doctor`."""
    parser.output()
    return _doctor


def version(parser: Parser) -> Run:
    """Set up `atoll version`."""
    parser.add_argument("--short", action="store_true", help="the client's only")
    return _version


def _doctor(args: argparse.Namespace) -> int:
    found = [finding for check in (_python, _packages, _home, _limits, _server) for finding in check()]
    show(found, args.output, columns.FINDINGS)
    return 0 if all(finding.ok for finding in found) else 125


def _version(args: argparse.Namespace) -> int:
    print(f"atoll {__version__}")
    if not args.short:
        try:
            status = Client(patience=0).status()
        except AtollError as error:
            print(f"control plane: {error.message}")
        else:
            print(f"control plane {status.version}, protocol {status.protocol}, at {profile.load().url}")
    return 0


def _finding(check: str, ok: bool, message: str, advice: str) -> FindingView:
    return FindingView(check=check, ok=ok, message=message, hint="" if ok else advice)


def _python() -> Iterator[FindingView]:
    found = sys.version_info
    ok = (3, 11) <= found[:2] < (3, 14)
    yield _finding("python", ok, f"{found[0]}.{found[1]}.{found[2]}", "use Python 3.11, 3.12 or 3.13")


def _packages() -> Iterator[FindingView]:
    from importlib.metadata import packages_distributions

    owners = packages_distributions()
    others = {name: sorted({d for d in owners.get(name, []) if d != "atoll"}) for name in PACKAGES}
    clash = ", ".join(f"{name} of {' '.join(found)}" for name, found in others.items() if found)
    yield _finding(
        "packages",
        not clash,
        f"another distribution holds {clash}" if clash else "no other distribution has our package names",
        "install atoll into a virtual environment of its own",
    )


def _home() -> Iterator[FindingView]:
    home = atoll_home()
    place = home
    while not place.exists():
        place = place.parent
    # Trying is the only honest check: root passes every test of rights, but not a read-only mount.
    probe = place / f".atoll-doctor-{os.getpid()}"
    try:
        probe.write_bytes(b"")
        probe.unlink()
        problem = ""
    except OSError as error:
        problem = (error.strerror or str(error)).lower()
    yield _finding("home", not problem, f"{home}{f': {problem}' if problem else ''}", "point ATOLL_HOME elsewhere")
    disk = os.statvfs(place)
    free = disk.f_bavail * disk.f_frsize
    yield _finding("disk", free > MIN_FREE, f"{free / 2**30:.1f} GiB free", "make room, or move ATOLL_HOME")


def _limits() -> Iterator[FindingView]:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield _finding("limits", soft >= MIN_FILES, f"open files {soft} (hard {hard})", f"ulimit -n {MIN_FILES}")


def _server() -> Iterator[FindingView]:
    try:
        known = profile.load()
    except AtollError as error:
        yield _finding("profile", False, error.message, error.hint)
        return
    mode = profile.path().stat().st_mode & 0o077 if profile.path().exists() else 0
    yield _finding("profile", not mode, known.url, f"chmod 600 {profile.path()}")
    clock = SystemClock()
    before = clock.monotonic()
    try:
        client = Client(patience=0)
        status = client.status()
    except AtollError as error:
        yield _finding("connection", False, error.message, error.hint)
        return
    took = clock.monotonic() - before
    yield _finding("connection", True, f"{known.url} answers in {took * 1000:.0f} ms", "")
    yield from (check(status) for check in (_versions, _database, _agents))
    yield from (_prices(view) for view in client.price_lists() if view.stale or view.failure)
    skew = abs(client.server_time() - clock.now())
    yield _finding("clock", skew < CLOCK_OFF_S, f"{skew:.0f} s off the control plane's", "set the clock by NTP")


def _versions(status: StatusView) -> FindingView:
    same = status.version.split(".")[:2] == __version__.split(".")[:2]
    return _finding("versions", same, f"client {__version__}, server {status.version}", "install the server's version")


def _database(status: StatusView) -> FindingView:
    return _finding("database", bool(status.database), status.database or "unknown", "see the control plane's log")


def _prices(view: PriceListView) -> FindingView:
    told = stale_text(view) if view.stale else f"the live prices of {view.provider} fail: {view.failure}"
    return _finding("prices", False, told, f"atoll prices update {view.provider}, or atoll prices import FILE")


def _agents(status: StatusView) -> FindingView:
    ok = status.agents_connected == status.agents
    return _finding("agents", ok, f"{status.agents_connected} of {status.agents} connected", "see `atoll agent list`")
