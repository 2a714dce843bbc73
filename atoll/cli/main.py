"""The command `atoll`: the table of commands, and what surrounds every call: errors, exit codes, signals.

Nothing but argparse is imported until a command is called.
"""

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import NamedTuple

from atoll.errors import AtollError, Refused


class Command(NamedTuple):
    """One command: `entry` is `module:function`, imported when it is called or completed."""

    name: str
    entry: str
    about: str
    example: str


COMMANDS = tuple(
    Command(*row)
    for row in (
        ("up", "atoll.cli.server:up", "start the control plane and a local agent", "atoll up --detach"),
        ("down", "atoll.cli.server:down", "stop both; sessions run on", "atoll down"),
        ("run", "atoll.cli.run:run", "run a command at the cheapest capable place", "atoll run --cpu 2 -- ./train"),
        ("ps", "atoll.cli.sessions:ps", "list sessions", "atoll ps --all"),
        ("logs", "atoll.cli.sessions:logs", "print or follow a session's output", "atoll logs -f train"),
        ("stop", "atoll.cli.sessions:stop", "stop sessions", "atoll stop train"),
        ("move", "atoll.cli.sessions:move", "let a session go on elsewhere", "atoll move train --to desk"),
        ("why", "atoll.cli.explain:why", "explain a session, agent or group", "atoll why train"),
        ("approve", "atoll.cli.approve:approve", "let a session go on that waits for approval", "atoll approve train"),
        ("offers", "atoll.cli.explain:offers", "rank the places that could run a session", "atoll offers --gpu 1"),
        ("forward", "atoll.cli.forward:forward", "reach a session's port from here", "atoll forward nb 8888:8888"),
        ("ssh", "atoll.cli.ssh:ssh", "open a shell in a session, or run a command there", "atoll ssh nb -- nvidia-smi"),
        ("cp", "atoll.cli.ssh:cp", "copy files to and from a session", "atoll cp -r data nb:work"),
        ("ssh-config", "atoll.cli.ssh:ssh_config", "print what plain ssh and VS Code need", "atoll ssh-config nb"),
        ("open", "atoll.cli.sessions:open_app", "print a link to an app or to the page", "atoll open nb jupyter"),
        ("share", "atoll.cli.share:share", "let others into a session's app", "atoll share nb board --project"),
        ("token", "atoll.cli.tokens:token", "make, list and delete tokens", "atoll token create --site desk"),
        ("ca", "atoll.cli.authority:ca", "show and rotate the certificate authority", "atoll ca show"),
        ("agent", "atoll.cli.agents:agent", "join, list, cordon, remove and revoke agents", "atoll agent list"),
        ("link", "atoll.cli.links:link", "look at agents' links, and ping them", "atoll link ping ws-alice"),
        ("relay", "atoll.cli.relays:relay", "create, run, list, drain and remove relays", "atoll relay list"),
        ("audit", "atoll.cli.audit:audit", "who reached which session, from where", "atoll audit streams nb"),
        ("group", "atoll.cli.groups:group", "create, watch and delete groups", "atoll group create b --provider sim"),
        ("provider", "atoll.cli.providers:provider", "add, check and remove cloud accounts", "atoll provider add sim"),
        ("prices", "atoll.cli.prices:prices", "what clouds ask: update, import, export, show", "atoll prices show"),
        ("policy", "atoll.cli.policies:policy", "what is allowed, approved and preferred", "atoll policy list"),
        ("budget", "atoll.cli.budgets:budget", "what may be spent, and what is left", "atoll budget list"),
        ("mesh", "atoll.cli.mesh:mesh", "join sites by WireGuard", "atoll mesh up hall desk"),
        ("site", "atoll.cli.sites:site", "create and list sites", "atoll site create hall --price 0.12"),
        ("apply", "atoll.cli.apply:apply", "create or change what a YAML file describes", "atoll apply -f group.yaml"),
        ("get", "atoll.cli.objects:get", "list objects of a kind, or show one", "atoll get instances -o json"),
        ("describe", "atoll.cli.objects:describe", "show everything about one object", "atoll describe group burst"),
        ("watch", "atoll.cli.objects:watch", "print changes as they happen", "atoll watch sessions agents"),
        ("cost", "atoll.cli.explain:cost", "what was spent, and against on-demand prices", "atoll cost --since 7d"),
        ("simulate", "atoll.cli.simulate:simulate", "replay a trace, or own history", "atoll simulate --trace x.csv"),
        ("sweep", "atoll.cli.providers:sweep", "find machines nobody knows, and end them", "atoll sweep --dry-run"),
        ("doctor", "atoll.cli.doctor:doctor", "check this machine and the control plane", "atoll doctor"),
        ("login", "atoll.cli.login:login", "use a control plane from this machine", "atoll login https://fed.example.com"),
        ("demo", "atoll.cli.demo:demo", "show the main job end to end in two minutes", "atoll demo"),
        ("completion", "atoll.cli.completion:completion", "print shell completion", 'eval "$(atoll completion bash)"'),
        ("version", "atoll.cli.doctor:version", "print versions of client and server", "atoll version"),
    )
)  # fmt: skip
NAMES = tuple(command.name for command in COMMANDS)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; no traceback reaches a user (`ATOLL_DEBUG=1` shows it)."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _call(words)
        sys.stdout.flush()
    except SystemExit as stop:  # argparse, after --help
        code = stop.code if isinstance(stop.code, int) else 0
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        # The reader has gone: what is still buffered must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        code = 141
    except Exception as error:  # noqa: BLE001 - the boundary: any error becomes one line
        code = report(error)
    return code


def _call(words: Sequence[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        if len(words) > 1 and words[1] in NAMES:
            return _call([words[1], "--help"])
        print(overview(), end="")
        return 0
    if words[0] in ("-V", "--version"):
        words = ["version", "--short"]
    command = find(words[0])
    from atoll.cli.parser import Parser

    before, after = _cut(words[1:])
    parser = Parser(prog=f"atoll {command.name}", about=command.about, example=command.example)
    run = configure(command)(parser)
    args = parser.parse_args(before)
    args.after = after
    return run(args)


def find(name: str) -> Command:
    """Return the command of a name; raise `Invalid` with a did-you-mean for an unknown one."""
    for command in COMMANDS:
        if command.name == name:
            return command
    from atoll.errors import Invalid
    from atoll.suggest import hint

    kind = "option" if name.startswith("-") else "command"
    raise Invalid(f"unknown {kind} {name!r}", hint=hint(name, NAMES, "see `atoll --help`"))


def configure(command: Command) -> Callable[..., Callable[..., int]]:
    """Import a command and return the function that sets up its parser and returns what runs it."""
    module, _, name = command.entry.partition(":")
    entry: Callable[..., Callable[..., int]] = getattr(import_module(module), name)
    return entry


def overview() -> str:
    """Return the text of `atoll --help`."""
    width = max(map(len, NAMES)) + 2
    lines = "".join(f"  {command.name:<{width}}{command.about}\n" for command in COMMANDS)
    return (
        "usage: atoll COMMAND …\n\nOne ring of all your compute: run each session at the cheapest capable place.\n\n"
        f"first:\n  atoll up --detach\n  atoll run -- python3 -c 'print(6*7)'\n\ncommands:\n{lines}\n"
        "`atoll COMMAND --help` explains a command. `atoll run` exits with the command's code; Atoll's own are\n"
        "120 invalid, 121 not allowed, 122 not found, 123 conflict, 124 unavailable, 125 refused or internal.\n"
    )


def report(error: BaseException) -> int:
    """Print an error as one line and a hint to stderr; return its exit code."""
    if os.environ.get("ATOLL_DEBUG") == "1":
        import traceback

        traceback.print_exception(error)
    if isinstance(error, OSError) and not isinstance(error, AtollError):
        where = f"{error.filename}: " if error.filename else ""
        error = Refused(f"{where}{(error.strerror or str(error)).lower()}", hint="this machine does not allow it")
    if not isinstance(error, AtollError):
        what = f"{type(error).__name__}: {error}".rstrip(": ")
        error = Refused(f"internal error: {what}", hint="ATOLL_DEBUG=1 shows where; please report it")
    from atoll.cli.output import paint_error

    sys.stderr.write(paint_error(error.message, error.hint))
    return error.exit_code


def _cut(words: Sequence[str]) -> tuple[list[str], list[str] | None]:
    """Cut at the first `--`: what follows is a user's command and no flag of ours (None: there was no `--`)."""
    if "--" not in words:
        return list(words), None
    place = list(words).index("--")
    return list(words[:place]), list(words[place + 1 :])
