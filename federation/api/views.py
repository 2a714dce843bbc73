"""Nouns to views: micro-units to units, thousandths to cores, states to text."""

from collections.abc import Iterable, Mapping
from typing import Any

from atoll.agent import Agent
from atoll.client import views
from atoll.document import dump_group, dump_session_spec
from atoll.event import Event
from atoll.group import Group, Provider
from atoll.instance import Instance, Shape
from atoll.money import PER_UNIT
from atoll.offer import Decision, Offer, Rejection
from atoll.plan import Move, Note, Step
from atoll.pricing import dump_price_rules
from atoll.session import Member, Session
from atoll.site import Site
from atoll.slots import Slots, total
from atoll.states import WAITING, AgentState, InstanceState
from atoll.token import Token
from federation.api.address import Address
from federation.control.changes import instance_cost
from federation.control.usage import session_cost, session_on_demand

PENDING = frozenset({InstanceState.INTENDED, InstanceState.CREATING, InstanceState.BOOTING, InstanceState.STARTING})
COLD = frozenset({InstanceState.STOPPING, InstanceState.STOPPED})
_MASK = "***"
_SECRET_WORDS = ("secret", "password", "token", "private", "credential")


def units(micros: int) -> float:
    """Return micro-units as units."""
    return micros / PER_UNIT


def slots(amount: Slots) -> views.SlotsView:
    """Return an amount in cores, bytes and devices."""
    return views.SlotsView(
        cpu=amount.cpu / 1000,
        memory=amount.memory,
        disk=amount.disk,
        gpu=[views.GpuView(model=g.model, count=g.milli / 1000, memory=g.memory) for g in amount.gpu],
    )


def session(
    row: Session, now: float, names: Mapping[str, str], address: Address, *, whole: bool = True
) -> views.SessionView:
    """Return a session as of `now`; `names` are the agents' names by id. What may be secret is in `whole` ones only."""
    waiting = now - row.queued_at if row.state in WAITING else 0.0
    return views.SessionView(
        id=row.id,
        name=row.name,
        project=row.project,
        owner=row.owner,
        state=row.state,
        reason=row.reason,
        message=row.message,
        hint=row.hint,
        attempt=row.attempt,
        interruptions=row.interruptions,
        moves=row.moves,
        moving=row.moving.reason if row.moving else "",
        exit_code=row.exit_code,
        site=row.site,
        group=row.group,
        instance=row.instance,
        members=[_member(member, names) for member in row.members],
        apps={app: address.app_url(app, row.id) for app in row.spec.apps},
        cost=units(session_cost(row, now)),
        price=units(row.price),
        on_demand_cost=units(session_on_demand(row, now)),
        wait_s=row.waited_s + max(0.0, waiting),
        created_at=row.created_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        approved_by=row.approved_by,
        ran_s=row.ran_s,
        spec=dump_session_spec(row.spec) if whole else _public(dump_session_spec(row.spec)),
    )


def _public(spec: dict[str, Any]) -> dict[str, Any]:
    """Return a session's document without the values of its environment and its input."""
    env = dict.fromkeys(spec.get("env", {}), _MASK)
    return spec | ({"env": env} if env else {}) | ({"stdin": _MASK} if "stdin" in spec else {})


def _member(member: Member, names: Mapping[str, str]) -> views.MemberView:
    return views.MemberView(
        rank=member.rank,
        agent=member.agent,
        agent_name=names.get(member.agent, member.agent),
        slots=slots(member.slots),
        state=member.state,
        exit_code=member.exit_code,
        limits=member.limits,
        apps=dict(member.apps),
    )


def agent(
    row: Agent, *, connected: bool, rtt: float | None, free: Slots, runs: Iterable[str], protected: bool
) -> views.AgentView:
    """Return an agent with the facts observed about it; `rtt` is in seconds."""
    return views.AgentView(
        id=row.id,
        name=row.name,
        site=row.site,
        group=row.group,
        state=row.state,
        reason=row.reason,
        message=row.message,
        connected=connected,
        rtt_ms=None if rtt is None else round(rtt * 1000, 3),
        capacity=slots(row.capacity),
        free=slots(free),
        price=units(row.price),
        spot=row.spot,
        instance=row.instance,
        epoch=row.epoch,
        drain_until=row.drain_until,
        protected=protected,
        runs=list(runs),
        facts=dict(row.facts),
        joined_at=row.joined_at,
        ended_at=row.ended_at,
    )


def instance(row: Instance, now: float) -> views.InstanceView:
    """Return an instance with its cost up to `now`."""
    return views.InstanceView(
        id=row.id,
        provider=row.provider,
        group=row.group,
        site=row.site,
        shape=row.shape.name,
        zone=row.shape.zone,
        spot=row.shape.spot,
        state=row.state,
        reason=row.reason,
        message=row.message,
        provider_id=row.provider_id,
        agent=row.agent,
        price=units(row.shape.price or 0),
        cost=units(instance_cost(row, now)),
        console=row.console,
        created_at=row.created_at,
        joined_at=row.joined_at,
        ended_at=row.ended_at,
        catalogue=row.shape.catalogue,
    )


def site(row: Site, agents: Iterable[views.AgentView], all_slots: Mapping[str, tuple[Slots, Slots]]) -> views.SiteView:
    """Return a site; `all_slots` is `(capacity, free)` by agent id, of those that are connected."""
    here = [each for each in agents if each.site == row.name and each.state in (AgentState.READY, AgentState.DRAINING)]
    pairs = [all_slots[each.id] for each in here if each.id in all_slots]
    return views.SiteView(
        name=row.name,
        labels=dict(row.labels),
        price=units(row.price),
        agents=len(here),
        connected=sum(each.connected for each in here),
        capacity=slots(total(capacity for capacity, _ in pairs)),
        free=slots(total(free for _, free in pairs)),
        created_at=row.created_at,
        upkeep=row.upkeep.formula if row.upkeep else "",
        egress=units(row.egress),
        blind=row.blind,
    )


def group(row: Group, agents: Iterable[views.AgentView], instances: Iterable[Instance], now: float) -> views.GroupView:
    """Return a group with its counts and what its instances have cost up to `now`."""
    mine = [each for each in agents if each.group == row.name]
    machines = [each for each in instances if each.group == row.name]
    return views.GroupView(
        name=row.name,
        site=row.site,
        kind=row.kind,
        provider=row.provider,
        agents=sum(each.connected and each.state in (AgentState.READY, AgentState.DRAINING) for each in mine),
        pending=sum(each.state in PENDING for each in machines),
        cold=sum(each.state in COLD for each in machines),
        draining=sum(each.state == AgentState.DRAINING for each in mine),
        cost=units(sum(instance_cost(each, now) for each in machines)),
        spec=dump_group(row),
        created_at=row.created_at,
    )


def provider(row: Provider, live: int) -> views.ProviderView:
    """Return a provider with its number of live instances; settings that look secret are masked."""
    hidden = {
        key: _MASK if any(word in key.lower() for word in _SECRET_WORDS) else value
        for key, value in row.settings.items()
    }
    return views.ProviderView(
        name=row.name,
        kind=row.kind,
        settings=hidden,
        live=live,
        created_at=row.created_at,
        prices=dump_price_rules(row.prices),
        orphans=row.orphans,
        credentials_at=row.credentials_at,
    )


def token(row: Token, *, secret: str = "", command: str = "", paste: str = "") -> views.TokenView:
    """Return a token under the first 16 digits of its id."""
    return views.TokenView(
        id=row.id[:16],
        kind=row.kind,
        owner=row.owner,
        roles=list(row.roles),
        site=row.site,
        group=row.group,
        uses_left=row.uses_left,
        expires_at=row.expires_at,
        created_at=row.created_at,
        secret=secret,
        command=command,
        paste=paste,
    )


def decision(row: Decision, at: float = 0.0) -> views.DecisionView:
    """Return a decision with its alternatives; `at` is 0 for a dry run."""
    return views.DecisionView(
        at=at,
        outcome=row.outcome,
        reason=row.reason,
        message=row.message,
        hint=row.hint,
        taken=[_offer(each) for each in row.taken],
        ranked=[_offer(each) for each in row.ranked],
        rejected=[_rejection(each) for each in row.rejected],
        considered=row.considered,
    )


def _offer(row: Offer) -> views.OfferView:
    return views.OfferView(
        kind=row.kind,
        site=row.site,
        group=row.group,
        target=row.target,
        slots=slots(row.slots),
        price=units(row.price),
        cost=units(row.cost),
        start_s=row.start_s,
        spot=row.spot,
        parts=views.CostView(
            run=units(row.parts.run),
            delay=units(row.parts.delay),
            egress=units(row.parts.egress),
            risk=units(row.parts.risk),
            scarcity=units(row.parts.scarcity),
            policy=units(row.parts.policy),
        ),
    )


def _rejection(row: Rejection) -> views.RejectionView:
    return views.RejectionView(
        site=row.site, group=row.group, target=row.target, reason=row.reason, message=row.message
    )


def step(row: Step | Note | Move, plan: str, at: float) -> views.StepView:
    """Return a plan step, a note as one that keeps things as they are, or a session's move."""
    if isinstance(row, Move):
        first = row.to[0] if row.to else None
        return views.StepView(
            at=at,
            plan=plan,
            action="move",
            group=first.group if first else "",
            reason=row.reason,
            message=row.message,
            agent=first.target if first else "",
            sessions=[row.session],
        )
    if isinstance(row, Note):
        return views.StepView(
            at=at,
            plan=plan,
            action="keep",
            group=row.group,
            reason=row.reason,
            message=row.message,
            agent=row.agent,
            instance=row.instance,
            sessions=[row.session] if row.session else [],
        )
    return views.StepView(
        at=at,
        plan=plan,
        action=row.action,
        group=row.group,
        reason=row.reason,
        message=row.message,
        agent=row.agent,
        instance=row.instance,
        shape=row.shape.key if row.shape else "",
        sessions=list(row.sessions),
    )


def event(row: Event) -> views.EventView:
    """Return an event."""
    return views.EventView(
        rev=row.rev,
        at=row.at,
        kind=row.kind,
        key=row.key,
        name=row.name,
        state=row.state,
        reason=row.reason,
        message=row.message,
    )


def shape_offer(row: Shape, group_name: str = "") -> views.ShapeView:
    """Return a shape of a provider as an offer for a whole machine; a price of 0 means that none is known."""
    return views.ShapeView(
        kind="launch",
        site=row.zone,
        group=group_name,
        target=row.key,
        slots=slots(row.slots),
        price=units(row.price or 0),
        cost=0.0,
        start_s=row.start_s,
        spot=row.spot,
        billing_s=row.billing_s,
        interruptions=row.interruptions,
    )


def why(row: Any) -> views.WhyView:
    """Return the story of a session, agent or group."""
    return views.WhyView(
        kind=row.kind,
        id=row.id,
        name=row.name,
        state=row.state,
        reason=row.reason,
        message=row.message,
        hint=row.hint,
        decisions=[decision(each, at) for at, each in row.decisions],
        steps=[step(each, plan, at) for at, plan, each in row.steps],
        events=[event(each) for each in row.events],
    )


def health(row: Any) -> views.HealthView:
    """Return a provider's health."""
    return views.HealthView(
        orphans=row.orphans,
        live=row.live,
        credentials_age_s=row.credentials_age_s,
        limits=[
            views.LimitView(
                name=each.name,
                limit=each.limit,
                committed=each.committed,
                counts=each.counts,
                shapes=list(each.shapes),
                spot=each.spot,
                learned=each.learned,
                left_s=left,
            )
            for each, left in row.limits
        ],
        pauses=[views.PauseView(what=each.what, why=each.why, left_s=each.left_s) for each in row.pauses],
        swept_at=row.swept.at if row.swept else None,
        swept=_swept(row.swept) if row.swept else "",
    )


def _swept(row: Any) -> str:
    if row.error:
        return f"failed: {row.error}"
    if not row.findings:
        return "cloud and records agree"
    return "; ".join(f"{each.provider_id}: {each.finding} ({each.action})" for each in row.findings)


def sweep(row: Any) -> views.SweepFinding:
    """Return what a sweep found."""
    return views.SweepFinding(
        provider=row.provider,
        instance=row.instance,
        provider_id=row.provider_id,
        state=row.state,
        finding=row.finding,
        action=row.action,
    )


def usage(row: Any) -> views.UsageView:
    """Return what was spent."""
    return views.UsageView(
        since=row.since,
        currency=row.currency,
        rows=[
            views.UsageRow(
                site=each.site,
                group=each.group,
                sessions=each.sessions,
                session_cost=units(each.session_cost),
                instance_cost=units(each.instance_cost),
                on_demand_cost=units(each.on_demand_cost),
                instances=each.instances,
                live=each.live,
            )
            for each in row.rows
        ],
        session_cost=units(row.session_cost),
        instance_cost=units(row.instance_cost),
        on_demand_cost=units(row.on_demand_cost),
        simulated=row.simulated,
    )


def status(row: Any) -> views.StatusView:
    """Return the installation's state."""
    return views.StatusView(
        installation=row.installation,
        version=row.version,
        protocol=row.protocol,
        started_at=row.started_at,
        database=row.database,
        sessions=dict(row.sessions),
        agents_connected=row.agents_connected,
        agents=row.agents,
        instances_live=row.instances_live,
        oldest_wait_s=row.oldest_wait_s,
        oldest_wait_session=row.oldest_wait_session,
        oldest_wait_reason=row.oldest_wait_reason,
        cost_now_per_hour=units(row.cost_now_per_hour),
        rev=row.rev,
    )
