"""What the demo prints: a line of the timeline, the table at the end, what it claims."""

from collections.abc import Mapping
from dataclasses import dataclass

from atoll.cli.output import Columns, money, paint_state, table
from atoll.client.synchronous import Client
from atoll.client.views import EventView as Event
from atoll.client.views import InstanceView, SessionView, WhyView
from atoll.duration import rough


@dataclass(frozen=True, slots=True)
class Claim:
    """Something the demo says it shows; `otherwise` is what was seen where it did not hold."""

    text: str
    held: bool
    otherwise: str = ""


_TOLD = {
    "session": {"running", "succeeded", "failed", "interrupted", "held", "lost", "provisioning"},
    "instance": {"creating", "joined", "draining", "ending", "gone"},
}


def timeline_line(event: Event, elapsed: float, names: Mapping[str, str]) -> str:
    """Return an event as a line of the timeline, empty for those that matter little."""
    if event.state not in _TOLD.get(event.kind, ()):
        return ""
    name = names.get(event.key) or (f"{event.name} {event.key[-8:]}" if event.kind == "instance" else event.name)
    why = event.message or event.reason
    return f"{elapsed:6.1f}s  {event.kind:<8} {name:<20} {paint_state(event.state, 12)} {why}"[:200]


def final_table(client: Client, sessions: Mapping[str, SessionView], instances: Mapping[str, InstanceView]) -> str:
    """Return where each session ran, why, how long it waited and what it cost; then the sums."""
    rows = sorted(sessions.values(), key=lambda view: view.created_at)
    reasons = {view.id: place_reason(client.why(view.id)) for view in rows}
    columns: Columns = {
        "SESSION": lambda s: s.name,
        "STATE": lambda s: s.state,
        "WHERE": lambda s: f"{s.site}: {', '.join(m.agent_name for m in s.members)}",
        "WHY": lambda s: reasons[s.id],
        "TRIES": lambda s: str(s.attempt),
        "WAIT": lambda s: rough(s.wait_s),
        "COST": lambda s: money(s.cost),
    }
    usage = client.usage()
    left = sum(machine.state != "gone" for machine in instances.values())
    saved = usage.on_demand_cost - usage.session_cost
    percent = f", {saved / usage.on_demand_cost:.0%} saved" if usage.on_demand_cost else ""
    return (
        table(rows, columns)
        + f"\nsessions cost {money(usage.session_cost)} {usage.currency} (simulated);"
        + f" everything on demand {money(usage.on_demand_cost)} {usage.currency}{percent}\n"
        + f"machines cost {money(usage.instance_cost)} {usage.currency}\n"
        + f"instances left: {left}"
    )


def place_reason(why: WhyView) -> str:
    """Return why a session was placed where it last ran, cut to fit a table."""
    for decision in why.decisions:
        if decision.outcome == "place":
            return decision.message[:60]
    return why.message[:60]
