"""`atoll budget`: what may be spent, what is spent and committed, and what is left."""

import argparse
from pathlib import Path

from atoll import duration
from atoll.cli import columns
from atoll.cli.apply import apply_rules
from atoll.cli.connect import client
from atoll.cli.files import documents
from atoll.cli.output import money, show
from atoll.cli.parser import Parser, Run, run_verb
from atoll.client.views import BudgetView
from atoll.document import budget as read
from atoll.host.system import SystemClock


def budget(parser: Parser) -> Run:
    """Set up `atoll budget`."""
    add = parser.verbs()
    add("list", _list, "how all budgets stand", "atoll budget list").output()
    shown = add("show", _show, "how a budget stands, and what its stages do", "atoll budget show team-red")
    shown.add_argument("name")
    shown.output()
    apply = add("apply", _apply, "create or change budgets", "atoll budget apply budget.yaml")
    apply.add_argument("file", type=Path, help="YAML documents; `-` reads standard input")
    delete = add("delete", _delete, "limit nothing by a budget any more", "atoll budget delete team-red")
    delete.add_argument("name")
    return run_verb


def _list(args: argparse.Namespace) -> int:
    empty = "no budgets; `atoll budget apply FILE` adds one: name, project, amount, period"
    show(client(args).budgets(), args.output, columns.BUDGETS, empty)
    return 0


def _show(args: argparse.Namespace) -> int:
    view = client(args).budget(args.name)
    if args.output != "table":
        show(view, args.output)
        return 0
    print(story(view, SystemClock().now()), end="")
    return 0


def story(view: BudgetView, now: float) -> str:
    """Return how a budget stands at `now`, as a person would tell it."""
    whose = f"project {view.project}" if view.project else "the installation"
    ends = "for ever" if view.ends is None else f"a {view.period}, {duration.rough(max(0.0, view.ends - now))} left"
    lines = [
        f"budget {view.name} of {whose}: {money(view.amount)}, {ends}",
        f"  {columns.bar(view, 40)}",
        f"  # spent      {money(view.spent):>12}",
        f"  + committed  {money(view.committed):>12}",
        f"  . left       {money(view.left):>12}",
    ]
    stages = view.spec.get("stages") or [{"at": 0.8, "do": "notify"}, {"at": 1.0, "do": "hold"}]
    for stage in stages:
        here = "  <- now" if stage["do"] == view.stage else ""
        lines.append(f"  at {100 * stage['at']:.0f} % ({money(stage['at'] * view.amount)}): {stage['do']}{here}")
    return "\n".join(lines) + "\n"


def _apply(args: argparse.Namespace) -> int:
    found = [read(document) for document in documents(args.file)]
    connection = client(args)
    for each in found:
        name, verb = apply_rules(each, connection.budget, connection.apply_budget)
        print(f"budget/{name} {verb}")
    return 0


def _delete(args: argparse.Namespace) -> int:
    client(args).delete("budgets", args.name)
    print(f"budget {args.name} deleted")
    return 0
