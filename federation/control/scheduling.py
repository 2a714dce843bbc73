"""The scheduling round: place what fits, plan groups for the rest, and adopt the plan in one commit."""

from atoll.agent import Agent
from atoll.clock import Chance
from atoll.group import Group, Provider
from atoll.ids import PLAN, new_id
from atoll.instance import Instance
from atoll.offer import Decision, Demand, Outcome
from atoll.plan import Action, Plan, Step
from atoll.session import Member, Session
from atoll.states import PLACED, WAITING, AgentState, InstanceState, Reason, SessionState
from autoscaler.plan import plan
from federation.control.agents import Agents, drain, undrain
from federation.control.changes import Change, Changes
from federation.control.links import Links
from federation.control.world import LIVE, Observer, World, demand
from federation.routing.place import route

_S, _I = SessionState, InstanceState


class Scheduling:
    """Placement and scaling, from one look at the world."""

    def __init__(
        self, changes: Changes, observer: Observer, links: Links, agents: Agents, chance: Chance, *, kept: int
    ) -> None:
        self._changes = changes
        self._observer = observer
        self._links = links
        self._agents = agents
        self._chance = chance
        self._kept = kept
        self._last: Plan | None = None

    async def round(self) -> bool:
        """Do one round; return whether anything was changed that other reconcilers should look at."""
        world = await self._observer.look()
        demands = [demand(row) for row in world.waiting]
        decisions = route(demands, self._observer.capacity(world)) if demands else []
        placed = await self._place(world, decisions)
        if placed:
            world = await self._observer.look()
        unplaced = self._unplaced(world, decisions, demands)
        proposed = plan(
            self._observer.groups(world, self._last.awaits if self._last else ()),
            unplaced,
            plan_id=new_id(PLAN, self._chance),
            generation=self._last.generation + 1 if self._last else await self._generation(),
            at=self._changes.clock.now(),
        )
        adopted = await self._adopt(world, proposed)
        return placed or adopted

    def _unplaced(self, world: World, decisions: list[Decision], demands: list[Demand]) -> list[Demand]:
        """Return what is left to the planner; nothing while agents may still be on their way back after a start."""
        if self._links.returning and any(self._links.live(agent.id) is None for agent in world.agents):
            return []
        waiting = {row.id for row in world.waiting}
        return [
            asked
            for asked, decision in zip(demands, decisions, strict=True)
            if asked.session in waiting and decision.outcome in (Outcome.LAUNCH, Outcome.WAIT)
        ]

    # -- placement --------------------------------------------------------------------------------

    async def _place(self, world: World, decisions: list[Decision]) -> bool:
        """Store every decision; move what was placed to `starting` and what cannot run anywhere to `held`."""
        rows = {row.id: row for row in world.waiting}
        told = [d for d in decisions if d.outcome in (Outcome.PLACE, Outcome.HOLD) or self._is_news(rows[d.session], d)]
        if not told:
            return False
        async with self._changes.commit("session.place") as change:
            for decision in told:
                row = await change.tx.get(Session, decision.session)
                if row is None or row.state not in WAITING:
                    continue
                await change.tx.decide(row.id, decision, change.now)
                if decision.outcome is Outcome.PLACE:
                    await self._start(change, row, decision)
                elif decision.outcome is Outcome.HOLD:
                    await change.session(
                        row, _S.HELD, decision.reason, decision.message, hint=decision.hint, instance=""
                    )
                else:
                    to = _S.QUEUED if row.state is _S.HELD else row.state
                    await change.session(row, to, decision.reason, decision.message, hint=decision.hint)
        return any(d.outcome is Outcome.PLACE for d in told)

    def _is_news(self, row: Session, decision: Decision) -> bool:
        """A waiting session's text is stored when its reason changes, not with every new number in it."""
        if row.state is _S.PROVISIONING:
            return False
        return row.state is _S.HELD or row.reason is not decision.reason

    async def _start(self, change: Change, row: Session, decision: Decision) -> None:
        members = []
        for rank, offer in enumerate(decision.taken):
            agent = await change.tx.get(Agent, offer.target)
            if agent is None or agent.state is not AgentState.READY or self._links.live(agent.id) is None:
                return
            members.append(Member(rank=rank, agent=agent.id, slots=offer.slots, price=offer.price))
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

    # -- scaling ----------------------------------------------------------------------------------

    async def _generation(self) -> int:
        async with self._changes.look() as tx:
            newest = await tx.find(Plan, newest=True, limit=1)
        return newest[0].generation + 1 if newest else 1

    async def _adopt(self, world: World, proposed: Plan) -> bool:
        """Store a plan that says something new, and make its steps the rows that reconcilers carry out.

        Plan and rows are one commit: a crash leaves either both or none. Each step is checked again
        against the rows of this moment; a stale one does nothing.
        """
        awaited = {row.id: row.instance for row in world.waiting if row.instance}
        changed = {key for key, instance in proposed.awaits if awaited.get(key) != instance}
        freed = set(awaited) - {key for key, _ in proposed.awaits}
        if not (proposed.steps or changed or freed or self._says_more(proposed)):
            return False
        done = []
        async with self._changes.commit("plan.adopt") as change:
            await change.tx.insert(proposed)
            done = [step for step in proposed.steps if await self._adopt_step(change, step)]
            await self._await(change, dict(proposed.awaits), changed | freed)
            if proposed.generation % 50 == 0:
                await self._prune(change)
        self._last = proposed
        self._observer.grew({step.group for step in done if step.action in (Action.LAUNCH, Action.START)})
        for step in done:
            if step.action in (Action.DRAIN, Action.UNDRAIN):
                self._agents.tell_cordon(await self._agents.get(step.agent))
        return bool(done)

    def _says_more(self, proposed: Plan) -> bool:
        if self._last is None:
            return bool(proposed.notes)
        before = {(n.group, n.agent, n.instance, n.session, n.reason) for n in self._last.notes}
        return before != {(n.group, n.agent, n.instance, n.session, n.reason) for n in proposed.notes}

    async def _await(self, change: Change, awaits: dict[str, str], sessions: set[str]) -> None:
        for key in sorted(sessions):
            row = await change.tx.get(Session, key)
            if row is None or row.state not in (_S.QUEUED, _S.PROVISIONING):
                continue
            instance = awaits.get(key, "")
            if instance:
                text = f"waits for instance {instance}"
                await change.session(row, _S.PROVISIONING, Reason.WAITING_FOR_INSTANCE, text, instance=instance)
            else:
                await change.session(row, _S.QUEUED, Reason.NO_FREE_SLOTS, "waits for the router", instance="")

    async def _adopt_step(self, change: Change, step: Step) -> bool:
        if step.action is Action.LAUNCH:
            return await self._intend(change, step)
        if step.action is Action.START:
            group = await change.tx.get(Group, step.group)
            if group is None or not await self._has_room(change, group):
                return False
            return await self._move(change, step, (_I.STOPPED,), _I.STARTING)
        if step.action is Action.TERMINATE and not step.agent:
            return await self._move(change, step, (_I.STOPPED,), _I.ENDING)
        agent = await change.tx.get(Agent, step.agent)
        if agent is None or agent.epoch != step.epoch:
            return False
        if step.action is Action.DRAIN:
            if agent.state is AgentState.READY:
                await drain(change, agent, step.reason, step.message)
            return agent.state is AgentState.READY
        if step.action is Action.UNDRAIN:
            if agent.state is AgentState.DRAINING:
                await undrain(change, agent, step.reason, step.message)
            return agent.state is AgentState.DRAINING
        if not await self._may_end(change, agent):
            return False
        to = _I.STOPPING if step.action is Action.STOP else _I.ENDING
        return await self._move(change, step, (_I.JOINED, _I.DRAINING), to)

    async def _intend(self, change: Change, step: Step) -> bool:
        """Write the launch down before anything is asked of the cloud; the cap counts all that may exist (I5)."""
        group = await change.tx.get(Group, step.group)
        if group is None or step.shape is None or not await self._has_room(change, group):
            return False
        if await change.tx.get(Instance, step.instance):
            return False
        shape = step.shape
        if (provider := await change.tx.get(Provider, group.provider)) and provider.prices.commitments:
            beside = await change.tx.find(Instance, provider=provider.name, state=LIVE)
            shape = self._observer.charged(provider, shape, beside)
        row = Instance(
            id=step.instance,
            provider=group.provider,
            group=group.name,
            site=group.site,
            shape=shape,
            tags=dict(group.labels),
            reason=Reason.INTENDED,
            message=step.message,
            created_at=change.now,
            since=change.now,
        )
        await change.tx.insert(row)
        await change.event("instance", row.id, _I.INTENDED, name=group.name, reason=step.reason, message=step.message)
        return True

    async def _has_room(self, change: Change, group: Group) -> bool:
        """Say whether one more machine of the group may run: all but stopped ones count until they are seen gone."""
        counted = [str(state) for state in _I if state not in (_I.GONE, _I.STOPPED)]
        return len(await change.tx.find(Instance, group=group.name, state=counted)) < group.size.max

    async def _may_end(self, change: Change, agent: Agent) -> bool:
        """The last look before an agent's machine is ended: empty, drained, acknowledged at a newer epoch (I4)."""
        if agent.state is not AgentState.DRAINING or not agent.acknowledged_epoch >= agent.cordon_epoch > 0:
            return False
        return not await change.tx.find(Session, agent=agent.id, state=sorted(PLACED), limit=1)

    async def _move(self, change: Change, step: Step, allowed: tuple[InstanceState, ...], to: InstanceState) -> bool:
        row = await change.tx.get(Instance, step.instance)
        if row is None or row.state not in allowed:
            return False
        await change.instance(row, to, step.reason, step.message)
        return True

    async def _prune(self, change: Change) -> None:
        plans = await change.tx.find(Plan, newest=True)
        for old in plans[self._kept :]:
            await change.tx.delete(Plan, old.id)
