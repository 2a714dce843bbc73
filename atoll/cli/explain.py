"""`atoll why`, `offers` and `cost`: the reasons behind what happens, and what it costs."""

import argparse

from atoll import duration
from atoll.cli import columns, specflags
from atoll.cli.connect import client
from atoll.cli.output import money, note, paint, paint_state, show, table
from atoll.cli.parser import Parser, Run
from atoll.client.synchronous import Client
from atoll.client.views import DecisionView, WhyView
from atoll.errors import NotFound
from atoll.host.system import SystemClock


def why(parser: Parser) -> Run:
    """Set up `atoll why`."""
    parser.add_argument("ref", metavar="SESSION|AGENT|GROUP", help="id or name")
    parser.add_argument("--kind", choices=("session", "agent", "group"), help="where a name could mean several")
    parser.add_argument("--project", help=argparse.SUPPRESS)
    parser.output()
    return _why


def _why(args: argparse.Namespace) -> int:
    found = _find(client(args), args.ref, args.kind)
    if args.output == "table":
        print(story(found), end="")
    else:
        show(found, args.output)
    return 0


def _find(connection: Client, ref: str, kind: str | None) -> WhyView:
    asks = {"session": connection.why, "agent": connection.why_agent, "group": connection.why_group}
    kinds = [kind] if kind else [{"s-": "session", "a-": "agent"}.get(ref[:2], ""), *asks]
    for each in filter(None, kinds):
        try:
            return asks[each](ref)
        except NotFound as error:
            last = error
            if kind:
                raise
    raise NotFound(
        f"there is no session, agent or group {ref!r}", hint=last.hint or "see `atoll ps --all`, `atoll agent list`"
    )


def story(found: WhyView) -> str:
    """Return why something is as it is, as a person would tell it: now, the decision, the steps, the events."""
    lines = [f"{found.kind} {paint(found.name or found.id, 'bold')} is {paint_state(found.state)}: {found.reason}\n"]
    lines += [f"  {line}\n" for line in (found.message, f"hint: {found.hint}" if found.hint else "") if line]
    for number, decision in enumerate(found.decisions):
        lines.append("\n" + _decision(decision, full=number == 0))
    if found.steps:
        lines.append("\nsteps, newest first\n" + _indent(table(found.steps, columns.STEPS)))
    if found.events:
        lines.append("\nevents\n" + _indent(table(found.events, columns.EVENTS)))
    return "".join(lines)


def _decision(decision: DecisionView, *, full: bool) -> str:
    when = columns.clock_time(decision.at) if decision.at else "now"
    text = f"decision {when}: {decision.outcome} ({decision.reason}) {decision.message}\n"
    if decision.taken:
        text += _indent(table(decision.taken, columns.OFFERS))
    taken = {(offer.kind, offer.group, offer.target) for offer in decision.taken}
    others = [offer for offer in decision.ranked if (offer.kind, offer.group, offer.target) not in taken]
    if full and others:
        text += f"  other offers ({decision.considered} considered)\n" + _indent(table(others, columns.OFFERS))
    if full and decision.rejected:
        text += "  not possible\n" + _indent(table(decision.rejected, columns.REJECTED))
    return text


def _indent(text: str) -> str:
    return "".join(f"  {line}" for line in text.splitlines(keepends=True))


def offers(parser: Parser) -> Run:
    """Set up `atoll offers`."""
    parser.add_argument("--project", help="the project that it would be of (default: your profile's)")
    specflags.add(parser)
    parser.output()
    return _offers


def _offers(args: argparse.Namespace) -> int:
    document = specflags.document(args, args.after or ["true"])
    found = client(args).offers(document)
    if args.output != "table":
        show(found, args.output)
        return 0
    if found.ranked:
        print(table(found.ranked, columns.OFFERS), end="")
    if found.outcome == "hold" or not found.ranked:
        print(f"{'it would be held' if found.ranked else 'no offer'}: {found.reason} {found.message}")
        if found.hint:
            note(f"hint: {found.hint}")
    if found.rejected:
        print("\nnot possible")
        print(table(found.rejected, columns.REJECTED), end="")
    return 0


def cost(parser: Parser) -> Run:
    """Set up `atoll cost`."""
    parser.add_argument("--since", default="30d", metavar="TIME", help="how far back: 7d, 12h (default 30d)")
    parser.output()
    return _cost


def _cost(args: argparse.Namespace) -> int:
    found = client(args).usage(SystemClock().now() - duration.parse(args.since))
    if args.output != "table":
        show(found, args.output)
        return 0
    show(found.rows, "table", columns.USAGE, "nothing has run in this time")
    unit = found.currency + (" (simulated)" if found.simulated else "")
    saved = found.on_demand_cost - found.session_cost
    print(f"\nsessions      {money(found.session_cost):>10} {unit}")
    print(f"instances     {money(found.instance_cost):>10} {unit}")
    print(f"on demand     {money(found.on_demand_cost):>10} {unit}, the same runs at on-demand prices")
    print(f"saved         {money(saved):>10} {unit}")
    return 0
