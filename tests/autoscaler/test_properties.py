"""What holds for every plan: bounds, safety, exact room, and that a plan carried out is enough."""

import dataclasses
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.instance import Shape
from atoll.offer import Demand
from atoll.plan import Action, Plan
from atoll.states import AgentState
from autoscaler.view import AgentView, ColdView, GroupView, PendingView
from tests.autoscaler.builders import agent, decide, demand, group, request, shape, slots, steps

SHAPES = (
    shape(1, 40_000),
    shape(4, 100_000),
    shape(4, 45_000, "m4s", spot=True),
    shape(16, 350_000),
    shape(has=slots(8, 32, "L4", 1), price=600_000, name="g1"),
    shape(4, None, "unpriced"),
)


@st.composite
def agents(draw: st.DrawFn, name: str) -> AgentView:
    made = draw(st.sampled_from(SHAPES[:5]))
    busy = draw(st.booleans())
    cordon = draw(st.integers(0, 3))
    return agent(
        name,
        on=made,
        sessions=("s-busy",) if busy else (),
        protected=busy and draw(st.booleans()),
        idle_s=0 if busy else draw(st.sampled_from((0, 500))),
        state=draw(st.sampled_from((AgentState.READY, AgentState.DRAINING))),
        connected=draw(st.sampled_from((True, True, False))),
        cordon=cordon,
        acknowledged=draw(st.integers(0, 3)),
        notice=draw(st.sampled_from((False, False, True))),
        by_user=draw(st.sampled_from((False, False, True))),
    )


@st.composite
def views(draw: st.DrawFn, name: str) -> GroupView:
    count = draw(st.integers(0, 4))
    return GroupView(
        group=group(
            name,
            least=draw(st.integers(0, 2)),
            most=draw(st.integers(2, 12)),
            hot=request(2),
            hot_count=draw(st.integers(0, 2)),
            cold=draw(st.integers(0, 1)),
        ),
        agents=tuple(draw(agents(f"a-{name}{n}")) for n in range(count)),
        pending=tuple(
            PendingView(instance=f"i-{name}p{n}", shape=draw(st.sampled_from(SHAPES[:5])))
            for n in range(draw(st.integers(0, 2)))
        ),
        cold=tuple(
            ColdView(instance=f"i-{name}c{n}", shape=draw(st.sampled_from(SHAPES[:5])))
            for n in range(draw(st.integers(0, 2)))
        ),
        ending=draw(st.integers(0, 1)),
        shapes=tuple(draw(st.sets(st.sampled_from(SHAPES), max_size=6).map(sorted_shapes))),
        blocked=draw(st.sampled_from(({}, {SHAPES[1].key: "no capacity"}))),
        since_growth_s=draw(st.sampled_from((0.0, 100.0))),
        settled=draw(st.sampled_from((True, True, False))),
    )


def sorted_shapes(found: set[Shape]) -> list[Shape]:
    return sorted(found, key=lambda one: one.key)


@st.composite
def crowds(draw: st.DrawFn) -> list[Demand]:
    return [
        demand(
            f"s-{n}",
            draw(st.sampled_from((0.5, 1, 2, 3, 16))),
            gpu=draw(st.sampled_from((0, 0, 0, 0.5, 1))),
            nodes=draw(st.sampled_from((1, 1, 1, 1, 2, 3))),
            groups=draw(st.sampled_from(((), (), ("x",)))),
            max_price=draw(st.sampled_from((None, None, 30_000))),
            spot=draw(st.booleans()),
        )
        for n in range(draw(st.integers(0, 12)))
    ]


WORLDS = st.tuples(views("x"), views("y")).map(list)


def growth(made: Plan, name: str) -> int:
    grows = (Action.LAUNCH, Action.START)
    return sum(step.group == name and step.action in grows for step in made.steps)


@settings(max_examples=300)
@given(WORLDS, crowds())
def test_bounds_safety_and_exact_room(world: list[GroupView], waiting: list[Demand]) -> None:
    made = decide(world, waiting)
    assert made == decide(world, waiting)
    known = {one.id: (one, found) for found in world for one in found.agents}
    for found in world:
        live = len(found.agents) + len(found.pending) + found.ending
        assert growth(made, found.group.name) == 0 or live + growth(made, found.group.name) <= found.group.size.max
    for step in made.steps:
        if step.action is Action.LAUNCH:
            assert step.shape is not None
            assert step.shape.price
        if step.action is Action.TERMINATE and not step.agent:
            [home] = [found for found in world if found.group.name == step.group]
            assert step.instance in {cold.instance for cold in home.cold}
            assert step.instance not in {instance for _, instance in made.awaits}
            assert len(home.cold) + home.stopping > home.group.pools.cold
            assert home.settled
        elif step.action in {Action.TERMINATE, Action.STOP}:
            one, found = known[step.agent]
            assert not one.sessions
            assert not one.protected
            assert one.state is AgentState.DRAINING
            assert one.acknowledged_epoch >= one.cordon_epoch > 0
            assert found.settled
        if step.action is Action.DRAIN:
            one, found = known[step.agent]
            assert found.settled
            assert one.notice or (not one.sessions and one.connected and one.idle_s >= 60)
    assert len({step.agent for step in made.steps if step.agent}) == sum(bool(step.agent) for step in made.steps)
    check_room(made, world, waiting)


def check_room(made: Plan, world: list[GroupView], waiting: list[Demand]) -> None:
    """No machine is promised more than it has, and no gang is served in part or twice on one machine."""
    free = {p.instance: p.shape.slots for found in world for p in found.pending}
    free |= {c.instance: c.shape.slots for found in world for c in found.cold}
    free |= {step.instance: step.shape.slots for step in made.steps if step.action is Action.LAUNCH and step.shape}
    asks = {one.session: one for one in waiting}
    for session, instance in made.awaits:
        taken = free[instance].take(asks[session].request)
        assert taken is not None, "overcommitted"
        free[instance] = free[instance] - taken
    assert max(Counter(made.awaits).values(), default=1) == 1, "a gang twice on one machine"
    members = Counter(session for session, _ in made.awaits)
    assert all(count <= asks[session].nodes for session, count in members.items())


def carried_out(made: Plan, found: GroupView) -> GroupView:
    """Return the group once the plan's launches are pending and taken-back agents ready; nothing has ended yet."""
    waiting = {instance: tuple(s for s, i in made.awaits if i == instance) for _, instance in made.awaits}
    started = {step.instance for step in steps(made, Action.START)}
    back = {step.agent for step in steps(made, Action.UNDRAIN)}
    new = [
        PendingView(instance=step.instance, shape=step.shape, sessions=waiting.get(step.instance, ()))
        for step in made.steps
        if step.group == found.group.name and step.action in {Action.LAUNCH, Action.START} and step.shape
    ]
    return dataclasses.replace(
        found,
        pending=(
            *(dataclasses.replace(p, sessions=waiting.get(p.instance, ())) for p in found.pending),
            *new,
        ),
        cold=tuple(c for c in found.cold if c.instance not in started),
        agents=tuple(dataclasses.replace(a, state=AgentState.READY) if a.id in back else a for a in found.agents),
    )


@settings(max_examples=300)
@given(WORLDS, crowds())
def test_a_plan_carried_out_is_enough(world: list[GroupView], waiting: list[Demand]) -> None:
    first = decide(world, waiting)
    back = {session for step in steps(first, Action.UNDRAIN) for session in step.sessions}
    awaited = Counter(session for session, _ in first.awaits)
    taken = [one for one in waiting if one.nodes == 1 and one.session in back]  # the router places those now
    rest = [one for one in waiting if one not in taken and (one.nodes == 1 or awaited[one.session] == one.nodes)]
    world = [occupied(carried_out(first, found), first, taken) for found in world]
    second = decide(world, rest)
    assert not steps(second, Action.LAUNCH), "launched again for the same demand"
    assert not steps(second, Action.START)


def occupied(found: GroupView, made: Plan, placed: list[Demand]) -> GroupView:
    """Return the group with `placed` running on the agents that were taken back for them."""
    asks = {one.session: one.request for one in placed}
    changed = []
    for one in found.agents:
        free = one.free
        for step in steps(made, Action.UNDRAIN):
            for session in step.sessions if step.agent == one.id else ():
                taken = free.take(asks[session]) if session in asks else None
                free = free - taken if taken else free
        changed.append(dataclasses.replace(one, free=free))
    return dataclasses.replace(found, agents=tuple(changed))


def test_a_thousand_sessions_are_all_served_without_waste() -> None:
    crowd = [demand(f"s-{n}", 1 + n % 4) for n in range(1000)]
    made = decide(GroupView(group=group(most=10_000), shapes=SHAPES), crowd)
    assert len(made.awaits) == 1000
    cost = sum(step.shape.price or 0 for step in made.steps if step.shape)
    assert cost <= 1.05 * 2500 / 4 * 45_000
