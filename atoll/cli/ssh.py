"""`atoll ssh`, `cp` and `ssh-config`: the machine's own OpenSSH client, with a certificate that Atoll gets for it."""

import argparse
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from atoll.cli.carrier import carry
from atoll.cli.connect import client
from atoll.cli.parser import Parser, Run
from atoll.client.sshfiles import SshFiles, program
from atoll.client.synchronous import Client
from atoll.client.views import SessionView
from atoll.errors import Conflict, Invalid
from atoll.states import SessionState


def ssh(parser: Parser) -> Run:
    """Set up `atoll ssh`."""
    parser.add_argument("session", help="id or name; what follows `--` is run there instead of a shell")
    parser.add_argument("-L", action="append", default=[], metavar="PORT:localhost:PORT", help="reach a port from here")
    parser.add_argument("-D", action="append", default=[], metavar="PORT", help="SOCKS proxy to the session's ports")
    parser.add_argument("-N", action="store_true", help="run nothing: ports only")
    parser.add_argument("-t", action="store_true", help="a terminal for the command, too")
    parser.add_argument("-v", action="store_true", help="let ssh tell what it does")
    parser.add_argument("--rank", type=int, default=0, help="member of a gang (default 0)")
    parser.add_argument("--project", help=argparse.SUPPRESS)
    return _ssh


def _ssh(args: argparse.Namespace) -> int:
    path = program("ssh")
    connection = client(args)
    view = _running(connection, args.session)
    files = _ready(connection)
    words = [path, *_flags(_options(files, _user(connection, view.id, args.rank)))]
    words += [f"-L{port}" for port in args.L] + [f"-D{port}" for port in args.D]
    words += [flag for flag, wanted in (("-N", args.N), ("-t", args.t), ("-v", args.v)) if wanted]
    words += ["-o", "LogLevel=ERROR"] if not args.v else []
    words.append(view.name)
    # The other side gives one line to a shell: quoted, so that words stay words.
    words += [shlex.join(args.after)] if args.after else []
    return _become(words)


def cp(parser: Parser) -> Run:
    """Set up `atoll cp`."""
    parser.add_argument("path", nargs="+", metavar="PATH", help="SOURCE… TARGET; SESSION:PATH is in a session")
    parser.add_argument("-r", action="store_true", help="folders with everything in them")
    parser.add_argument("-p", action="store_true", help="keep times and modes")
    parser.add_argument("-q", action="store_true", help="no progress")
    parser.add_argument("--project", help=argparse.SUPPRESS)
    return _cp


def _cp(args: argparse.Namespace) -> int:
    if len(args.path) < 2:
        raise Invalid("SOURCE and TARGET are needed", hint="atoll cp results.csv nb:, or atoll cp nb:out/model.pt .")
    refs = [ref for ref in map(remote, args.path) if ref]
    if not refs:
        raise Invalid("neither path is in a session", hint="write it SESSION:PATH, for example nb:data/x.csv")
    if len(set(refs)) > 1:
        raise Invalid(f"{refs[0]} and {refs[1]} are two sessions", hint="copy to this machine first")
    path = program("scp")
    connection = client(args)
    view = _running(connection, refs[0])
    files = _ready(connection)
    words = [path, *_flags(_options(files, _user(connection, view.id, 0))), "-o", "LogLevel=ERROR"]
    words += [flag for flag, wanted in (("-r", args.r), ("-p", args.p), ("-q", args.q)) if wanted]
    words.append("--")
    for word in args.path:
        ref = remote(word)
        # A file here whose name has a colon must not be taken for one elsewhere.
        words.append(view.id + word[len(ref) :] if ref else word if word.startswith(("/", ".")) else f"./{word}")
    return _become(words)


def remote(word: str) -> str:
    """Return the session of `SESSION:PATH`, empty for a path of this machine."""
    ref, colon, _ = word.partition(":")
    return ref if colon and ref and "/" not in ref else ""


def ssh_config(parser: Parser) -> Run:
    """Set up `atoll ssh-config`."""
    parser.add_argument("session", nargs="*", help="ids or names (default: all that run)")
    own = parser.add_mutually_exclusive_group()
    own.add_argument("--renew", action="store_true", help="print nothing; see that the certificate is good")
    own.add_argument("--carry", action="store_true", help="be ssh's connection, inside a WebSocket (ProxyCommand)")
    parser.add_argument("--project", help=argparse.SUPPRESS)
    return _ssh_config


def _ssh_config(args: argparse.Namespace) -> int:
    if args.carry:
        return carry()
    connection = client(args)
    files = _ready(connection)
    if args.renew:
        return 0
    views = [connection.session(ref) for ref in args.session]
    views = views or connection.sessions([SessionState.RUNNING])
    for view in views:
        options = _options(files, _user(connection, view.name, 0))
        print(block(view.name, options, own_command(os.environ, "--renew")))
    return 0


def block(name: str, options: Mapping[str, str], renew: str) -> str:
    """Return what `~/.ssh/config` needs for a session: plain `ssh NAME` gets a new certificate by itself."""
    lines = "\n".join(f"    {key} {_quoted(key, value)}" for key, value in options.items())
    return f'Match originalhost {name} exec "{renew}"\nHost {name}\n{lines}\n'


def own_command(environ: Mapping[str, str], flag: str) -> str:
    """Return the command line of `ssh-config` with a flag, whatever the environment it is run in."""
    given = [f"{key}={environ[key]}" for key in ("ATOLL_HOME", "ATOLL_URL") if environ.get(key)]
    program_ = str(Path(sys.argv[0]).absolute())
    return shlex.join([*(["env", *given] if given else []), program_, "ssh-config", flag])


def _running(connection: Client, ref: str) -> SessionView:
    view = connection.session(ref)
    if view.state != SessionState.RUNNING:
        why = f" ({view.message})" if view.message else ""
        raise Conflict(f"{view.name} is {view.state}{why}: it cannot be entered", hint=f"see `atoll why {view.name}`")
    return view


def _ready(connection: Client) -> SshFiles:
    files = SshFiles(connection.address)
    files.renew(connection.token, connection.ssh_certificate, time.time())
    return files


def _user(connection: Client, ref: str, rank: int) -> str:
    project = "" if connection.project == "default" else f"{connection.project}/"
    return f"{project}{ref}" + (f".{rank}" if rank else "")


def _options(files: SshFiles, user: str) -> dict[str, str]:
    return files.options(user, own_command(os.environ, "--carry"))


def _flags(options: Mapping[str, str]) -> list[str]:
    return [word for key, value in options.items() for word in ("-o", f"{key}={_quoted(key, value)}")]


def _quoted(key: str, value: str) -> str:
    # A command is the rest of its line, quotes and all.
    return f'"{value}"' if " " in value and key != "ProxyCommand" else value


def _become(words: Sequence[str]) -> int:
    sys.stdout.flush()
    os.execv(words[0], list(words))  # never returns
