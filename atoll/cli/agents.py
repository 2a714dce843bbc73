"""`atoll agent`: the machines that run sessions; `join`, `leave` and `run` are carried out on this one."""

import argparse
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from atoll import duration
from atoll.cli import columns
from atoll.cli.connect import client
from atoll.cli.output import note, show
from atoll.cli.parser import Parser, Run, run_verb
from atoll.client.synchronous import Client
from atoll.client.views import AgentView
from atoll.errors import Refused


def agent(parser: Parser) -> Run:
    """Set up `atoll agent`."""
    add = parser.verbs()
    listing = add("list", _list, "list agents", "atoll agent list -o json")
    listing.add_argument("-a", "--all", action="store_true", help="those that have left, too")
    listing.output()
    cordon = add("cordon", _cordon, "let it take no new session", "atoll agent cordon ws-alice --deadline 30m")
    cordon.add_argument("agent", help="id or name")
    cordon.add_argument("--deadline", metavar="TIME", help=DEADLINE)
    for name, call, about in (
        ("uncordon", Client.uncordon, "let it take sessions again; this cancels a deadline"),
        ("remove", Client.remove_agent, "forget it, empty as it is; a revoked one's sessions run again elsewhere"),
        ("revoke", Client.revoke_agent, "end it at once, streams and all: its certificate is worth nothing then"),
    ):
        verb = add(name, _told(call, name), about, f"atoll agent {name} ws-alice")
        verb.add_argument("agent", help="id or name")
    join = add("join", _here("join"), "make this machine an agent", "atoll agent join https://fed… --token atj_…")
    join.add_argument("url", metavar="URL", help="https://HOST[:PORT]; with wss:// inside a WebSocket only")
    join.add_argument(
        "--token", default="", help="a join token, from `atoll token create` (default: $ATOLL_JOIN_TOKEN)"
    )
    join.add_argument("--name", default="", help="its name (default: $ATOLL_JOIN_NAME, else the host's)")
    join.add_argument("--home", type=Path, help="where it keeps its state (default $ATOLL_HOME/agent)")
    join.add_argument("--direct", default="", metavar="HOST:PORT", help="where users may reach it without a relay")
    join.add_argument("--foreground", action="store_true", help="stay in the foreground")
    join.add_argument("--no-start", action="store_true", help="join only; start it with `run`")
    leave = add("leave", _here("leave"), "undo a join", "atoll agent leave")
    leave.add_argument("--home", type=Path, help="where it keeps its state (default $ATOLL_HOME/agent)")
    run = add("run", _here("run"), "run a joined agent in the foreground", "atoll agent run")
    run.add_argument("--home", type=Path, help="where it keeps its state (default $ATOLL_HOME/agent)")
    run.add_argument("--pid-file", type=Path, help=argparse.SUPPRESS)
    direct = add("direct", _here("direct"), "permit that users reach this machine without a relay", DIRECT)
    direct.add_argument("address", nargs="?", default="", metavar="HOST:PORT", help="where it listens, in the LAN")
    direct.add_argument("--off", action="store_true", help="forbid it again")
    direct.add_argument("--home", type=Path, help="where it keeps its state (default $ATOLL_HOME/agent)")
    mesh = add("mesh", _here("mesh"), "permit that this machine is its site's gateway in meshes", MESH)
    mesh.add_argument("--endpoint", default="", metavar="HOST:PORT", help="where others reach it by UDP, if they can")
    mesh.add_argument("--port", type=int, default=0, help="where it listens for UDP (default: the endpoint's, or any)")
    mesh.add_argument("--subnet", action="append", metavar="CIDR", help="of this site, that others may reach; repeat")
    mesh.add_argument("--off", action="store_true", help="forbid it again")
    mesh.add_argument("--home", type=Path, help="where it keeps its state (default $ATOLL_HOME/agent)")
    _bootstrap_flags(add("bootstrap", _bootstrap, "join many machines over SSH", BOOTSTRAP))
    return run_verb


DIRECT = "atoll agent direct 192.168.1.20:7443"
DEADLINE = "after this long, sessions that can take a checkpoint and are not protected are moved (default: never)"
MESH = "atoll agent mesh --endpoint site-a.example.com:51820"
BOOTSTRAP = "atoll agent bootstrap --inventory hosts.yaml --parallel 32"


def _bootstrap_flags(parser: Parser) -> None:
    parser.add_argument("-i", "--inventory", type=Path, required=True, metavar="FILE", help="the hosts, in YAML")
    parser.add_argument("--only", action="append", metavar="HOST", help="this host of it; may be repeated")
    parser.add_argument(
        "--known-hosts", type=Path, metavar="FILE", help="keys of hosts to believe (default ~/.ssh/known_hosts)"
    )
    parser.add_argument("--parallel", type=int, default=16, metavar="N", help="hosts at once (16)")
    parser.add_argument("--timeout", default="5m", metavar="TIME", help="at most this long for a host (5m)")
    parser.add_argument("--ask-pass", action="store_true", help="ask for a password; keys and ssh-agent are better")
    parser.add_argument("--pass-fd", type=int, metavar="N", help="read the password from file descriptor N")
    parser.add_argument("--dry-run", action="store_true", help="log in and look only; change nothing")
    parser.output()


def _bootstrap(args: argparse.Namespace) -> int:
    from atoll.cli.bootstrap.command import bootstrap  # here: only this needs SSH

    return bootstrap(args)


def _list(args: argparse.Namespace) -> int:
    found = client(args).agents(everything=args.all)
    show(found, args.output, columns.AGENTS, "no agents; `atoll token create --site NAME` tells how one joins")
    return 0


def _cordon(args: argparse.Namespace) -> int:
    deadline = None if args.deadline is None else duration.parse(args.deadline)
    view = client(args).cordon(args.agent, deadline=deadline)
    print(f"agent {view.name}: cordon done, it is {view.state}")
    if deadline is not None:
        note(f"what can be moved is moved in {args.deadline}; `atoll agent uncordon {view.name}` cancels this")
    return 0


def _told(call: Callable[[Client, str], AgentView], verb: str) -> Run:
    def run(args: argparse.Namespace) -> int:
        view = call(client(args), args.agent)
        print(f"agent {view.name}: {verb} done, it is {view.state}")
        return 0

    return run


def _here(name: str) -> Run:
    """Return what calls a function of the agent by name: this package never imports it otherwise."""

    def run(args: argparse.Namespace) -> int:
        try:
            call = getattr(import_module("agent.cli"), name)
        except ImportError as error:
            raise Refused(f"the agent is not installed: {error}", hint="pip install atoll") from error
        code: int = call(args)
        return code

    return run
