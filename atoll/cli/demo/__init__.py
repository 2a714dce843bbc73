"""`atoll demo`: the main job end to end on this machine, with everything it claims checked."""

import argparse

from atoll.cli.parser import Parser, Run


def demo(parser: Parser) -> Run:
    """Set up `atoll demo`."""
    parser.add_argument("--keep", action="store_true", help="keep the temporary folder")
    return _demo


def _demo(args: argparse.Namespace) -> int:
    from atoll.cli.demo.show import play

    return play(keep=args.keep)
