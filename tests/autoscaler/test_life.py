"""Groups through their life: whatever happens to them, no plan breaks a promise (I4, I5, I10, I12)."""

import dataclasses
import random
from collections import Counter
from dataclasses import dataclass, field

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from atoll.group import Group, GroupKind, Pools, ScaleDown, Size
from atoll.instance import Shape
from atoll.offer import Demand
from atoll.plan import Action, Plan, Step
from atoll.session import Checkpoint
from atoll.slots import Slots
from atoll.states import AgentState, Reason
from autoscaler.demand import may_use
from autoscaler.plan import plan
from autoscaler.pools import hot_fits
from autoscaler.predict import Ready
from autoscaler.shrink import WIND_UP_S
from autoscaler.view import AgentView, ColdView, GroupView, PendingView, RunningView
from tests.autoscaler.builders import demand, request, shape

SHAPES = (
    shape(4, 100_000),
    shape(4, 40_000, spot=True),
    shape(8, 190_000),
    dataclasses.replace(shape(2, 60_000), billing_s=3600.0),
)
COOLDOWN_S, IDLE_S = 60.0, 90.0
ACCIDENTS = ("notice", "link", "cordon", "drain", "uncordon", "crash")
SAVES = Checkpoint(lost=30, grace=20, every=600)


@dataclass
class Session:
    """A session of the model: waiting while `agent` is empty."""

    demand: Demand
    protect: bool = False
    saves: bool = False
    agent: str = ""
    since: float = 0.0
    attempt: int = 1


@dataclass
class Machine:
    """A machine of the model, until it is gone."""

    id: str
    shape: Shape
    state: str = "pending"  # ready, draining, cold, ending
    cordon: int = 0
    acknowledged: int = 0
    epoch: int = 1
    connected: bool = True
    notice: bool = False
    by_user: bool = False
    due_at: float | None = None
    idle_at: float = 0.0
    made_at: float = 0.0


@dataclass
class World:
    """One elastic group, its machines and all sessions, on a clock of its own."""

    group: Group
    now: float = 1000.0
    machines: list[Machine] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)
    blocked: dict[str, str] = field(default_factory=dict)
    grew_at: float = -1e9
    settled_at: float = 0.0
    hot: int | None = None
    predicted: Ready = field(default_factory=Ready)
    plans: int = 0

    def on(self, machine: Machine) -> list[Session]:
        return [one for one in self.sessions if one.agent == machine.id]

    def free(self, machine: Machine) -> Slots:
        left = machine.shape.slots
        for one in self.on(machine):
            taken = left.take(one.demand.request)
            assert taken is not None, "overcommitted"
            left = left - taken
        return left

    def serving(self) -> list[Machine]:
        return [m for m in self.machines if m.state == "ready" and m.connected and not m.notice]

    def counted(self) -> int:
        return sum(m.state != "cold" for m in self.machines)

    def view(self) -> GroupView:
        shown = [m for m in self.machines if m.state in ("ready", "draining")]
        return GroupView(
            group=self.group,
            agents=tuple(self._agent(m) for m in shown),
            pending=tuple(PendingView(instance=m.id, shape=m.shape) for m in self.machines if m.state == "pending"),
            cold=tuple(ColdView(instance=m.id, shape=m.shape) for m in self.machines if m.state == "cold"),
            ending=sum(m.state == "ending" for m in self.machines),
            shapes=SHAPES,
            blocked=dict(self.blocked),
            since_growth_s=self.now - self.grew_at,
            settled=self.now >= self.settled_at,
            hot=self.hot,
            predicted=self.predicted,
        )

    def _agent(self, m: Machine) -> AgentView:
        mine = self.on(m)
        return AgentView(
            id=f"a-{m.id}",
            instance=m.id,
            shape=m.shape,
            capacity=m.shape.slots,
            free=self.free(m),
            sessions=tuple(one.demand.session for one in mine),
            protected=any(one.protect for one in mine),
            running=tuple(self._running(one) for one in mine),
            idle_s=0.0 if mine or not m.connected else self.now - m.idle_at,
            paid_s=-(self.now - m.made_at) % m.shape.billing_s,
            state=AgentState.READY if m.state == "ready" else AgentState.DRAINING,
            connected=m.connected,
            epoch=m.epoch,
            cordon_epoch=m.cordon,
            acknowledged_epoch=m.acknowledged,
            notice=m.notice,
            by_user=m.by_user,
            drain_left_s=None if m.due_at is None else m.due_at - self.now,
        )

    def _running(self, one: Session) -> RunningView:
        return RunningView(
            session=one.demand.session,
            attempt=one.attempt,
            demand=one.demand,
            ran_s=self.now - one.since,
            left_s=max(3600.0, self.now - one.since),
            checkpoint=SAVES if one.saves else None,
            protected=one.protect,
        )


class Life(RuleBasedStateMachine):
    """Rules are what may happen outside; after each, a round places sessions, plans, and carries the plan out."""

    @initialize(
        least=st.integers(0, 2),
        room=st.integers(1, 5),
        hot=st.integers(0, 2),
        cold=st.integers(0, 1),
        consolidate=st.booleans(),
    )
    def begin(self, least: int, room: int, hot: int, cold: int, consolidate: bool) -> None:
        group = Group(
            name="g",
            site="s",
            kind=GroupKind.ELASTIC,
            provider="sim",
            size=Size(min=least, max=least + room),
            pools=Pools(hot=request(2), hot_count=hot, cold=cold),
            scale_down=ScaleDown(idle_s=IDLE_S, cooldown_s=COOLDOWN_S, consolidate=consolidate),
        )
        self.world = World(group)
        self.made = 0
        self.said: Counter[str] = Counter()

    @rule(
        cpu=st.sampled_from((0.5, 1, 2, 4, 8)),
        count=st.integers(1, 4),
        nodes=st.sampled_from((1, 1, 1, 2)),
        spot=st.booleans(),
        protect=st.sampled_from((False, False, True)),
        saves=st.booleans(),
    )
    def sessions_come(self, cpu: float, count: int, nodes: int, spot: bool, protect: bool, saves: bool) -> None:
        for _ in range(count):
            self.made += 1
            asked = demand(f"s-{self.made}", cpu, nodes=nodes, spot=spot)
            self.world.sessions.append(Session(asked, protect, saves and nodes == 1))

    @rule(ended=st.sets(st.integers(0, 9)))
    def sessions_end(self, ended: set[int]) -> None:
        for one in [one for n, one in enumerate(self.world.sessions) if n in ended]:
            self._idle(one.agent)
            self.world.sessions.remove(one)

    @rule()
    def all_sessions_end(self) -> None:
        self.sessions_end(set(range(len(self.world.sessions))))

    @rule(seconds=st.sampled_from((1.0, 20.0, 70.0, 100.0, 700.0, 3500.0)))
    def time_passes(self, seconds: float) -> None:
        self.world.now += seconds

    @rule(seconds=st.sampled_from((10.0, 50.0, 100.0)), rounds=st.integers(1, 5))
    def all_goes_well(self, seconds: float, rounds: int) -> None:
        for n in range(rounds):
            self.world.now += seconds
            self.machines_join(9)
            self.drains_are_acknowledged()
            self.machines_are_seen_gone()
            for m in self.world.machines:
                m.idle_at, m.connected = m.idle_at if m.connected else self.world.now, True
            if n + 1 < rounds:
                self.a_round()

    @rule(many=st.integers(1, 6))
    def machines_join(self, many: int) -> None:
        for m in [m for m in self.world.machines if m.state == "pending"][:many]:
            m.state, m.idle_at = "ready", self.world.now

    @rule()
    def drains_are_acknowledged(self) -> None:
        for m in self.world.machines:
            if m.state == "draining" and m.connected:
                m.acknowledged = m.cordon

    @rule()
    def machines_are_seen_gone(self) -> None:
        self.world.machines = [m for m in self.world.machines if m.state != "ending"]

    @precondition(lambda self: self.world.machines)
    @rule(which=st.integers(0, 9), what=st.sampled_from(ACCIDENTS))
    def something_happens_to_one(self, which: int, what: str) -> None:
        m = self.world.machines[which % len(self.world.machines)]
        if m.state not in ("ready", "draining"):
            return
        if what == "notice" and m.shape.spot:
            m.notice = True
        elif what == "link":
            m.connected, m.idle_at = not m.connected, self.world.now
        elif what in ("cordon", "drain") and m.state == "ready":
            self._drain(m, by_user=True)
            m.due_at = self.world.now + 100.0 if what == "drain" else None
        elif what == "uncordon" and m.by_user:
            m.state, m.by_user, m.due_at, m.cordon = "ready", False, None, 0
        elif what == "crash":
            self._gone(m)

    @rule(keys=st.sets(st.sampled_from([each.key for each in SHAPES]), max_size=2))
    def offers_change(self, keys: set[str]) -> None:
        self.world.blocked = dict.fromkeys(sorted(keys), "no capacity")

    @rule()
    def the_control_plane_restarts(self) -> None:
        self.world.settled_at = self.world.now + 50.0

    @rule(hot=st.sampled_from((None, 0, 3)), ahead=st.integers(0, 2), more=st.integers(0, 2))
    def the_hour_strikes(self, hot: int | None, ahead: int, more: int) -> None:
        self.world.hot, self.world.predicted = hot, Ready(ahead, ahead + more)

    @invariant()
    def a_round(self) -> None:
        if not hasattr(self, "world"):
            return
        self._place()
        world, found = self.world, self.world.view()
        waiting = [one.demand for one in world.sessions if not one.agent]
        world.plans += 1
        made = plan([found], waiting, plan_id=f"p-{world.plans}", generation=world.plans, at=world.now)
        assert made == plan([found], waiting, plan_id=f"p-{world.plans}", generation=world.plans, at=world.now)
        self.said += Counter(step.action for step in made.steps)
        self.said += Counter(one.reason for ones in (made.steps, made.notes, made.moves) for one in ones)
        self._check_safety(made, found)
        self._check_pools(made, found)
        self._check_no_flapping(made, found)
        self._check_moves(made)
        for step in made.steps:
            self._carry_out(step)
        for move in made.moves:
            self._move(move.session, move.to[0].target.removeprefix("a-") if move.to else "")
        assert world.counted() <= world.group.size.max + sum(m.state == "ending" for m in world.machines)

    # -- what must hold -----------------------------------------------------------------------------

    def _check_safety(self, made: Plan, found: GroupView) -> None:
        agents = {one.id: one for one in found.agents}
        for step in made.steps:
            one = agents.get(step.agent)
            if step.action in (Action.TERMINATE, Action.STOP, Action.DRAIN):
                assert found.settled, "I12"
            if step.action in (Action.TERMINATE, Action.STOP) and step.agent:
                assert one
                assert not one.sessions, "I4"
                assert not one.protected
                assert one.state is AgentState.DRAINING
                assert one.acknowledged_epoch >= one.cordon_epoch > 0, "I4"
            if step.action is Action.DRAIN:
                assert one
                assert one.state is AgentState.READY
                assert one.notice or (not one.sessions and one.connected and one.idle_s >= IDLE_S)
                assert one.notice or one.paid_s <= WIND_UP_S or len(found.agents) > found.group.size.max
            if step.action is Action.UNDRAIN:
                assert one
                assert one.state is AgentState.DRAINING
                assert not one.by_user
                assert not one.notice
        grown = sum(step.action in (Action.LAUNCH, Action.START) for step in made.steps)
        live = len(found.agents) + len(found.pending) + found.ending
        assert not grown or live + grown <= found.group.size.max, "I5"
        told = {step.agent for step in made.steps} | {note.agent for note in made.notes}
        assert set(agents) <= told, "every agent has a step or a reason"

    def _check_pools(self, made: Plan, found: GroupView) -> None:
        """A drain of an idle agent leaves the least size, and the hot pool as full as it was or is to be."""
        drained = {step.agent for step in made.steps if step.action is Action.DRAIN and step.reason is Reason.IDLE}
        ready = [one for one in found.agents if one.state is AgentState.READY and one.connected and not one.notice]
        left = [one for one in ready if one.id not in drained]
        if drained:
            assert len(left) + len(found.pending) >= found.group.size.min
        hot, count = found.group.pools.hot, found.hot_count + found.predicted.keep
        before = hot_fits(hot, count, [*(o.free for o in ready), *(p.shape.slots for p in found.pending)])
        after = hot_fits(hot, count, [*(o.free for o in left), *(p.shape.slots for p in found.pending)])
        assert after >= before

    def _check_no_flapping(self, made: Plan, found: GroupView) -> None:
        """I10: nothing idle goes within the cooldown or while the plan grows, and nothing is bought and thrown away."""
        idle = [step for step in made.steps if step.action is Action.DRAIN and step.reason is Reason.IDLE]
        grows = [step for step in made.steps if step.action in (Action.LAUNCH, Action.START, Action.UNDRAIN)]
        assert not (idle and grows)
        assert not idle or self.world.now - self.world.grew_at >= COOLDOWN_S
        bought = {(s.shape.key, s.shape.price) for s in made.steps if s.action is Action.LAUNCH and s.shape}
        agents = {one.id: one for one in found.agents}
        for step in made.steps:
            if step.action in (Action.TERMINATE, Action.STOP) and step.agent:
                one = agents[step.agent]
                if one.connected and not one.by_user and not one.notice:
                    assert (one.shape.key, one.shape.price) not in bought

    def _check_moves(self, made: Plan) -> None:
        by_id = {one.demand.session: one for one in self.world.sessions}
        for move in made.moves:
            one = by_id[move.session]
            source = next(m for m in self.world.machines if m.id == one.agent)
            assert one.saves
            assert one.attempt == move.attempt
            if move.reason is Reason.CONSOLIDATION:
                assert not one.protect
                assert self.world.now - one.since >= SAVES.every
                assert all(each.saves for each in self.world.on(source))
            else:
                assert source.notice or (source.by_user and source.due_at is not None)

    # -- what the rest of the installation does -----------------------------------------------------

    def _place(self) -> None:
        for one in self.world.sessions:
            for m in self.world.serving():
                fits = self.world.free(m).take(one.demand.request)
                if not one.agent and one.demand.nodes == 1 and fits and may_use(one.demand, self.world.group, m.shape):
                    one.agent, one.since, one.attempt = m.id, self.world.now, one.attempt + 1

    def _carry_out(self, step: Step) -> None:
        world = self.world
        known = {m.id: m for m in world.machines}
        if step.action is Action.LAUNCH:
            assert step.shape
            world.machines.append(Machine(step.instance, step.shape, made_at=world.now))
        elif step.action is Action.START:
            known[step.instance].state, known[step.instance].made_at = "pending", world.now
        elif step.action is Action.DRAIN:
            self._drain(known[step.instance], by_user=False)
        elif step.action is Action.UNDRAIN:
            m = known[step.instance]
            m.state, m.cordon, m.acknowledged, m.epoch = "ready", 0, 0, m.epoch + 1
        else:
            assert not world.on(known[step.instance])
            known[step.instance].state = "cold" if step.action is Action.STOP else "ending"
        if step.action in (Action.LAUNCH, Action.START, Action.UNDRAIN):
            world.grew_at = world.now

    def _drain(self, m: Machine, *, by_user: bool) -> None:
        m.epoch += 1
        m.state, m.cordon, m.acknowledged, m.by_user = "draining", m.epoch, 0, by_user

    def _gone(self, m: Machine) -> None:
        for one in self.world.on(m):
            one.agent = ""
        self.world.machines.remove(m)

    def _move(self, session: str, to: str) -> None:
        one = next(each for each in self.world.sessions if each.demand.session == session)
        self._idle(one.agent)
        one.agent, one.since, one.attempt = to, self.world.now, one.attempt + 1

    def _idle(self, machine: str) -> None:
        for m in self.world.machines:
            if m.id == machine:
                m.idle_at = self.world.now


def test_long_lives() -> None:
    """The same rules at random, for longer than hypothesis would: everything that a plan can say is said."""
    said: Counter[str] = Counter()
    for seed in range(40):
        chance, life = random.Random(seed), Life()
        life.begin(
            chance.randint(0, 2), chance.randint(1, 5), chance.randint(0, 2), chance.randint(0, 1), seed % 2 == 0
        )
        for _ in range(120):
            live(life, chance)
            life.a_round()
        said += life.said
    for action in Action:
        assert said[action] > 3, action
    for reason in (
        Reason.PAID_FOR, Reason.PREDICTED, Reason.HOT_POOL, Reason.CONSOLIDATION, Reason.SPOT_NOTICE, Reason.USER,
        Reason.SPOT_FALLBACK, Reason.SETTLING, Reason.COOLDOWN, Reason.MIN_SIZE,
    ):  # fmt: skip
        assert said[reason] > 3, reason


def live(life: "Life", chance: random.Random) -> None:
    """Let one of the things happen that the rules know, those that go well most often."""
    what = chance.randint(0, 11)
    world = life.world
    if what < 4:
        life.all_goes_well(chance.choice((10.0, 50.0, 100.0)), chance.randint(1, 5))
    elif what == 4:
        cpu, nodes = chance.choice((0.5, 1, 2, 4, 8)), chance.choice((1, 1, 1, 2))
        protect, saves = chance.random() < 0.2, chance.random() < 0.7
        life.sessions_come(cpu, chance.randint(1, 4), nodes, chance.random() < 0.5, protect, saves)
    elif what == 5:
        life.sessions_end({n for n in range(len(world.sessions)) if chance.random() < 0.5})
    elif what == 6 and chance.random() < 0.3:
        life.all_sessions_end()
    elif what == 7 and world.machines:
        life.something_happens_to_one(chance.randint(0, 9), chance.choice(ACCIDENTS))
    elif what == 8:
        life.offers_change({each.key for each in SHAPES if chance.random() < 0.2})
    elif what == 9 and chance.random() < 0.3:
        life.the_control_plane_restarts()
    elif what == 10:
        ahead = chance.choice((0, 0, 1))
        life.the_hour_strikes(chance.choice((None, None, 0, 3)), ahead, chance.choice((0, 0, 2)))
    else:
        life.time_passes(chance.choice((1.0, 20.0, 700.0)))


Life.TestCase.settings = settings(max_examples=50, stateful_step_count=40, suppress_health_check=list(HealthCheck))
TestLife = Life.TestCase
