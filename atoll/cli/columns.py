"""Which columns the tables of each kind of object have."""

from datetime import UTC, datetime

from atoll import duration
from atoll.cli.output import Columns, ago, money, size, slots
from atoll.client.views import BudgetView, CostView, EventView, SessionView
from atoll.host.system import SystemClock


def _age(moment: float | None) -> str:
    return ago(moment, SystemClock().now())


def _ran(session: object) -> str:
    started, ended = getattr(session, "started_at", None), getattr(session, "ended_at", None)
    return "-" if started is None else duration.rough((ended or SystemClock().now()) - started)


def _handshake(ages: list[float | None]) -> str:
    known = [age for age in ages if age is not None]
    return f"{duration.rough(min(known))} ago" if known else "never"


def clock_time(moment: float) -> str:
    """Return the local time of day of a moment."""
    return datetime.fromtimestamp(moment, UTC).astimezone().strftime("%H:%M:%S")


def date_time(moment: float | None) -> str:
    """Return local date and time of a moment, `never` for None."""
    return "never" if moment is None else datetime.fromtimestamp(moment, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def event_name(event: EventView) -> str:
    """Return what an event is about, for people; an instance has no name, an event about one tells its group's."""
    return event.key if event.kind in ("instance", "plan") else event.name or event.key


def shared(session: SessionView) -> str:
    """Return a session's apps that are open to others, with to whom."""
    apps = session.spec.get("apps", {})
    rules = {name: rule.get("access", "") for name, rule in apps.items() if isinstance(rule, dict)}
    return ",".join(f"{name}:{access}" for name, access in rules.items() if access)


def bar(view: BudgetView, width: int = 20) -> str:
    """Return a budget as a bar: what is spent, what is committed beside it, what is left."""
    spent = min(width, round(width * view.spent / view.amount))
    both = min(width, max(spent, round(width * (view.spent + view.committed) / view.amount)))
    return f"[{'#' * spent}{'+' * (both - spent)}{'.' * (width - both)}]"


SESSIONS: Columns = {
    "NAME": lambda s: s.name,
    "STATE": lambda s: s.state,
    "REASON": lambda s: s.reason,
    "EXIT": lambda s: "" if s.exit_code is None else str(s.exit_code),
    "SITE": lambda s: s.site,
    "AGENT": lambda s: ",".join(m.agent_name or m.agent for m in s.members),
    "WAIT": lambda s: duration.rough(s.wait_s),
    "RAN": _ran,
    "COST": lambda s: money(s.cost),
    "AGE": lambda s: _age(s.created_at),
    "SHARED": shared,
}
AGENTS: Columns = {
    "NAME": lambda a: a.name,
    "STATE": lambda a: a.state,
    "LINK": lambda a: "up" if a.connected else "down",
    "RTT": lambda a: "" if a.rtt_ms is None else f"{a.rtt_ms:.1f}ms",
    "SITE": lambda a: a.site,
    "GROUP": lambda a: a.group,
    "FREE": lambda a: slots(a.free),
    "CAPACITY": lambda a: slots(a.capacity),
    "RUNS": lambda a: str(len(a.runs)),
    "PRICE/H": lambda a: money(a.price),
    "ID": lambda a: a.id,
}
INSTANCES: Columns = {
    "ID": lambda i: i.id,
    "STATE": lambda i: i.state,
    "REASON": lambda i: i.reason,
    "PROVIDER": lambda i: i.provider,
    "GROUP": lambda i: i.group,
    "SHAPE": lambda i: i.shape,
    "ZONE": lambda i: i.zone,
    "SPOT": lambda i: "spot" if i.spot else "on-demand",
    "PRICE/H": lambda i: money(i.price),
    "COST": lambda i: money(i.cost),
    "AGE": lambda i: _age(i.created_at),
}
RELAYS: Columns = {
    "NAME": lambda r: r.name,
    "STATE": lambda r: r.state,
    "LINK": lambda r: "up" if r.connected else "down",
    "URL": lambda r: r.url,
    "RTT": lambda r: "" if r.rtt_ms is None else f"{r.rtt_ms:.1f}ms",
    "AGENTS": lambda r: str(r.agents),
    "STREAMS": lambda r: str(r.streams),
    "RESUMED": lambda r: str(sum(lane.resumes for lane in r.lanes)),
    "REFUSED": lambda r: str(sum(r.refused.values())),
    "PASSING": lambda r: str(r.passing),
    "RECEIVED": lambda r: size(r.received),
    "SENT": lambda r: size(r.sent),
    "SEEN": lambda r: "never" if r.seen_at is None else _age(r.seen_at),
}
SITES: Columns = {
    "NAME": lambda s: s.name,
    "AGENTS": lambda s: f"{s.connected}/{s.agents}",
    "FREE": lambda s: slots(s.free),
    "CAPACITY": lambda s: slots(s.capacity),
    "PRICE/H": lambda s: money(s.price),
    "LABELS": lambda s: ",".join(f"{key}={value}" for key, value in s.labels.items()),
}
GROUPS: Columns = {
    "NAME": lambda g: g.name,
    "KIND": lambda g: g.kind,
    "SITE": lambda g: g.site,
    "PROVIDER": lambda g: g.provider,
    "AGENTS": lambda g: str(g.agents),
    "PENDING": lambda g: str(g.pending),
    "COLD": lambda g: str(g.cold),
    "DRAINING": lambda g: str(g.draining),
    "SIZE": lambda g: f"{g.spec['size']['min']}..{g.spec['size']['max']}" if "size" in g.spec else "",
    "COST": lambda g: money(g.cost),
}
PROVIDERS: Columns = {
    "NAME": lambda p: p.name,
    "TYPE": lambda p: p.kind,
    "INSTANCES": lambda p: str(p.live),
    "AGE": lambda p: _age(p.created_at),
}
TOKENS: Columns = {
    "ID": lambda t: t.id[:12],
    "KIND": lambda t: t.kind,
    "OWNER": lambda t: t.owner,
    "ROLES": lambda t: ",".join(t.roles),
    "SITE": lambda t: t.site,
    "GROUP": lambda t: t.group,
    "USES": lambda t: str(t.uses_left) if t.kind == "join" else "",
    "EXPIRES": lambda t: date_time(t.expires_at),
}
POLICIES: Columns = {
    "NAME": lambda p: p.name,
    "PROJECT": lambda p: p.project or "all",
    "IN FORCE": lambda p: "yes" if p.active else "shadow" if p.shadow else "no",
    "DENY": lambda p: str(len(p.spec.get("deny", ()))),
    "APPROVE": lambda p: str(len(p.spec.get("approve", ()))),
    "PREFER": lambda p: str(len(p.spec.get("prefer", ()))),
    "AGE": lambda p: _age(p.created_at),
}
RULE_PROBLEMS: Columns = {"RULE": lambda r: r.rule, "DOES NOT APPLY, SINCE": lambda r: r.why}
DIFFERENCES: Columns = {
    "TIME": lambda d: clock_time(d.at),
    "SESSION": lambda d: d.name,
    "LIVE": lambda d: d.live,
    "SHADOW": lambda d: d.shadow,
}
BUDGETS: Columns = {
    "NAME": lambda b: b.name,
    "PROJECT": lambda b: b.project or "all",
    "PERIOD": lambda b: b.period,
    "": lambda b: bar(b),
    "SPENT": lambda b: money(b.spent),
    "COMMITTED": lambda b: money(b.committed),
    "LEFT": lambda b: money(b.left),
    "OF": lambda b: money(b.amount),
    "ENDS IN": lambda b: "never" if b.ends is None else duration.rough(max(0.0, b.ends - SystemClock().now())),
    "NOW": lambda b: b.stage,
}
MESHES: Columns = {
    "SITES": lambda m: " - ".join(end.site for end in m.ends),
    "STATE": lambda m: m.state,
    "GATEWAYS": lambda m: " - ".join(end.agent_name or "?" for end in m.ends),
    "ADDRESSES": lambda m: " - ".join(end.addresses[-1] for end in m.ends),
    "ENDPOINTS": lambda m: " - ".join(end.endpoint or "?" for end in m.ends),
    "HANDSHAKE": lambda m: _handshake([end.handshake_s for end in m.ends]),
    "BYTES": lambda m: " - ".join(size(end.sent) for end in m.ends),
}
SHAPES: Columns = {
    "SHAPE": lambda o: o.target,
    "SLOTS": lambda o: slots(o.slots),
    "SPOT": lambda o: "spot" if o.spot else "on-demand",
    "PRICE/H": lambda o: money(o.price) if o.price else "unknown",
    "STARTS IN": lambda o: duration.rough(o.start_s),
}


LEAST = 0.00005
"""Amounts below this are shown as 0: four decimals are."""


def made_of(parts: CostView) -> str:
    """Return what a cost holds beside running: `0.02 delay, 0.01 risk`."""
    beside = {
        "delay": parts.delay,
        "egress": parts.egress,
        "risk": parts.risk,
        "scarcity": parts.scarcity,
        "policy": parts.policy,
    }
    return ", ".join(f"{money(amount)} {name}" for name, amount in beside.items() if abs(amount) >= LEAST)


OFFERS: Columns = {
    "KIND": lambda o: o.kind,
    "SITE": lambda o: o.site,
    "GROUP": lambda o: o.group,
    "TARGET": lambda o: o.target,
    "SPOT": lambda o: "spot" if o.spot else "",
    "STARTS IN": lambda o: duration.rough(o.start_s) if o.start_s else "now",
    "PRICE/H": lambda o: money(o.price),
    "COST": lambda o: money(o.cost),
    "OF WHICH": lambda o: made_of(o.parts),
}
REJECTED: Columns = {
    "SITE": lambda r: r.site,
    "GROUP": lambda r: r.group,
    "TARGET": lambda r: r.target,
    "REASON": lambda r: r.reason,
    "WHY NOT": lambda r: r.message,
}
STEPS: Columns = {
    "TIME": lambda s: clock_time(s.at),
    "ACTION": lambda s: s.action,
    "REASON": lambda s: s.reason,
    "ON": lambda s: s.agent or s.instance or s.shape,
    "MESSAGE": lambda s: s.message,
}
EVENTS: Columns = {
    "TIME": lambda e: clock_time(e.at),
    "KIND": lambda e: e.kind,
    "NAME": event_name,
    "STATE": lambda e: e.state,
    "REASON": lambda e: e.reason,
    "MESSAGE": lambda e: e.message,
}
USAGE: Columns = {
    "SITE": lambda r: r.site,
    "GROUP": lambda r: r.group,
    "SESSIONS": lambda r: str(r.sessions),
    "SESSION COST": lambda r: money(r.session_cost),
    "INSTANCE COST": lambda r: money(r.instance_cost),
    "ON DEMAND": lambda r: money(r.on_demand_cost),
    "INSTANCES": lambda r: str(r.instances),
    "LIVE": lambda r: str(r.live),
}
FINDINGS: Columns = {
    "CHECK": lambda f: f.check,
    "": lambda f: "ok" if f.ok else "PROBLEM",
    "MESSAGE": lambda f: f.message,
    "HINT": lambda f: f.hint,
}
SWEEP: Columns = {
    "PROVIDER": lambda f: f.provider,
    "INSTANCE": lambda f: f.instance,
    "CLOUD ID": lambda f: f.provider_id,
    "STATE": lambda f: f.state,
    "FINDING": lambda f: f.finding,
    "ACTION": lambda f: f.action,
}
LIMITS: Columns = {
    "LIMIT": lambda q: q.name,
    "USED": lambda q: f"{q.committed}/{q.limit} {q.counts}",
    "SHAPES": lambda q: " ".join(q.shapes) or "all",
    "SPOT": lambda q: "both" if q.spot is None else "spot" if q.spot else "on-demand",
    "SOURCE": lambda q: f"learned, believed {duration.rough(q.left_s)} yet" if q.learned else "told by the cloud",
}
PAUSES: Columns = {
    "LEFT ALONE": lambda p: p.what,
    "FOR": lambda p: duration.rough(p.left_s),
    "WHY": lambda p: p.why,
}
PRICE_LISTS: Columns = {
    "PROVIDER": lambda p: p.provider,
    "SOURCE": lambda p: p.source,
    "PRICES": lambda p: str(p.count) if p.at is not None else "none",
    "DROPPED": lambda p: str(p.dropped),
    "AGE": lambda p: "" if p.age_s is None else duration.rough(p.age_s),
    "STALE": lambda p: ("blocks" if p.blocks else "stale") if p.stale else "no" if p.at is not None else "",
    "LIVE": lambda p: ("fails" if p.failure else "yes") if p.live else "no",
    "FAILURE": lambda p: p.failure,
}
PRICES: Columns = {
    "SHAPE": lambda p: p.shape,
    "ZONE": lambda p: p.zone or "all",
    "SPOT": lambda p: "spot" if p.spot else "on-demand",
    "CPU": lambda p: f"{p.cpu:g}" if p.cpu else "",
    "GPU": lambda p: f"{p.gpus}x{p.gpu_model}" if p.gpus else "",
    "LISTED/H": lambda p: money(p.listed),
    "YOURS/H": lambda p: "unknown" if p.price is None else money(p.price),
}
PRICE_REMARKS: Columns = {
    "SHAPE": lambda r: r.shape,
    "ZONE": lambda r: r.zone or "all",
    "SPOT": lambda r: "spot" if r.spot else "on-demand",
    "LISTED/H": lambda r: money(r.listed),
    "": lambda r: "DROPPED" if r.dropped else "doubted",
    "WHY": lambda r: r.reason,
}
MEMBERS: Columns = {
    "RANK": lambda m: str(m.rank),
    "AGENT": lambda m: m.agent_name or m.agent,
    "STATE": lambda m: m.state,
    "EXIT": lambda m: "" if m.exit_code is None else str(m.exit_code),
    "SLOTS": lambda m: slots(m.slots),
    "LIMITS": lambda m: m.limits,
    "DISK": lambda m: size(m.slots.disk) if m.slots.disk else "",
}
