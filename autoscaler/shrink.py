"""Scale-in: which agents to drain, which drained ones to end, and why all others are kept.

An agent goes in two steps and two plans: drained when it is empty and idle, ended once it has
acknowledged the drain with its session list and is still empty (I4).
"""

from collections.abc import Sequence

from atoll.group import GroupKind
from atoll.plan import Action, Note, Step
from atoll.states import AgentState, Reason
from autoscaler.fleet import Fleet, Machine, Standing
from autoscaler.limits import Ceiling
from autoscaler.pools import hot_fits, hot_sizes, staying
from autoscaler.view import AgentView, GroupView

Verdict = tuple[Reason, str]

WIND_UP_S = 120.0
"""How long before the end of a paid hour an idle machine is drained: two rounds, its acknowledgement, its cloud."""


_PROTECTED = {
    Reason.PROTECTED: "runs a protected session",
    Reason.LONG_RUNNING: "runs a session that has run for so long that it is protected",
}
_HOT = {
    Reason.HOT_POOL: "the hot pool needs its free slots",
    Reason.PREDICTED: "the group's history says that its free slots will soon be wanted",
}


class Shrink:
    """One group's scale-in within one plan.

    `grows` says that the same plan makes the group larger; `stuck` are account limits for which sessions wait.
    """

    def __init__(self, fleet: Fleet, view: GroupView, *, grows: bool, stuck: Sequence[Ceiling] = ()) -> None:
        self._view = view
        self._stuck = [ceiling for ceiling in stuck if ceiling.provider == view.group.provider]
        self._group = view.group
        self._grows = grows
        self._used = {m.agent.id for m in fleet.machines if m.agent is not None and m.wanted}
        self._sizes = hot_sizes(view, view.predicted.keep)
        most = max((count for count, _ in self._sizes), default=0)
        hot = view.group.pools.hot
        self._staying = {m.instance: hot_fits(hot, most, [m.free]) for m in staying(fleet, view.group.name)}
        self._fits = sum(self._staying.values())
        self._cold = len(view.cold) + view.stopping
        self._keeps_cold = min(view.group.pools.cold, view.group.size.max)
        self._spare = [
            m for m in fleet.machines if m.standing is Standing.COLD and m.group is view.group and not m.wanted
        ]
        self.steps: list[Step] = []
        self.notes: list[Note] = []

    def decide(self) -> None:
        """Fill `steps` and `notes`: at least one of them for every agent of an elastic group."""
        if self._group.kind is not GroupKind.ELASTIC:
            return
        for agent in sorted(self._view.agents, key=lambda a: (-(a.shape.price or 0), -a.idle_s, a.id)):
            if agent.id in self._used and agent.state is AgentState.DRAINING:
                continue  # taken back by a step of its own
            if agent.state is AgentState.DRAINING:
                self._end(agent)
            elif agent.state is AgentState.READY:
                self._drain(agent)
        self._thin_cold()

    def _thin_cold(self) -> None:
        """End stopped machines beyond the cold pool's count, the dearest first, and those that hold others up.

        A stopped machine keeps its share of its account's limits.
        """
        excess = self._cold - self._keeps_cold
        if not self._view.settled:
            return
        for n, machine in enumerate(sorted(self._spare, key=lambda m: (-(m.shape.price or 0), m.instance))):
            held = next((ceiling for ceiling in self._stuck if ceiling.takes(machine.shape)), None)
            if n < excess:
                self._end_cold(machine, Reason.COLD_POOL, f"the cold pool keeps {self._keeps_cold}")
            elif held:
                self._end_cold(machine, Reason.QUOTA, f"sessions wait for its share of limit {held.name!r}")

    def _end_cold(self, machine: Machine, reason: Reason, message: str) -> None:
        self.steps.append(
            Step(
                action=Action.TERMINATE,
                group=self._group.name,
                reason=reason,
                message=message,
                instance=machine.instance,
            )
        )

    def _drain(self, agent: AgentView) -> None:
        if agent.notice:
            if self._view.settled:
                self._step(Action.DRAIN, agent, Reason.SPOT_NOTICE, "its cloud takes the machine back")
            else:
                self._note(agent, (Reason.SETTLING, "the control plane has just started"))
            return
        keep = self._why_keep(agent)
        if keep:
            self._note(agent, keep)
            return
        self._fits -= self._staying.pop(agent.instance, 0)
        self._step(Action.DRAIN, agent, Reason.IDLE, f"empty for {agent.idle_s:.0f} s")

    def _why_keep(self, agent: AgentView) -> Verdict | None:
        rules = self._group.scale_down
        if agent.protected:
            return agent.protected_why, _PROTECTED[agent.protected_why]
        if agent.sessions:
            return Reason.BUSY, f"runs {len(agent.sessions)} sessions"
        if not agent.connected:
            return Reason.DISCONNECTED, "its link is down: what it runs is not known"
        if agent.id in self._used:
            return Reason.DEMAND, "a waiting gang counts on it"
        if agent.idle_s < rules.idle_s:
            return Reason.NOT_IDLE_LONG_ENOUGH, f"empty for {agent.idle_s:.0f} s of {rules.idle_s:.0f} s"
        if self._grows or self._view.since_growth_s < rules.cooldown_s:
            return Reason.COOLDOWN, f"the group grew within the last {rules.cooldown_s:.0f} s"
        if len(self._staying) <= self._group.size.min:
            return Reason.MIN_SIZE, f"the group keeps at least {self._group.size.min}"
        for count, reason in self._sizes:
            if self._hot_needs(agent, count):
                return reason, _HOT[reason]
        if self._paid(agent):
            return Reason.PAID_FOR, f"paid for another {agent.paid_s / 60:.0f} min: it is ended shortly before"
        if not self._view.settled:
            return Reason.SETTLING, "the control plane has just started"
        return None

    def _hot_needs(self, agent: AgentView, count: int) -> bool:
        own = self._staying.get(agent.instance, 0)
        return self._fits - own < min(count, self._fits)

    def _paid(self, agent: AgentView) -> bool:
        """Say whether ending it later costs nothing: unless the group is too large, or it is in others' way."""
        in_the_way = any(ceiling.takes(agent.shape) for ceiling in self._stuck)
        return agent.paid_s > WIND_UP_S and len(self._staying) <= self._group.size.max and not in_the_way

    def _end(self, agent: AgentView) -> None:
        if agent.protected:
            self._note(agent, (agent.protected_why, f"drains, and {_PROTECTED[agent.protected_why]}"))
        elif agent.sessions:
            self._note(agent, (Reason.BUSY, f"drains, and still runs {len(agent.sessions)} sessions{_due(agent)}"))
        elif not agent.acknowledged_epoch >= agent.cordon_epoch > 0:
            reason = Reason.AWAITING_ACKNOWLEDGEMENT if agent.connected else Reason.DISCONNECTED
            self._note(agent, (reason, "has not confirmed the drain with its session list yet"))
        elif not self._view.settled:
            self._note(agent, (Reason.SETTLING, "the control plane has just started"))
        elif self._cold < self._keeps_cold and not agent.notice and not agent.shape.spot:
            self._cold += 1
            self._step(Action.STOP, agent, Reason.COLD_POOL, "drained and empty; kept stopped for the cold pool")
        else:
            self._step(Action.TERMINATE, agent, Reason.EMPTY_DRAINED, "drained, acknowledged and empty")

    def _step(self, action: Action, agent: AgentView, reason: Reason, message: str) -> None:
        self.steps.append(
            Step(
                action=action,
                group=self._group.name,
                reason=reason,
                message=message,
                agent=agent.id,
                instance=agent.instance,
                epoch=agent.epoch,
            )
        )

    def _note(self, agent: AgentView, verdict: Verdict) -> None:
        reason, message = verdict
        self.notes.append(
            Note(group=self._group.name, reason=reason, message=message, agent=agent.id, instance=agent.instance)
        )


def _due(agent: AgentView) -> str:
    if agent.drain_left_s is None:
        return ""
    if agent.drain_left_s > 0:
        return f"; those with a checkpoint are moved in {agent.drain_left_s:.0f} s"
    return "; its time is over: those with a checkpoint are moved, the others end by themselves"
