"""Adoption: a plan becomes the rows that reconcilers carry out, in one commit, each step checked again then."""

from dataclasses import replace

from atoll import money
from atoll.agent import Agent
from atoll.group import Group, Provider
from atoll.instance import Instance, Shape
from atoll.plan import Action, Move, Note, Plan, Step
from atoll.session import Session
from atoll.states import LIVE, PLACED, WAITING, AgentState, InstanceState, Reason, SessionState
from federation.control.admission import hold
from federation.control.agents import Agents, drain, undrain
from federation.control.budgets import Budgets
from federation.control.changes import Change, Changes
from federation.control.moves import Moves
from federation.control.spending import Accounts
from federation.control.world import Observer, World

_S, _I = SessionState, InstanceState
_GROWS = (Action.LAUNCH, Action.START, Action.UNDRAIN)


class Adoption:
    """Stores plans that say something new. `last` is the newest adopted one, of this process."""

    def __init__(
        self, changes: Changes, observer: Observer, agents: Agents, budgets: Budgets, moves: Moves, *, kept: int
    ) -> None:
        self.last: Plan | None = None
        self._changes = changes
        self._observer = observer
        self._agents = agents
        self._budgets = budgets
        self._moves = moves
        self._kept = kept
        self._short: dict[str, Note] = {}

    async def generation(self) -> int:
        """Return the number of the next plan."""
        if self.last:
            return self.last.generation + 1
        async with self._changes.look() as tx:
            newest = await tx.find(Plan, newest=True, limit=1)
        return newest[0].generation + 1 if newest else 1

    async def adopt(self, world: World, proposed: Plan) -> set[str] | None:
        """Store a plan and begin it; return the groups that grow by it, None when nothing was begun.

        Plan and rows are one commit: a crash leaves either both or none. Each step is checked again; a stale one,
        one that its budget does not allow and a move that cannot begin (any more) do nothing.
        """
        held = {row.id for row in world.waiting if row.reason is Reason.BUDGET}
        self._short = {group: note for group, note in self._short.items() if note.session in held}
        awaited = {row.id: row.instance for row in world.waiting if row.instance}
        changed = {key for key, instance in proposed.awaits if awaited.get(key) != instance}
        freed = set(awaited) - {key for key, _ in proposed.awaits}
        if not (proposed.steps or proposed.moves or changed or freed or self._says_more(self._with_short(proposed))):
            return None
        async with self._changes.commit("plan.adopt") as change:
            accounts = await self._budgets.open(change)
            begun = [move for move in proposed.moves if not await self._moves.begin(change, move, accounts)]
            done = [step for step in proposed.steps if await self._adopt_step(change, step, accounts)]
            await self._await(change, dict(proposed.awaits), changed | freed, {step.instance for step in done})
            kept = replace(self._with_short(proposed), moves=tuple(begun), steps=tuple(done))
            if done or begun or changed or freed or self._says_more(kept):
                await change.tx.insert(kept)
            if proposed.generation % 50 == 0:
                await self._prune(change)
        self.last = kept
        for step in done:
            if step.action in (Action.DRAIN, Action.UNDRAIN):
                self._agents.tell_cordon(await self._agents.get(step.agent))
        if begun:
            self._moves.on_change()
        return {step.group for step in done if step.action in _GROWS} if done or begun else None

    async def begin(self, moves: list[Move]) -> int:
        """Begin moves that cannot wait for a plan; return how many began."""
        begun = 0
        async with self._changes.commit("session.move") as change:
            accounts = await self._budgets.open(change)
            for move in moves:
                begun += not await self._moves.begin(change, move, accounts)
        if begun:
            self._moves.on_change()
        return begun

    def _with_short(self, proposed: Plan) -> Plan:
        """Return the plan with a note for each group that budgets keep from growing: nothing is steady there."""
        notes = [note for note in proposed.notes if not (note.reason is Reason.STEADY and note.group in self._short)]
        return replace(proposed, notes=(*notes, *self._short.values()))

    def _says_more(self, proposed: Plan) -> bool:
        if self.last is None:
            return bool(proposed.notes)
        before = {(n.group, n.agent, n.instance, n.session, n.reason) for n in self.last.notes}
        return before != {(n.group, n.agent, n.instance, n.session, n.reason) for n in proposed.notes}

    async def _await(self, change: Change, awaits: dict[str, str], sessions: set[str], begun: set[str]) -> None:
        for key in sorted(sessions):
            row = await change.tx.get(Session, key)
            if row is None or row.state not in (_S.QUEUED, _S.PROVISIONING):
                continue
            instance = awaits.get(key, "")
            if instance and (instance in begun or await change.tx.get(Instance, instance)):
                text = f"waits for instance {instance}"
                await change.session(row, _S.PROVISIONING, Reason.WAITING_FOR_INSTANCE, text, instance=instance)
            elif row.state is _S.PROVISIONING:
                await change.session(row, _S.QUEUED, Reason.NO_FREE_SLOTS, "waits for the router", instance="")

    async def _adopt_step(self, change: Change, step: Step, accounts: Accounts) -> bool:
        if step.action is Action.LAUNCH:
            return await self._intend(change, step, accounts)
        if step.action is Action.START:
            return await self._start(change, step, accounts)
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

    async def _start(self, change: Change, step: Step, accounts: Accounts) -> bool:
        group, row = await change.tx.get(Group, step.group), await change.tx.get(Instance, step.instance)
        if group is None or row is None or row.state is not _I.STOPPED or not await self._has_room(change, group):
            return False
        if not await self._is_wanted(change, step) or not await self._admit(change, step, group, row.shape, accounts):
            return False
        return await self._move(change, step, (_I.STOPPED,), _I.STARTING)

    async def _is_wanted(self, change: Change, step: Step) -> bool:
        """Say whether a machine still serves a session that it is for; rows change while a plan is made."""
        rows = [await change.tx.get(Session, key) for key in step.sessions]
        return not rows or any(row is not None and (row.state in WAITING or row.moving is not None) for row in rows)

    async def _admit(self, change: Change, step: Step, group: Group, shape: Shape, accounts: Accounts) -> bool:
        """Ask the budgets for a machine; where they have no room, hold who it was for, and note it for the group."""
        why = accounts.launch(shape, step.sessions, group.scale_down.idle_s)
        if why is None:
            return True
        for key in step.sessions:
            if waiting := await change.tx.get(Session, key):
                await hold(change, waiting, why)
        text = f"{shape.key} at {money.text(shape.price or 0)} an hour is not made: {why.message}; {why.hint}"
        session = step.sessions[0] if step.sessions else ""
        self._short[group.name] = Note(group=group.name, reason=why.reason, message=text, session=session)
        return False

    async def _intend(self, change: Change, step: Step, accounts: Accounts) -> bool:
        """Write the launch down before anything is asked of the cloud; the cap counts all that may exist (I5)."""
        group = await change.tx.get(Group, step.group)
        if group is None or step.shape is None or not await self._has_room(change, group):
            return False
        if not await self._is_wanted(change, step):
            return False
        if await change.tx.get(Instance, step.instance):
            return False
        shape = step.shape
        if (provider := await change.tx.get(Provider, group.provider)) and provider.prices.commitments:
            beside = await change.tx.find(Instance, provider=provider.name, state=LIVE)
            shape = self._observer.charged(provider, shape, beside)
        if not await self._admit(change, step, group, shape, accounts):
            return False
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
        if to is _I.ENDING:
            await change.end(row, step.reason, step.message)
        else:
            await change.instance(row, to, step.reason, step.message)
        return True

    async def _prune(self, change: Change) -> None:
        plans = await change.tx.find(Plan, newest=True)
        for old in plans[self._kept :]:
            await change.tx.delete(Plan, old.id)
