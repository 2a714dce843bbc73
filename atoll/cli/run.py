"""`atoll run`: submit a command, stream its output, exit with its code."""

import argparse
import asyncio
import signal
import sys
from typing import Any

from atoll.cli import specflags
from atoll.cli.output import note, paint_error, show
from atoll.cli.parser import Parser, Run
from atoll.errors import Invalid

_APP = "a port to reach by link, ACCESS owner, project or public; repeatable"


def run(parser: Parser) -> Run:
    """Set up `atoll run`."""
    parser.usage = "atoll run [FLAGS] -- COMMAND …"
    parser.add_argument("--name", help="name of the session (default: one is made up)")
    parser.add_argument("--count", type=int, default=1, metavar="K", help="so many alike; ATOLL_INDEX tells them apart")
    parser.add_argument("--detach", action="store_true", help="print the name and return; see `atoll logs -f`")
    parser.add_argument("--wait", action="store_true", help="stay even when nothing that exists could run it")
    parser.add_argument("-i", "--stdin", action="store_true", help="give it this command's standard input")
    parser.add_argument("--env", action="append", metavar="K=V", help="environment; may be repeated")
    parser.add_argument("--workdir", help="folder on the agent to run in")
    parser.add_argument("--app", action="append", metavar="NAME[=PORT][:ACCESS]", help=_APP)
    parser.add_argument("--label", action="append", metavar="K=V", help="label; may be repeated")
    parser.add_argument("--project", help=argparse.SUPPRESS)
    specflags.add(parser)
    parser.output()
    return _run


def _run(args: argparse.Namespace) -> int:
    document = session_document(args)
    from atoll.document import session_spec

    spec = session_spec(document)
    if not 1 <= args.count <= 10_000:
        raise Invalid(f"--count is {args.count}", hint="1 to 10000")
    if args.detach:
        from atoll.cli.connect import client

        made = client(args, patience=30.0).submit(spec, count=args.count)
        if args.output == "table":
            print("\n".join(view.name for view in made))
        else:
            show(made, args.output)
        return 0
    if args.output != "table":
        raise Invalid("-o works with --detach only: else stdout is the command's", hint="add --detach, or leave -o out")
    return asyncio.run(_attached(args, spec))


def session_document(args: argparse.Namespace) -> dict[str, Any]:
    """Return the session document that file, flags and command make."""
    if args.after is None and not args.file:
        raise Invalid("no command was given", hint="write it after --: atoll run -- python3 train.py")
    document = specflags.document(args, args.after)
    for key in ("name", "workdir"):
        if getattr(args, key):
            document[key] = getattr(args, key)
    for key in ("env", "label"):
        if given := specflags.pairs(getattr(args, key), f"--{key}"):
            below = "labels" if key == "label" else key
            document[below] = {**(document.get(below) or {}), **given}
    if args.app:
        document["apps"] = dict(_app(word) for word in args.app)
    if args.stdin:
        document["stdin"] = _stdin()
    return document


def _app(word: str) -> tuple[str, Any]:
    """Read `NAME[=PORT][:ACCESS][:prefix]` as a document has it."""
    before, *options = word.split(":")
    name, separator, port = before.partition("=")
    if separator and not (port.isdecimal() and 0 < int(port) < 65536):
        raise Invalid(f"--app {word!r}: {port!r} is not a port", hint="write it like --app web=8080, or --app web")
    if not options:
        return name, int(port or 0)
    access = [option for option in options if option != "prefix"]
    if len(access) > 1:
        raise Invalid(f"--app {word!r} says twice who may open it", hint="write it like --app web=8080:project")
    return name, {"port": int(port or 0), "access": "".join(access), "prefix": "prefix" in options}


def _stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise Invalid("standard input is not text in UTF-8", hint="let the program read a file instead") from error


async def _attached(args: argparse.Namespace, spec: Any) -> int:
    from atoll.cli.follow import Crowd
    from atoll.client.asynchronous import AsyncClient

    async with AsyncClient(project=args.project or "", patience=30.0) as client:
        sessions = await client.submit(spec, count=args.count)
        crowd = Crowd(client, sessions, spec.nodes, args.wait)
        names = " ".join(view.name for view in sessions)
        following = asyncio.ensure_future(crowd.follow())
        try:
            code = await _until_done(following, crowd, names)
        except BaseExceptionGroup as group:
            error = _first(group)
            if isinstance(error, BrokenPipeError):
                await crowd.stop()
            raise error from group
        finally:
            following.cancel()
        return code if code is not None else _report(crowd)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _until_done(following: "asyncio.Future[None]", crowd: Any, names: str) -> int | None:
    """Wait for the end; answer signals. Returns an exit code when a signal decided it, else None."""
    loop = asyncio.get_running_loop()
    signals: asyncio.Queue[int] = asyncio.Queue()
    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, signals.put_nowait, int(each))
    stopping: int | None = None
    while True:
        told: asyncio.Future[int] = asyncio.ensure_future(signals.get())
        await _first_of(following, told)
        if following.done():
            told.cancel()
            following.result()
            return stopping
        number = told.result()
        if stopping is not None:
            note(f"left to end by itself: atoll logs -f {names}")
            return stopping
        asks = number == signal.SIGINT and sys.stdin.isatty() and sys.stderr.isatty()
        if asks and not await _wants_stop(signals):
            note(f"left running: atoll logs -f {names}")
            return 0
        stopping = 128 + number
        await crowd.stop()


async def _wants_stop(signals: "asyncio.Queue[int]") -> bool:
    """Ask on the terminal; a second Ctrl-C means stop."""
    loop = asyncio.get_running_loop()
    sys.stderr.write("\nstop it or leave it running? [s/l] ")
    sys.stderr.flush()
    ready = asyncio.Event()
    loop.add_reader(sys.stdin, ready.set)
    answered, again = asyncio.ensure_future(ready.wait()), asyncio.ensure_future(signals.get())
    await _first_of(answered, again)
    loop.remove_reader(sys.stdin)
    line = sys.stdin.readline() if answered.done() else "s"
    answered.cancel()
    again.cancel()
    return not line.strip().lower().startswith("l")


async def _first_of(*futures: "asyncio.Future[Any]") -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


def _report(crowd: Any) -> int:
    """Tell what did not simply exit; return the first code that is not 0."""
    from atoll.cli.follow import verdict

    code = 0
    for view in crowd.held.values():
        text = f"{view.name} is held, {view.reason}: {view.message}"
        advice = f"{view.hint}; " if view.hint else ""
        advice += f"it starts when that changes; `atoll stop {view.name}` removes it"
        sys.stderr.write(paint_error(text, advice))
        code = code or 124
    for view in crowd.ended.values():
        own, why = verdict(view)
        if why:
            sys.stderr.write(paint_error(why, view.hint))
        code = code or own
    return code
