"""`atoll agent join|leave|run`: what is done on the machine that is, or becomes, an agent."""

import argparse
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from agent.home import AgentHome
from atoll import __version__
from atoll.errors import AtollError, Conflict, Invalid, NotFound, Refused, Unavailable

CONNECT_S = 20.0
"""`join` waits this long for the agent's first registration."""
STOP_S = 15.0


def join(args: argparse.Namespace) -> int:
    """Make this machine an agent of `args.url` and start it; wait until it is connected and say so.

    Reads `url token home name foreground no_start`; the token may come from `ATOLL_JOIN_TOKEN` and the name
    from `ATOLL_JOIN_NAME`. Returns 0; raises `AtollError`.
    """
    from agent import joining
    from agent.direct import check, save
    from agent.probe.all import facts
    from tunnel.identity import AgentIdentity
    from tunnel.jointoken import JoinToken

    # Taken out of the environment: neither the agent nor what it runs is to inherit it.
    inherited = os.environ.pop("ATOLL_JOIN_TOKEN", "")
    text = getattr(args, "token", None) or inherited
    if not text:
        raise Invalid("no join token was given", hint="make one with `atoll token create` and pass it with --token")
    token = JoinToken.parse(text)
    address = getattr(args, "direct", "")
    if address:
        check(address)
    home = AgentHome(args.home)
    home.prepare()
    if home.joined and args.foreground and AgentIdentity(home.path).url == args.url.rstrip("/"):
        # A launched machine runs its boot script at each boot: it has joined at the first.
        os.execv(sys.executable, [sys.executable, "-m", "agent", "run", "--home", str(home.path)])
    if home.joined:
        raise Conflict(
            f"this machine is an agent already, with its home in {home.path}",
            hint="use `atoll agent run`, or undo it first with `atoll agent leave`",
        )
    name = args.name or os.environ.get("ATOLL_JOIN_NAME", "")
    found = facts()
    joined = joining.join(args.url, token, home.path, name=name or found["hostname"], facts=found)
    print(f"joined as {joined.name} ({joined.identity.agent_id}), site {joined.site}, group {joined.group}", flush=True)
    if address:
        save(home.direct, address)
    if getattr(args, "no_start", False):
        return 0
    command = [sys.executable, "-m", "agent", "run", "--home", str(home.path)]
    if args.foreground:
        # A fresh program image: the join's libraries would weigh on the agent for ever.
        os.execv(sys.executable, command)
    _start_in_background(command, home)
    print(f"connected; its log is {home.log}, `atoll agent leave` undoes this")
    return 0


def run(args: argparse.Namespace) -> int:
    """Run the joined agent of `args.home` in the foreground until it is told to end. Raises `AtollError`.

    Reads `home pid_file ready_fd`, the last two optional.
    """
    from agent import daemon

    home = AgentHome(args.home, getattr(args, "pid_file", None))
    _check_joined(home)
    home.prepare()
    home.take()
    try:
        return daemon.run(home, ready_fd=getattr(args, "ready_fd", None))
    finally:
        home.give_back()


def leave(args: argparse.Namespace) -> int:
    """Undo a join: tell the control plane, stop the sessions here, remove the identity. Raises `AtollError`."""
    from agent import daemon

    home = AgentHome(args.home)
    _check_joined(home)
    home.prepare()
    _stop_running(home)
    home.take()
    try:
        told = daemon.leave(home)
        home.clear()
    finally:
        home.give_back()
    print("this machine is no agent any more")
    if not told:
        print("atoll: the control plane could not be told; remove the agent there with `atoll agent remove`")
    return 0


def direct(args: argparse.Namespace) -> int:
    """Permit or forbid that users reach this machine without a relay; it counts from the agent's next start.

    Reads `home address off`. Raises `AtollError`.
    """
    from agent.direct import save

    if bool(args.off) == bool(args.address):
        raise Invalid("either an address or --off is needed", hint="atoll agent direct 192.168.1.20:7443")
    home = AgentHome(args.home)
    _check_joined(home)
    home.prepare()
    save(home.direct, args.address)
    what = f"may reach this machine at {args.address}" if args.address else "reach this machine by relays only"
    when = "restart the agent: its sessions run on" if home.running() is not None else "it counts when the agent starts"
    print(f"users {what}; {when}")
    return 0


def mesh(args: argparse.Namespace) -> int:
    """Permit or forbid that this machine is its site's gateway in meshes; it counts from the agent's next start.

    Reads `home endpoint port subnet off`. Raises `AtollError`.
    """
    home = AgentHome(args.home)
    _check_joined(home)
    home.prepare()
    _permit_mesh(home, args)
    what = "no gateway any more" if args.off else "permitted to be a gateway"
    when = "restart the agent: its sessions run on" if home.running() is not None else "it counts when the agent starts"
    print(f"this machine is {what}; {when}")
    return 0


def _permit_mesh(home: AgentHome, args: argparse.Namespace) -> None:
    from agent.meshpermit import Permit

    if getattr(args, "off", False):
        (home.mesh / "permit.json").unlink(missing_ok=True)
        return
    permit = Permit(endpoint=args.endpoint or "", port=args.port or 0, subnets=list(args.subnet or ()))
    permit.save(home.mesh)


def csr(args: argparse.Namespace) -> int:
    """Print a certificate request for the key in `args.home`: used by a running agent only."""
    from tunnel.identity import make_key_and_csr

    print(make_key_and_csr(AgentHome(args.home).path), end="")
    return 0


def renew(args: argparse.Namespace) -> int:
    """Print a new certificate for the agent in `args.home`: used by a running agent only. Raises `AtollError`."""
    from agent import joining

    print(joining.renew(AgentHome(args.home).path), end="")
    return 0


def main(argv: Sequence[str]) -> int:
    """Run one command line and return its exit code; an error is one sentence and a hint."""
    args = _parser().parse_args(argv)
    try:
        code: int = args.call(args)
    except AtollError as error:
        hint = f" ({error.hint})" if error.hint else ""
        print(f"atoll: {error.message}{hint}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m agent", description="Run sessions of an Atoll installation here.")
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(required=True, metavar="join|leave|run|direct|mesh")
    joining = verbs.add_parser("join", help="make this machine an agent")
    joining.add_argument("url", metavar="URL", help="https://HOST[:PORT]; with wss:// inside a WebSocket only")
    joining.add_argument("--token", help="a join token (default: $ATOLL_JOIN_TOKEN)")
    joining.add_argument("--name", default="", help="its name (default: the host's)")
    joining.add_argument("--direct", default="", metavar="HOST:PORT", help="where users may reach it without a relay")
    joining.add_argument("--foreground", action="store_true", help="stay in the foreground")
    joining.add_argument("--no-start", action="store_true", help="join only; start it with `run`")
    joining.set_defaults(call=join)
    leaving = verbs.add_parser("leave", help="undo a join")
    leaving.set_defaults(call=leave)
    running = verbs.add_parser("run", help="run a joined agent in the foreground")
    running.add_argument("--pid-file", type=Path, help="where to write the process id (default <home>/agent.pid)")
    running.add_argument("--ready-fd", type=int, help=argparse.SUPPRESS)
    running.set_defaults(call=run)
    reaching = verbs.add_parser("direct", help="permit that users reach this machine without a relay")
    reaching.add_argument("address", nargs="?", default="", metavar="HOST:PORT", help="where it listens, in the LAN")
    reaching.add_argument("--off", action="store_true", help="forbid it again")
    reaching.set_defaults(call=direct)
    meshing = verbs.add_parser("mesh", help="permit that this machine is its site's gateway in meshes")
    meshing.add_argument("--endpoint", default="", metavar="HOST:PORT", help="where others reach it by UDP")
    meshing.add_argument("--port", type=int, default=0, help="where it listens for UDP (default: the endpoint's)")
    meshing.add_argument("--subnet", action="append", metavar="CIDR", help="of this site, that others may reach")
    meshing.add_argument("--off", action="store_true", help="forbid it again")
    meshing.set_defaults(call=mesh)
    asking = verbs.add_parser("csr")
    asking.set_defaults(call=csr)
    waking = verbs.add_parser("renew")
    waking.set_defaults(call=renew)
    for verb in (joining, leaving, running, reaching, meshing, asking, waking):
        verb.add_argument("--home", type=Path, help="where it keeps its state (default $ATOLL_HOME/agent)")
    return parser


def _check_joined(home: AgentHome) -> None:
    if not home.joined:
        raise NotFound(
            f"this machine is no agent: there is no identity in {home.path}",
            hint="join with `atoll agent join URL --token …`",
        )


def _start_in_background(command: Sequence[str], home: AgentHome) -> None:
    """Start the agent in a session of its own and wait for its first registration."""
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb", buffering=0) as ready:
        try:
            with home.log.open("ab") as log:
                process = subprocess.Popen(
                    [*command, "--ready-fd", str(writer)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd="/",
                    pass_fds=(writer,),
                    start_new_session=True,
                )
        finally:
            os.close(writer)
        heard = select.select([ready], [], [], CONNECT_S)[0]
        if heard and os.read(ready.fileno(), 1):
            process.returncode = 0  # it lives on without us: nothing to wait for
            return
    if heard:
        lines = home.log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
        process.wait()
        raise Refused(f"the agent ended at once: {lines[-1]}", hint=f"its log is {home.log}")
    process.returncode = 0
    raise Unavailable(
        f"this machine has joined, but its agent has not connected within {CONNECT_S:g} s",
        hint=f"it keeps trying; its log is {home.log}",
    )


def _stop_running(home: AgentHome) -> None:
    """End a running agent of this home; its runs stay, to be adopted by who comes next."""
    pid = home.running()
    deadline = time.monotonic() + STOP_S
    while pid is not None and home.running() == pid:
        if time.monotonic() > deadline:
            raise Refused(f"the agent (process {pid}) does not end", hint=f"end it with kill -9 {pid} and try again")
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            return
        time.sleep(0.1)
