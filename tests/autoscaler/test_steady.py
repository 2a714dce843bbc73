"""I10: with demand unchanged, a group that was made smaller is not made larger again."""

import dataclasses

from hypothesis import given, settings

from atoll.plan import Action, Plan
from atoll.states import AgentState
from autoscaler.view import AgentView, ColdView, GroupView
from tests.autoscaler.builders import agent, decide
from tests.autoscaler.test_properties import WORLDS

ROUND_S = 40.0


def next_round(found: GroupView, made: Plan) -> GroupView:
    """Return the group one round later: every step succeeded, drains are acknowledged, launches have joined."""
    mine = {step.instance: step for step in made.steps if step.group == found.group.name}
    agents: list[AgentView] = []
    cold: list[ColdView] = [one for one in found.cold if one.instance not in mine]
    for one in found.agents:
        aged = dataclasses.replace(one, idle_s=0 if one.sessions else one.idle_s + ROUND_S, connected=True)
        step = mine.get(one.instance)
        if step is None:
            agents.append(aged)
        elif step.action is Action.DRAIN:
            drained = dataclasses.replace(aged, state=AgentState.DRAINING, cordon_epoch=8, acknowledged_epoch=8)
            agents.append(drained)
        elif step.action is Action.UNDRAIN:
            agents.append(dataclasses.replace(aged, state=AgentState.READY))
        elif step.action is Action.STOP:
            cold.append(ColdView(instance=one.instance, shape=one.shape))
    for step in mine.values():
        if step.action in {Action.LAUNCH, Action.START} and step.shape:
            agents.append(dataclasses.replace(agent(on=step.shape, idle_s=0), id=step.instance, instance=step.instance))
    joined = [
        dataclasses.replace(agent(on=p.shape, idle_s=0), id=p.instance, instance=p.instance) for p in found.pending
    ]
    grew = any(step.action in {Action.LAUNCH, Action.START, Action.UNDRAIN} for step in mine.values())
    return dataclasses.replace(
        found,
        agents=(*agents, *joined),
        pending=(),
        cold=tuple(cold),
        ending=0,
        since_growth_s=0.0 if grew or joined else found.since_growth_s + ROUND_S,
        settled=True,
    )


def without_notices(found: GroupView) -> GroupView:
    calm = [dataclasses.replace(one, notice=False, by_user=False, connected=True) for one in found.agents]
    return dataclasses.replace(found, agents=tuple(calm))


def crammed(world: list[GroupView]) -> set[str]:
    """Return the groups at their size.max whose hot pool may still want another machine: a drain makes room for it."""
    return {
        found.group.name
        for found in world
        if found.group.pools.hot_count and len(found.agents) + len(found.pending) + found.ending >= found.group.size.max
    }


@settings(max_examples=200)
@given(WORLDS)
def test_no_growth_after_a_drain_and_every_world_comes_to_rest(world: list[GroupView]) -> None:
    world = [without_notices(found) for found in world]
    shrunk: set[str] = set()
    made = decide(world)
    for number in range(12):
        made = dataclasses.replace(decide(world), id=f"p-{number}")
        names = {step.instance: f"{step.instance}-{number}" for step in made.steps if step.action is Action.LAUNCH}
        made = dataclasses.replace(
            made,
            steps=tuple(dataclasses.replace(s, instance=names.get(s.instance, s.instance)) for s in made.steps),
        )
        for step in made.steps:
            if step.action is Action.DRAIN and step.group not in crammed(world):
                shrunk.add(step.group)
            if step.action in {Action.LAUNCH, Action.START, Action.UNDRAIN}:
                assert step.group not in shrunk, f"round {number}: {step.action} after a drain"
        world = [next_round(found, made) for found in world]
    assert made.steps == (), "still acting after 12 rounds"
