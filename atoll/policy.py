"""A policy: what an installation, or one project, allows, what needs a person's word, and what it prefers."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from atoll import money
from atoll.errors import Invalid
from atoll.expression import Expression, Kind, parse
from atoll.session import SessionSpec
from atoll.slots import GIB

ADMIN = "admin"
"""The role that may do everything."""
MEMBER = "member-"
"""With a project's name: the role of that project's members, who may run sessions in it and see them."""
COMMON = "default"
"""The project that everyone is a member of."""
ACTIVE = "default"
"""The name of the installation's policy; others of no project only lie ready to be tested."""
INFINITE = float("inf")
"""What a limit is that is not set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A session as expressions see it: `session.gpu` and so on.

    Cores, GiB and devices are for each member; `hours` is the expected run time. A limit that is not set is
    infinite. `labels` are the session's own, as `key=value`. `cost` is the expected total in units, known once the
    router has looked: an expression about offers cannot read it.
    """

    type: str = "batch"
    project: str = ""
    owner: str = ""
    cpu: float = 1.0
    memory: float = 0.0
    gpu: float = 0.0
    gpu_models: tuple[str, ...] = ()
    nodes: int = 1
    hours: float = 0.0
    priority: int = 0
    max_price: float = 0.0
    spot: bool = True
    preemptible: bool = False
    checkpoint: bool = False
    protect: bool = False
    labels: tuple[str, ...] = ()
    sites: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    near: str = ""
    cost: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """A place as expressions see it: `offer.site` and so on.

    `kind` is `agent`, `pending`, `cold`, `launch` or `wait`; `price` is units an hour for a member, `start` seconds.
    `owned` machines are there anyway.
    """

    kind: str = "agent"
    site: str = ""
    group: str = ""
    provider: str = ""
    region: str = ""
    shape: str = ""
    price: float = 0.0
    spot: bool = False
    owned: bool = True
    start: float = 0.0


_KINDS: Mapping[object, Kind] = {
    str: Kind.TEXT, int: Kind.NUMBER, float: Kind.NUMBER, bool: Kind.FLAG, tuple[str, ...]: Kind.TEXTS,
}  # fmt: skip
SCOPE = {
    "session": {each.name: _KINDS[each.type] for each in fields(Asked)},
    "offer": {each.name: _KINDS[each.type] for each in fields(Offered)},
}
"""What expressions of policies may name."""


def asked(spec: SessionSpec, project: str, owner: str, cost: int | None = None) -> Asked:
    """Return a session as expressions see it; `cost` is what it is expected to cost in micro-units, None: unknown."""
    request, limit = spec.resources, spec.cost.max_price
    return Asked(
        type=str(spec.type),
        project=project,
        owner=owner,
        cpu=request.cpu / 1000,
        memory=request.memory / GIB,
        gpu=request.gpu.milli / 1000,
        gpu_models=request.gpu.models,
        nodes=spec.nodes,
        hours=spec.lifetime.expected / money.HOUR,
        priority=spec.priority,
        max_price=INFINITE if limit is None else limit / money.PER_UNIT,
        spot=spec.cost.spot,
        preemptible=spec.preemptible,
        checkpoint=spec.checkpoint is not None,
        protect=spec.lifetime.protect,
        labels=tags(spec.labels),
        sites=spec.placement.sites,
        groups=spec.placement.groups,
        near=spec.placement.near,
        cost=(cost or 0) / money.PER_UNIT,
    )


def tags(labels: Mapping[str, str]) -> tuple[str, ...]:
    """Return a session's labels as expressions and `Demand.tags` have them."""
    return tuple(sorted(f"{key}={value}" for key, value in labels.items()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Deny:
    """What must not be: a session, or an offer for one, for which `when` is true. `reason` is told."""

    when: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Approve:
    """What needs the word of somebody with `role` before it runs."""

    when: str
    role: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefer:
    """What counts as dearer or cheaper than it is: where `when` is true, an offer's cost is changed for ranking.

    `cost` is `x` and a factor (`x1.5`), or `+` and units (`+0.20`); either may be an expression. Nobody pays it.
    """

    when: str
    cost: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Homecoming:
    """Whether sessions that can take a checkpoint come home from paid capacity, at most `max_moves` at a time.

    With `exchange` they also leave owned slots to sessions that cannot be moved: that saves more, and has these wait
    for as long as a checkpoint takes.
    """

    enabled: bool = True
    max_moves: int = 20
    exchange: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What is allowed and preferred, for the sessions of `project` (empty: all).

    `max_wait` (seconds) holds for sessions that set none. The rest is of the installation's policy only, None or
    empty where it leaves things as they are: `wait_value` is the worth of an hour's waiting (micro-units),
    `scarcity` how much of what others would lose counts (0..1), `shares` the projects' weights in fair share.
    """

    name: str = ACTIVE
    project: str = ""
    deny: tuple[Deny, ...] = ()
    approve: tuple[Approve, ...] = ()
    prefer: tuple[Prefer, ...] = ()
    max_wait: float | None = None
    wait_value: int | None = None
    scarcity: float | None = None
    shares: Mapping[str, float] = field(default_factory=dict)
    homecoming: Homecoming | None = None
    created_at: float = 0.0
    version: int = 0


def condition(text: str) -> Expression:
    """Return the condition of a rule; raise `Invalid` for one that asks for what cannot be known together."""
    return _known_together(parse(text, SCOPE))


def preference(text: str) -> tuple[str, Expression]:
    """Return `x` or `+` and the amount of a preference's `cost`; raise `Invalid` for anything else."""
    sign, amount = text.strip()[:1], text.strip()[1:]
    if sign not in ("x", "+"):
        raise Invalid(f"a preference's cost cannot be {text!r}", hint="write a factor like x1.5, or units like +0.20")
    return sign, _known_together(parse(amount, SCOPE, Kind.NUMBER))


def reads_offer(expression: Expression) -> bool:
    """Say whether an expression is about offers; else it is about the session alone."""
    return any(name.startswith("offer.") for name in expression.reads)


def reads_cost(expression: Expression) -> bool:
    """Say whether an expression needs the session's expected cost."""
    return "session.cost" in expression.reads


def _known_together(expression: Expression) -> Expression:
    if reads_offer(expression) and reads_cost(expression):
        raise Invalid(
            f"`{expression.text}` names session.cost and an offer: the cost is known once an offer is chosen",
            hint="write offer.price * session.hours * session.nodes for what this offer would cost",
        )
    return expression


def granted(approved_by: str) -> dict[str, str]:
    """Return who approved a session, by role, from `Session.approved_by` (`lead:ada,finance:bo`)."""
    return dict(pair.split(":", 1) for pair in approved_by.split(",") if ":" in pair)


def grant(approved_by: str, role: str, by: str) -> str:
    """Return `approved_by` with one more approval."""
    named = "".join("_" if each in ",:" else each for each in by)
    return ",".join(f"{role}:{who}" for role, who in (granted(approved_by) | {role: named}).items())
