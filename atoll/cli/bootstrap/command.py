"""`atoll agent bootstrap`: every host of an inventory joins, many at once; a second run does what is left."""

import argparse
import asyncio
import getpass
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from atoll import duration
from atoll.cli.bootstrap import inventory
from atoll.cli.bootstrap.inventory import Host
from atoll.cli.bootstrap.ssh import Network, Ran, Trust
from atoll.cli.files import documents
from atoll.cli.output import note, paint, show
from atoll.client.asynchronous import AsyncClient
from atoll.client.views import AgentView
from atoll.errors import AtollError, Invalid, Refused, Unavailable

SCRIPT = Path(__file__).parent / "host.sh"
TOKEN_S = 900.0
"""A host's join token is good once, and for so long."""
LINK_S = 30.0
"""An agent that was started has this long to connect."""
_LOOK_S = 1.0
FAILED = 125


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a host.

    `state` is `joined`, `already` (before this run), `ready` (a dry run found nothing in the way) or `failed`;
    `service` says what keeps the agent running there: `systemd`, or `background` until the next reboot.
    """

    host: str
    address: str
    site: str
    group: str
    state: str
    service: str = ""
    message: str = ""
    hint: str = ""
    seconds: float = 0.0


class Roll:
    """The agents the control plane knows, asked for at most once a second however many wait for one."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._lock = asyncio.Lock()
        self._agents: list[AgentView] = []
        self._asked_at = float("-inf")

    async def find(self, host: Host) -> AgentView | None:
        """Return the agent of a host, by name and site, as it was a second ago at most."""
        async with self._lock:
            if time.monotonic() - self._asked_at >= _LOOK_S:
                self._agents = await self._client.agents()
                self._asked_at = time.monotonic()
        named = [agent for agent in self._agents if (agent.name, agent.site) == (host.name, host.site)]
        return next((agent for agent in named if agent.connected), named[0] if named else None)

    async def connected(self, host: Host) -> None:
        """Return once the agent of a host is connected; raise `Unavailable` when it takes too long."""
        deadline = time.monotonic() + LINK_S
        while not ((agent := await self.find(host)) and agent.connected):
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"its agent has not connected within {LINK_S:.0f} s",
                    hint="its log is agent/agent.log in its home, or: journalctl -u atoll-agent",
                )
            await asyncio.sleep(_LOOK_S)


class Bootstrap:
    """One run over many hosts."""

    def __init__(self, client: AsyncClient, network: Network, *, dry_run: bool, timeout: float) -> None:
        self._client = client
        self._network = network
        self._roll = Roll(client)
        self._dry_run = dry_run
        self._timeout = timeout

    async def host(self, host: Host) -> Outcome:
        """Make one host an agent, unless it is; every failure becomes an outcome."""
        began = time.monotonic()
        state, service, message, advice = "failed", "", "", ""
        try:
            async with asyncio.timeout(self._timeout):
                state, service = await self._host(host)
        except TimeoutError:
            message, advice = f"it took longer than {self._timeout:.0f} s", "run it again, or give it more: --timeout"
        except AtollError as error:
            message, advice = error.message, error.hint
        return Outcome(
            host=host.name,
            address=str(host.place),
            site=host.site,
            group=host.group,
            state=state,
            service=service,
            message=message,
            hint=advice,
            seconds=round(time.monotonic() - began, 1),
        )

    async def _host(self, host: Host) -> tuple[str, str]:
        agent = await self._roll.find(host)
        if agent and agent.connected:
            return "already", ""
        if self._dry_run:
            return "ready", await self._run(host, known=agent is not None, act=False)
        service = await self._run(host, known=True, act=True) if agent else await self._join(host)
        await self._roll.connected(host)
        return "joined", service

    async def _join(self, host: Host) -> str:
        token = await self._client.create_token(site=host.site, group=host.group, uses=1, ttl_s=TOKEN_S)
        try:
            return await self._run(
                host,
                known=False,
                act=True,
                fetch=token.paste.rpartition(" && ")[0],
                ATOLL_JOIN_TOKEN=token.secret,
                ATOLL_JOIN_NAME=host.name,
            )
        except BaseException:
            # Not used, or used by an agent that did not come up: it is worth nothing to anybody else.
            await asyncio.shield(self._client.delete_token(token.id))
            raise

    async def _run(self, host: Host, *, known: bool, act: bool, **values: str) -> str:
        """Run the script and return the service it speaks of; raise `Refused` with the host's own reason."""
        words = {"known": "yes" if known else "no", "act": "yes" if act else "no", **values}
        lines = [f"{key}={shlex.quote(value)}\n" for key, value in words.items()]
        lines += [f"export {key}\n" for key in values if key.isupper()]
        if host.home:
            lines.append(f"export ATOLL_HOME={shlex.quote(host.home)}\n")
        ran = await self._network.run(host, "".join(lines) + SCRIPT.read_text())
        last = ran.out.strip().rpartition("\n")[2]
        if ran.code or not last.startswith("service: "):
            raise _reason(ran)
        return last.removeprefix("service: ")


def _reason(ran: Ran) -> Refused:
    """Return what a host said last of all: `atoll: …` and a hint, or its last line."""
    lines = [line.strip() for line in ran.err.splitlines() if line.strip()]
    said = [n for n, line in enumerate(lines) if line.startswith("atoll: ")]
    if said:
        below = lines[said[-1] + 1] if said[-1] + 1 < len(lines) else ""
        advice = below.removeprefix("hint: ") if below.startswith("hint: ") else ""
        return Refused(lines[said[-1]].removeprefix("atoll: "), hint=advice)
    if ran.code < 0:
        return Refused("the connection ended before the script did", hint="run it again: it does what is left")
    return Refused(f"the script ended with {ran.code}: {lines[-1] if lines else 'it said nothing'}")


def bootstrap(args: argparse.Namespace) -> int:
    """Join the hosts of `args.inventory`; return 0 when all are agents now."""
    found = documents(args.inventory)
    if len(found) != 1:
        raise Invalid(f"{args.inventory} must hold one document", hint="defaults: and hosts: at its top")
    hosts = inventory.only(inventory.hosts(found[0], args.inventory.absolute().parent), args.only or ())
    if not 1 <= args.parallel <= 256:
        raise Invalid(f"--parallel {args.parallel} is out of range", hint="it must be between 1 and 256")
    user = getpass.getuser()
    trust = Trust(known_hosts=_known_hosts(args), password=_password(args))
    outcomes = asyncio.run(_all([inventory.as_user(host, user) for host in hosts], trust, args))
    return _report(outcomes, args)


async def _all(hosts: Sequence[Host], trust: Trust, args: argparse.Namespace) -> list[Outcome]:
    at_once = asyncio.Semaphore(args.parallel)
    width = max(len(host.name) for host in hosts)

    async with AsyncClient() as client, Network(trust) as network:
        await client.status()  # without a control plane nothing is begun
        work = Bootstrap(client, network, dry_run=args.dry_run, timeout=duration.parse(args.timeout))

        async def one(host: Host) -> Outcome:
            async with at_once:
                outcome = await work.host(host)
            _tell(outcome, width, plain=args.output == "table")
            return outcome

        return await asyncio.gather(*(one(host) for host in hosts))


_COLOURS = {"joined": "green", "ready": "green", "already": "dim", "failed": "red"}


def _tell(outcome: Outcome, width: int, *, plain: bool) -> None:
    """Print one line for a host that is done; with `-o json` as a note, for standard output is the report's."""
    said = outcome.message or outcome.service
    line = f"{outcome.host:<{width}}  {outcome.state:<7}  {outcome.seconds:>5.1f}s  {said}".rstrip()
    if not plain:
        note(line)
        return
    print(line.replace(outcome.state, paint(outcome.state, _COLOURS[outcome.state]), 1), flush=True)
    if outcome.hint:
        print(f"{'':<{width}}  hint: {outcome.hint}", flush=True)


def _report(outcomes: Sequence[Outcome], args: argparse.Namespace) -> int:
    if args.output != "table":
        show(outcomes, args.output)
    counts = {state: sum(outcome.state == state for outcome in outcomes) for state in _COLOURS}
    note(f"{len(outcomes)} hosts: " + ", ".join(f"{count} {state}" for state, count in counts.items() if count))
    return FAILED if counts["failed"] else 0


def _known_hosts(args: argparse.Namespace) -> tuple[Path, ...]:
    if args.known_hosts is None:
        return (Path("~/.ssh/known_hosts").expanduser(), Path("/etc/ssh/ssh_known_hosts"))
    if not args.known_hosts.is_file():
        raise Invalid(
            f"there is no file {args.known_hosts}", hint="make it with ssh-keyscan, and compare the fingerprints"
        )
    return (args.known_hosts,)


def _password(args: argparse.Namespace) -> str | None:
    if args.pass_fd is not None:
        try:
            with os.fdopen(args.pass_fd) as stream:
                return stream.readline().rstrip("\n")
        except (OSError, ValueError) as error:
            raise Invalid(f"cannot read --pass-fd {args.pass_fd}", hint="atoll … --pass-fd 3 3<file") from error
    if not args.ask_pass:
        return None
    if not sys.stdin.isatty():
        raise Invalid("--ask-pass needs a terminal", hint="use --pass-fd N, or better a key and ssh-agent")
    return getpass.getpass("password of the hosts: ")
