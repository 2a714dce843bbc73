"""The argument parser of every command: errors are ours, with did-you-mean, and help ends with an example."""

import argparse
import re
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from atoll.errors import Invalid
from atoll.suggest import hint

Run = Callable[[argparse.Namespace], int]


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that raises `Invalid` instead of leaving the process."""

    def __init__(self, *, prog: str, about: str = "", example: str = "", **rest: Any) -> None:
        super().__init__(
            prog=prog,
            description=about[:1].upper() + about[1:],
            epilog=f"example:\n  {example}" if example else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **rest,
        )

    def error(self, message: str) -> NoReturn:
        """Raise `Invalid` with what argparse found wrong, in our words."""
        unknown = re.match(r"unrecognized arguments: (\S+)", message)
        choice = re.search(r"argument (\S+): invalid choice: '([^']*)'", message)
        if unknown:
            word = unknown[1].partition("=")[0]
            if word.startswith("-"):
                raise Invalid(f"unknown flag {word}", hint=hint(word, self.flags(), f"see `{self.prog} --help`"))
            raise Invalid(f"unexpected argument {word!r}", hint=f"see `{self.prog} --help`")
        if choice:
            among = re.findall(r"[\w-]+", message.partition("choose from")[2])
            raise Invalid(
                f"{choice[2]!r} is not possible here", hint=hint(choice[2], among, f"one of: {', '.join(among)}")
            )
        raise Invalid(f"{self.prog}: {message}", hint=f"see `{self.prog} --help`")

    def output(self) -> None:
        """Add `-o table|json|yaml`."""
        self.add_argument(
            "-o", "--output", choices=("table", "json", "yaml"), default="table", help="form of the output"
        )

    def verbs(self) -> "Callable[..., Parser]":
        """Begin a set of verbs below this command; call the result to add one: `(name, run, about, example)`."""
        below = self.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=Parser)

        def add(name: str, run: Run, about: str, example: str) -> "Parser":
            parser: Parser = below.add_parser(
                name, prog=f"{self.prog} {name}", help=about, about=about, example=example
            )
            parser.set_defaults(run=run)
            return parser

        return add

    def below(self) -> Iterator[tuple[str, "Parser"]]:
        """Yield the verbs with their parsers."""
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                yield from action.choices.items()

    def flags(self) -> list[str]:
        """Return all flags of this parser and of its verbs."""
        own = [flag for action in self._actions for flag in action.option_strings]
        return own + [flag for _, parser in self.below() for flag in parser.flags()]


def run_verb(args: argparse.Namespace) -> int:
    """Run the verb that was given."""
    run: Run = args.run
    return run(args)
