"""`atoll completion`: scripts that complete commands, verbs and flags in bash, zsh and fish."""

import argparse
from shlex import quote

from atoll.cli.main import COMMANDS, configure
from atoll.cli.parser import Parser, Run


def completion(parser: Parser) -> Run:
    """Set up `atoll completion`."""
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))
    return _completion


def words() -> dict[str, list[str]]:
    """Return what may follow each command: its verbs and flags; under `` the commands themselves."""
    found: dict[str, list[str]] = {"": [command.name for command in COMMANDS]}
    for command in COMMANDS:
        parser = Parser(prog=command.name)
        configure(command)(parser)
        verbs = dict(parser.below())
        found[command.name] = [*verbs, *(flag for flag in parser.flags() if flag.startswith("--"))]
    return found


def _completion(args: argparse.Namespace) -> int:
    print((_fish if args.shell == "fish" else _bash)(words(), args.shell))
    return 0


def _bash(known: dict[str, list[str]], shell: str) -> str:
    cases = "\n".join(f"    {name}) words='{' '.join(sorted(set(after)))}' ;;" for name, after in known.items() if name)
    start = "autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else ""
    return f"""{start}_atoll() {{
  local words
  if [ "$COMP_CWORD" -eq 1 ]; then words='{" ".join(known[""])}'
  else case "${{COMP_WORDS[1]}}" in
{cases}
  esac; fi
  COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _atoll atoll"""


def _fish(known: dict[str, list[str]], _shell: str) -> str:
    lines = ["complete -c atoll -f"]
    for command in COMMANDS:
        lines.append(f"complete -c atoll -n __fish_use_subcommand -a {command.name} -d {quote(command.about)}")
        for word in sorted(set(known[command.name])):
            how = f"-l {word[2:]}" if word.startswith("--") else f"-a {word}"
            lines.append(f"complete -c atoll -n '__fish_seen_subcommand_from {command.name}' {how}")
    return "\n".join(lines)
