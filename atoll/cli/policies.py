"""`atoll policy`: what is allowed, what needs approval, what is preferred, and what another policy would change."""

import argparse
from pathlib import Path

from atoll.cli import columns
from atoll.cli.apply import apply_rules
from atoll.cli.connect import client
from atoll.cli.files import documents
from atoll.cli.output import note, show, table, to_yaml
from atoll.cli.parser import Parser, Run, run_verb
from atoll.cli.server import server_side
from atoll.client.synchronous import Client
from atoll.client.views import OfferView
from atoll.document import policy as read
from atoll.document import session_spec
from atoll.errors import Invalid
from atoll.judge import Judge
from atoll.money import PER_UNIT, micros
from atoll.policy import ACTIVE, Asked, Offered, Policy, asked
from atoll.session import SessionSpec


def policy(parser: Parser) -> Run:
    """Set up `atoll policy`."""
    add = parser.verbs()
    add("list", _list, "list policies, and rules that fail", "atoll policy list").output()
    shown = add("show", _show, "show a policy", "atoll policy show default")
    shown.add_argument("name", nargs="?", default=ACTIVE)
    shown.output()
    apply = add("apply", _apply, "put policies in force", "atoll policy apply policy.yaml")
    apply.add_argument("file", type=Path, help="YAML documents; `-` reads standard input")
    delete = add("delete", _delete, "remove a policy", "atoll policy delete red")
    delete.add_argument("name")
    check = add(
        "check",
        _check,
        "read a policy and say what it makes of a session",
        "atoll policy check p.yaml --session s.yaml",
    )
    check.add_argument("file", type=Path, help="a policy in YAML")
    check.add_argument("--session", type=Path, metavar="FILE", help="a session in YAML, and the places it could run at")
    check.add_argument("--project", help="the session's project")
    check.add_argument("--owner", default="", help="whose session it is")
    check.add_argument("--cost", type=float, metavar="UNITS", help="what it is expected to cost")
    check.add_argument("--offline", action="store_true", help="ask no control plane for places")
    test = add("test", _test, "replay a history under a policy", "atoll policy test new.yaml --replay 7d --compare")
    test.add_argument("file", type=Path, help="the policy to be tested, in YAML")
    past = test.add_mutually_exclusive_group(required=True)
    past.add_argument("--replay", metavar="TIME", help="what ran here in this time, such as 7d")
    past.add_argument("--trace", type=Path, metavar="FILE", help="a trace, as `atoll simulate` takes it")
    test.add_argument("--setup", type=Path, metavar="FILE", help="what to run on (default: this installation)")
    test.add_argument("--compare", action="store_true", help="beside the policy in force, and what differs")
    test.add_argument("--project", help=argparse.SUPPRESS)
    test.output()
    shadow = add("shadow", _shadow, "evaluate a policy beside the live one", "atoll policy shadow new")
    shadow.add_argument("name", nargs="?", default="", help="a policy that is not in force")
    shadow.add_argument("--off", action="store_true", help="end it")
    add("diff", _diff, "what the shadow would have decided otherwise", "atoll policy diff").output()
    return run_verb


def _list(args: argparse.Namespace) -> int:
    connection = client(args)
    empty = "no policies: everything is allowed; `atoll policy apply FILE` puts one in force"
    show(connection.policies(), args.output, columns.POLICIES, empty)
    if args.output == "table" and (problems := connection.policy_problems()):
        note("these fail, and so do not apply:")
        note(table(problems, columns.RULE_PROBLEMS).rstrip())
    return 0


def _show(args: argparse.Namespace) -> int:
    view = client(args).policy(args.name)
    if args.output != "table":
        show(view, args.output)
        return 0
    print(to_yaml({"kind": "policy", **view.spec}), end="")
    if not view.active:
        note("it is evaluated beside the live one: see `atoll policy diff`" if view.shadow else "it is not in force")
    return 0


def _apply(args: argparse.Namespace) -> int:
    found = [read(document) for document in documents(args.file)]
    connection = client(args)
    for each in found:
        name, verb = apply_rules(each, connection.policy, connection.apply_policy)
        print(f"policy/{name} {verb}")
        if each.name != ACTIVE and not each.project:
            note(f"only {ACTIVE!r} is in force; try {name!r} first: atoll policy shadow {name}")
    return 0


def _delete(args: argparse.Namespace) -> int:
    client(args).delete("policies", args.name)
    print(f"policy {args.name} deleted")
    return 0


def _check(args: argparse.Namespace) -> int:
    rules = _read_one(args.file)
    count = len(rules.deny) + len(rules.approve) + len(rules.prefer)
    print(f"policy {rules.name} is well: {count} rules")
    if args.session is None:
        return 0
    (document, *more) = documents(args.session) or [{}]
    if more:
        raise Invalid(f"{args.session} holds several documents", hint="give one session")
    spec = session_spec(document)
    connection = None if args.offline else client(args)
    project = args.project or (connection.project if connection else "default")
    cost = None if args.cost is None else micros(args.cost)
    print(verdict(rules, spec, project, args.owner, cost, connection), end="")
    return 0


def verdict(
    rules: Policy, spec: SessionSpec, project: str, owner: str, cost: int | None, connection: Client | None
) -> str:
    """Return what a policy says of a session and, with a connection, of each place it could run at now."""
    judge, facts = Judge([rules]), asked(spec, project, owner, cost)
    said = judge.session(facts, cost_known=cost is not None)
    if said is None:
        lines = ["the session may run"]
    elif said.role:
        lines = [f"the session needs the approval of a {said.role}" + (f": {said.reason}" if said.reason else "")]
    else:
        lines = [f"the session is denied: {said.reason}"]
    if connection is not None and judge.judges_offers:
        lines += _offers(judge, facts, spec, connection)
    lines += [f"does not apply: {rule}: {why}" for rule, why in judge.errors.items()]
    return "".join(f"{line}\n" for line in lines)


def _offers(judge: Judge, facts: Asked, spec: SessionSpec, connection: Client) -> list[str]:
    groups = {group.name: group for group in connection.groups()}
    regions = {site.name: site.labels.get("region", "") for site in connection.sites()}
    lines = []
    for view in connection.offers(spec).ranked:
        group = groups.get(view.group)
        provider = group.provider if group else ""
        offered = _offered(view, provider, regions.get(view.site, ""))
        denied, factor, extra = judge.offer(facts, offered)
        told = f"denied: {denied}" if denied else f"x{factor:g} +{extra / PER_UNIT:g}"
        lines.append(f"  {view.kind} {view.target} of {view.group} at {view.site}: {told}")
    return lines


def _offered(view: OfferView, provider: str, region: str) -> Offered:
    return Offered(
        kind=view.kind,
        site=view.site,
        group=view.group,
        provider=provider,
        region=region,
        shape=view.target.partition("/")[0] if view.kind == "launch" else "",
        price=view.price,
        spot=view.spot,
        owned=not provider,
        start=view.start_s,
    )


def _test(args: argparse.Namespace) -> int:
    return server_side("federation.simulate.policytest", "test", args)


def _shadow(args: argparse.Namespace) -> int:
    if bool(args.name) == args.off:
        raise Invalid("say which policy, or --off", hint="atoll policy shadow NAME")
    client(args).shadow(args.name)
    print(f"policy {args.name} is the shadow: see `atoll policy diff`" if args.name else "no policy is a shadow")
    return 0


def _diff(args: argparse.Namespace) -> int:
    view = client(args).policy_diff()
    if args.output != "table":
        show(view, args.output)
        return 0
    other = sum(view.counts.values())
    print(f"policy {view.policy}: {other} differences over {view.asked} sessions since {columns.date_time(view.since)}")
    for kind, count in sorted(view.counts.items()):
        print(f"  {count:>6}  {kind}")
    if view.newest:
        print("\n" + table(view.newest, columns.DIFFERENCES), end="")
    return 0


def _read_one(file: Path) -> Policy:
    found = documents(file)
    if len(found) != 1:
        raise Invalid(f"{file} holds {len(found)} documents", hint="give one policy")
    return read(found[0])
