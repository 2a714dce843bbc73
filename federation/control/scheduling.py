"""The scheduling round: place what fits, plan groups for the rest, bring sessions home, and adopt it all."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeAlias

from atoll import money
from atoll.agent import Agent
from atoll.clock import Chance
from atoll.ids import PLAN, new_id
from atoll.offer import Decision, Demand, Outcome
from atoll.plan import Move, Plan
from atoll.session import Session
from atoll.slots import Slots
from atoll.states import WAITING, AgentState, Reason, SessionState
from autoscaler.demand import Terms
from autoscaler.plan import plan
from federation.control.admission import Admission, hold
from federation.control.adoption import Adoption
from federation.control.agents import used
from federation.control.budgets import Budgets
from federation.control.changes import Change, Changes
from federation.control.deadlines import paced
from federation.control.demands import arriving, demand, movable, running
from federation.control.groupviews import GroupViews
from federation.control.links import Links
from federation.control.moves import leaving, offered_member
from federation.control.policies import Policies
from federation.control.rulings import Active, Held, terms_of
from federation.control.seating import Seating
from federation.control.spending import Accounts, need
from federation.control.world import Observer, World
from federation.routing.homecoming import Homing, exchange, homecoming
from federation.routing.schedule import schedule

_S = SessionState
SHADOWED = 10
"""A shadow policy is asked every so many rounds: other rules make the router rank everything anew."""
TOLD_S = 60.0
"""How often at most a decision that differs in its numbers alone is stored again."""


Aside: TypeAlias = Callable[[Callable[[], Plan]], Awaitable[Plan]]
"""Runs what takes long beside the event loop: a plan is pure, and reads nothing that changes."""


class Scheduling:
    """Placement, scaling and moves, from one look at the world; what plans say is checked again when it is adopted."""

    def __init__(
        self,
        changes: Changes,
        observer: Observer,
        seating: Seating,
        views: GroupViews,
        links: Links,
        policies: Policies,
        budgets: Budgets,
        adoption: Adoption,
        chance: Chance,
        *,
        home_s: float,
        plan_s: float,
        aside: Aside = asyncio.to_thread,
    ) -> None:
        self._changes = changes
        self._observer = observer
        self._seating = seating
        self._views = views
        self._links = links
        self._policies = policies
        self._budgets = budgets
        self._adoption = adoption
        self._admission = Admission(changes, budgets)
        self._chance = chance
        self._home_s = home_s
        self._plan_s = plan_s
        self._aside = aside
        self._home_at = 0.0
        self._rounds = 0
        self._withheld: set[str] = set()
        self._told_at: dict[str, float] = {}

    async def round(self) -> bool:
        """Do one round; return whether anything was changed that other reconcilers should look at."""
        self._rounds += 1
        active = await self._policies.active()
        self._seating.awaits = self._adoption.last.awaits if self._adoption.last else ()
        world = await self._observer.look()
        await self._views.learn(world)
        terms = terms_of(active.rules, world.sites)
        demands = paced(await self._admission.admit(world, active), world.waiting, world, terms)
        if await self._make_way(world, demands, active):
            world = await self._observer.look()
        decisions = self._decide(world, demands, active)
        await self._compare(world, demands, decisions)
        placed = await self._place(world, decisions, active)
        if placed:
            world = await self._observer.look()
        unplaced = self._unplaced(world, decisions, demands, terms)
        proposed = await self._plan(world, unplaced, terms)
        if unplaced:  # rows may have changed meanwhile: what follows is judged by those of now
            world = await self._observer.look()
        proposed = self._with_homecoming(world, proposed, demands, decisions, active)
        grown = await self._adoption.adopt(world, proposed)
        self._views.grew(grown or ())
        return placed or grown is not None

    def _decide(self, world: World, demands: Sequence[Demand], active: Active) -> list[Decision]:
        if not demands:
            return []
        there = [running(row, world.now) for row in world.placed]
        there += [one for row in world.placed if (one := arriving(row))]
        capacity = self._seating.capacity(world)
        return schedule(demands, capacity, now=world.now, rules=active.rules, running=there)

    async def _compare(self, world: World, demands: Sequence[Demand], decisions: Sequence[Decision]) -> None:
        """Ask the shadow policy, where there is one, what it would have decided."""
        shadow = await self._policies.shadow() if self._rounds % SHADOWED == 0 and demands else None
        if shadow is None:
            return
        rows = {row.id: row for row in world.waiting}
        others = self._decide(world, demands, shadow)
        for live, other in zip(decisions, others, strict=True):
            row = rows[live.session]
            self._policies.compare(row, live, shadow.admit(row) or other, world.now)

    def _unplaced(
        self, world: World, decisions: Sequence[Decision], demands: Sequence[Demand], terms: Terms
    ) -> list[Demand]:
        """Return what is left to the planner; nothing while agents may still be on their way back after a start.

        Who waits for slots by choice, or for those that others make way from, has nothing launched. Who is about to
        lose its machine has it launched now, rather than once it has saved its state (L3).
        """
        if self._links.returning and any(self._links.live(agent.id) is None for agent in world.agents):
            return []
        waiting = {row.id for row in world.waiting} - self._withheld
        left = [
            asked
            for asked, decision in zip(demands, decisions, strict=True)
            if asked.session in waiting and decision.for_planner
        ]
        gone = leaving(world.placed)
        return left + paced([demand(row) for row in gone], gone, world, terms)

    async def _plan(self, world: World, unplaced: Sequence[Demand], terms: Terms) -> Plan:
        """Plan for the groups as they are in `world`: beside the event loop where something is to be launched."""
        work = partial(
            plan,
            self._views.draw(world, self._adoption.last.awaits if self._adoption.last else (), terms.wait_value),
            unplaced,
            plan_id=new_id(PLAN, self._chance),
            generation=await self._adoption.generation(),
            at=world.now,
            terms=terms,
            left=self._time_left(),
        )
        return await self._aside(work) if unplaced else work()

    def _time_left(self) -> Callable[[], float] | None:
        """Return what tells a plan how long it may still look for cheaper launches."""
        if not self._plan_s:
            return None
        clock = self._changes.clock
        until = clock.monotonic() + self._plan_s
        return lambda: until - clock.monotonic()

    # -- moves ------------------------------------------------------------------------------------

    async def _make_way(self, world: World, demands: Sequence[Demand], active: Active) -> bool:
        """Let sessions that can come home later leave owned slots to those that cannot be moved."""
        home = active.homecoming
        if not (home.enabled and home.exchange and demands and self._links.settled):
            return False
        movables = [one for row in world.placed if (one := movable(row, world.now))]
        if not movables:
            return False
        ways = exchange(self._seating.capacity(world), movables, demands, now=world.now, homing=_homing(active))
        return bool(ways) and bool(await self._adoption.begin([way.move for way in ways]))

    def _with_homecoming(
        self,
        world: World,
        proposed: Plan,
        demands: Sequence[Demand],
        decisions: Sequence[Decision],
        active: Active,
    ) -> Plan:
        """Return the plan with sessions coming home in it; one that it moves anyway is not moved twice."""
        if not active.homecoming.enabled or not self._links.settled or world.now < self._home_at:
            return proposed
        moving = {move.session for move in proposed.moves}
        movables = [one for row in world.placed if row.id not in moving and (one := movable(row, world.now))]
        if not movables:
            return proposed
        waiting = {row.id for row in world.waiting}
        left = [
            asked
            for asked, decision in zip(demands, decisions, strict=True)
            if asked.session in waiting and decision.outcome is Outcome.WAIT
        ]
        home = homecoming(self._seating.capacity(world), movables, waiting=left, now=world.now, homing=_homing(active))
        self._home_at = world.now + (0.0 if home else self._home_s)
        return replace(proposed, moves=(*proposed.moves, *home))

    # -- placement --------------------------------------------------------------------------------

    async def _place(self, world: World, decisions: Sequence[Decision], active: Active) -> bool:
        """Store every decision that is news; start what was placed, hold what cannot run, make room where said."""
        rows = {row.id: row for row in world.waiting}
        backs = {d.session: self._kept_back(rows[d.session], d, active) for d in decisions}
        self._withheld = {key for key, why in backs.items() if why}
        told = [d for d in decisions if self._is_news(rows[d.session], d, backs[d.session], world.now)]
        if not told:
            return False
        attempts = {row.id: row.attempt for row in world.placed}
        victims = [_preempted(key, rows[d.session], attempts) for d in told for key in d.preempts if key in attempts]
        async with self._changes.commit("session.place") as change:
            accounts = await self._budgets.open(change)
            taken: dict[str, Slots] = {}
            for decision in told:
                row = await change.tx.get(Session, decision.session)
                if row is None or row.state not in WAITING:
                    continue
                await change.tx.decide(row.id, decision, change.now)
                if decision.outcome is Outcome.PLACE:
                    await self._start(change, row, decision, active, accounts, taken)
                elif why := backs[row.id]:
                    await hold(change, row, why, decision)
                elif row.reason is not decision.reason and row.state is not _S.PROVISIONING:
                    await change.session(row, _S.QUEUED, decision.reason, decision.message, hint=decision.hint)
        self._told_at = {key: at for key, at in self._told_at.items() if key in rows}
        self._told_at |= {decision.session: world.now for decision in told}
        if victims:
            await self._adoption.begin(victims)
        return any(d.outcome is Outcome.PLACE for d in told) or bool(victims)

    def _kept_back(self, row: Session, decision: Decision, active: Active) -> Held | None:
        """Return why a session is held that is not placed now: nothing can run it, or what it would cost."""
        if decision.outcome is Outcome.HOLD:
            limited = self._admission.limited.get(row.id)
            return limited or Held(reason=decision.reason, message=decision.message, hint=decision.hint)
        if decision.outcome is Outcome.LAUNCH:
            expected = row.spec.lifetime.expected
            return active.admit(row, sum(money.cost(offer.price, expected) for offer in decision.taken))
        return None

    def _is_news(self, row: Session, decision: Decision, back: Held | None, now: float) -> bool:
        """A waiting session's text changes with its reason, not with every new number in it."""
        if decision.outcome is Outcome.PLACE or decision.preempts:
            return True
        late = now - self._told_at.get(row.id, -TOLD_S) >= TOLD_S
        if back:
            return late or (row.state, row.reason, row.message) != (_S.HELD, back.reason, back.message)
        return late or (row.state is not _S.PROVISIONING and row.reason is not decision.reason)

    async def _start(
        self,
        change: Change,
        row: Session,
        decision: Decision,
        active: Active,
        accounts: Accounts,
        taken: dict[str, Slots],
    ) -> None:
        members = []
        for rank, offer in enumerate(decision.taken):
            agent = await change.tx.get(Agent, offer.target)
            if agent is None or agent.state is not AgentState.READY or self._links.live(agent.id) is None:
                return
            if not self._is_free(agent, offer.slots, taken):
                return
            members.append(offered_member(rank, offer))
        why = active.admit(row, need(members, row.spec.lifetime.expected)) or accounts.start(row, members)
        if why:
            await hold(change, row, why, decision)
            return
        for member in members:
            taken[member.agent] = taken.get(member.agent, Slots()) + member.slots
        first = decision.taken[0]
        await change.session(
            row,
            _S.STARTING,
            Reason.PLACED,
            decision.message,
            attempt=row.attempt + 1,
            members=tuple(members),
            site=first.site,
            group=first.group,
            instance="",
            price=sum(member.price for member in members),
            on_demand_price=decision.on_demand_price,
            started_at=None,
            exit_code=None,
            waited_s=row.waited_s + max(0.0, change.now - row.queued_at),
        )

    def _is_free(self, agent: Agent, slots: Slots, taken: Mapping[str, Slots]) -> bool:
        """Say whether an agent still has these slots: a move may have begun since the decision."""
        free = agent.capacity - used(agent.id, self._changes.mirror.on_agent(agent.id))
        return (free - taken.get(agent.id, Slots())).covers(slots)


def _preempted(session: str, by: Session, attempts: Mapping[str, int]) -> Move:
    return Move(
        session=session,
        attempt=attempts[session],
        reason=Reason.PREEMPTED,
        message=f"makes room for {by.name}, which has a higher priority",
    )


def _homing(active: Active) -> Homing:
    return Homing(max_moves=active.homecoming.max_moves)
