"""`atoll up` and `atoll down`: flags here, the work in the control plane's composition root."""

import argparse
from importlib import import_module
from pathlib import Path
from types import ModuleType

from atoll.cli.parser import Parser, Run
from atoll.errors import Refused


def up(parser: Parser) -> Run:
    """Set up `atoll up`."""
    parser.add_argument("--listen", metavar="HOST:PORT", help="where to listen (default 127.0.0.1:8700)")
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration in TOML")
    parser.add_argument("--detach", action="store_true", help="return once it is ready; end it with `atoll down`")
    parser.add_argument("--no-agent", action="store_true", help="start no local agent")
    parser.add_argument("--agent-slots", metavar="SLOTS", help="what the local agent is to have: cpu=2,memory=4GiB")
    return lambda args: server_side("federation.main", "up", args)


def down(parser: Parser) -> Run:
    """Set up `atoll down`."""
    parser.add_argument("--sessions", action="store_true", help="end all sessions first")
    return lambda args: server_side("federation.main", "down", args)


def server_side(module: str, name: str, args: argparse.Namespace) -> int:
    """Call a function of the server's part by name: this package never imports it otherwise."""
    code: int = getattr(server_module(module), name)(args)
    return code


def server_module(module: str) -> ModuleType:
    """Return a module of another floor by name; raise `Refused` where it is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        raise Refused(f"the server's part is not installed: {error}", hint="pip install atoll") from error
