"""The replay: events on a virtual clock, and after them the decisions of the real router, planner and homecoming."""

import heapq
import random
import time
from bisect import insort
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

from atoll import money
from atoll.group import Group, GroupKind
from atoll.offer import Decision, Demand
from atoll.offer import Outcome as Verdict
from atoll.plan import Action, Move, Step
from atoll.slots import Request
from atoll.states import AgentState
from autoscaler.plan import plan
from federation.control.deadlines import in_time
from federation.control.rulings import terms_of
from federation.routing.homecoming import Exchange
from federation.routing.place import route
from federation.routing.rules import PLAIN, Rules
from federation.routing.schedule import schedule
from federation.simulate.model import Job, Options, Outcome, Run, Setup
from federation.simulate.places import Launched, Member, Place, Task, task_of
from federation.simulate.world import World

STUCK_S = 8 * 86400.0
"""After this long without an event whatever still waits is given up: a week and a day, as hours repeat weekly."""

Progress = Callable[[float, int], None]
"""Called now and then with the virtual time and the number of jobs that are done."""

_END, _JOIN, _RECLAIM, _EXPIRE, _LAND, _REFUSE, _RETRY = range(7)


def simulate(
    jobs: Sequence[Job],
    setup: Setup,
    *,
    rules: Rules = PLAIN,
    options: Options = Options(),  # noqa: B008 - frozen
    home: "Home | None" = None,
    way: "Way | None" = None,
    deny: Callable[[Job], str] | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Replay `jobs` on `setup` and return what came of it: equal input gives an equal outcome, but for `seconds`.

    `home` is asked after every round who is to come home, `way` before every round who makes way for whom. A job for
    which `deny` returns a reason is not taken in.
    """
    began = time.perf_counter()
    replay = _Replay(jobs, setup, rules, options, home, way, deny)
    replay.run(progress)
    return replay.outcome(time.perf_counter() - began)


class _Replay:
    """One replay under way."""

    def __init__(
        self,
        jobs: Sequence[Job],
        setup: Setup,
        rules: Rules,
        options: Options,
        home: "Home | None",
        way: "Way | None",
        deny: Callable[[Job], str] | None,
    ) -> None:
        until = options.until
        self._jobs = sorted((j for j in jobs if until is None or j.at <= until), key=lambda job: (job.at, job.id))
        self._began = self._jobs[0].at if self._jobs else 0.0
        self._rules, self._options, self._home, self._way, self._deny = rules, options, home, way, deny
        self._served: dict[str, Task] = {}
        self._world = World(setup, options, self._began, rules.wait_value)
        self._standing = any(_is_standing(group) for group in setup.groups)
        self._offers = [(g, self._world.offered(g)) for g in setup.groups if g.kind is GroupKind.ELASTIC]
        self._terms = terms_of(rules, setup.sites)
        requests: dict[Request, Request] = {}
        self._tasks = {job.id: task_of(job, options, requests) for job in self._jobs}
        self._deadlines = any(job.deadline_s is not None for job in self._jobs)
        if len(self._tasks) != len(self._jobs):
            raise ValueError("two jobs have one id")
        self._arrived = self._done = 0
        self._waiting: list[tuple[tuple[int, float, str], Task]] = []
        self._running: dict[str, Task] = {}
        self._events: list[tuple[float, int, int, str, int]] = []
        self._number = 0
        self._machines: dict[str, Launched] = {}
        self._planned: tuple[int, list[str]] = (-1, [])
        self._round_at = -1e18
        self._look_at: float | None = self._began
        self._quick_at: float | None = None
        self._news_at = self._began
        self._acks: list[tuple[Place, int]] = []
        self._rounds = self._plans = 0
        self._now = self._began

    def run(self, progress: Progress | None) -> None:
        """Go from event to event until every job is done and every launched machine gone."""
        while self._rounds < self._options.max_rounds:
            due = self._due()
            if due is None:
                break
            self._now = due
            happened = self._happen(due)
            looks = [at for at in (self._look_at, self._quick_at) if at is not None]
            if happened or any(at <= due for at in looks):
                self._round(due)
            if progress and self._rounds % 1000 == 0:
                progress(due, self._done)
        self._close()

    # -- events -----------------------------------------------------------------------------------

    def _due(self) -> float | None:
        """Return when to look next: a tick after the last round at the earliest, but for what is quick."""
        if self._is_over():
            return None
        coming = [self._events[0][0]] if self._events else []
        if self._arrived < len(self._jobs):
            coming.append(self._jobs[self._arrived].at)
        if self._look_at is not None:
            coming.append(self._look_at)
        due = [max(min(coming), self._round_at + self._options.tick_s)] if coming else []
        if self._quick_at is not None:
            due.append(self._quick_at)
        return min(due, default=None)

    def _is_over(self) -> bool:
        if self._arrived < len(self._jobs) or self._running:
            return False
        if self._waiting:
            return self._now - self._news_at > STUCK_S
        return self._standing or not (self._world.restless or self._world.booting)

    def _push(self, at: float, kind: int, key: str, number: int = 0) -> None:
        self._number += 1
        heapq.heappush(self._events, (at, self._number, kind, key, number))

    def _happen(self, until: float) -> bool:
        """Let everything happen that is due by then, each at its own time; say whether it was news."""
        news = False
        while True:
            arrival = self._jobs[self._arrived].at if self._arrived < len(self._jobs) else None
            event = self._events[0][0] if self._events else None
            if arrival is not None and arrival <= until and (event is None or arrival <= event):
                self._arrive(self._tasks[self._jobs[self._arrived].id])
                self._arrived += 1
                news = True
            elif event is not None and event <= until:
                at, _, kind, key, number = heapq.heappop(self._events)
                handle = (
                    self._end, self._join, self._reclaim, self._expire, self._land, self._refuse, self._retry
                )[kind]  # fmt: skip
                news = handle(at, key, number) or news
            else:
                break
        for place, epoch in self._acks:
            self._world.acknowledge(place, epoch)
        self._acks.clear()
        if news:
            self._news_at = until
        return news

    def _arrive(self, task: Task) -> None:
        self._world.came(task.job)
        if self._deny and (reason := self._deny(task.job)):
            self._give_up(task, reason)
            return
        self._queue(task, task.job.at)
        if task.job.max_wait_s is not None:
            self._push(task.job.at + task.job.max_wait_s, _EXPIRE, task.job.id)

    def _queue(self, task: Task, now: float) -> None:
        task.queued_at = now
        if now > task.demand.queued_at:
            task.demand = replace(task.demand, queued_at=now)
        insort(self._waiting, ((-task.job.priority, task.job.at, task.job.id), task), key=lambda pair: pair[0])

    def _end(self, at: float, key: str, attempt: int) -> bool:
        task = self._running.get(key)
        if task is None or task.attempt != attempt:
            return False
        self._settle(task, at)
        del self._running[key]
        task.ended_at = at
        task.left_s = 0.0
        self._done += 1
        return True

    def _join(self, at: float, key: str, start: int) -> bool:
        machine = self._machines[key]
        if machine.starts != start:
            return False
        self._world.join(machine, at)
        rate = self._interruptions(machine)
        if rate > 0 and self._options.interruptions:
            # A generator of its own for each machine: one more launch does not change the luck of all others.
            luck = random.Random(f"{self._options.seed}/{key}/{start}")  # noqa: S311 - not for secrets
            self._push(at + luck.expovariate(rate / 3600.0), _RECLAIM, key, start)
        return True

    def _refuse(self, at: float, key: str, _start: int) -> bool:
        """There was no capacity for a launch. It is no news, or what is never to be had would be tried for ever."""
        self._push(self._world.refuse(self._machines.pop(key), at), _RETRY, key)
        self._quick_at = at
        return False

    def _retry(self, at: float, _key: str, _number: int) -> bool:
        self._world.changes += 1
        self._quick_at = at
        return False

    def _interruptions(self, machine: Launched) -> float:
        shape = machine.shape
        if shape.interruptions is not None:
            return shape.interruptions
        return self._rules.spot_interruptions if shape.spot else 0.0

    def _reclaim(self, at: float, key: str, start: int) -> bool:
        machine = self._machines.get(key)
        if machine is None or machine.starts != start or machine.stopped:
            return False
        held = self._world.end(machine, at, reclaimed=True)
        del self._machines[key]
        for session in held:
            task = self._tasks[session]
            if any(member.place.machine is machine for member in task.target):
                self._world.release(task, task.target, at)
                task.target, task.known = (), None
                continue
            # One that goes away has taken its checkpoint already.
            if not task.leaving and any(member.place.machine is machine for member in task.members):
                self._interrupt(task, at)
        return True

    def _interrupt(self, task: Task, at: float) -> None:
        """The machine went away: what was done since the last checkpoint is lost."""
        done = self._settle(task, at)
        keeps = task.job.checkpoint
        self._lose(task, done, min(done, keeps.lost) if keeps else done)
        task.interruptions += 1
        del self._running[task.job.id]
        self._queue(task, at)

    def _expire(self, _at: float, key: str, _number: int) -> bool:
        task = self._tasks[key]
        if task.first_start is None and not task.reason:
            self._waiting = [pair for pair in self._waiting if pair[1] is not task]
            self._give_up(task, "MAX_WAIT")
        return False

    def _land(self, at: float, key: str, attempt: int) -> bool:
        """A session that was asked to move has exited: it resumes where it was to go, or waits."""
        task = self._tasks[key]
        if task.attempt != attempt or key not in self._running:
            return False
        self._settle(task, at)
        task.stalled_s += self._options.move_s
        target, task.target, task.leaving = task.target, (), False
        if target:
            self._run(task, target, at, held=True)
        else:
            del self._running[key]
            self._queue(task, at)
        return True

    # -- sessions ---------------------------------------------------------------------------------

    def _run(self, task: Task, members: tuple[Member, ...], now: float, *, held: bool = False) -> None:
        if not held:
            self._world.hold(task, members, now)
        task.members, task.known = members, None
        task.attempt += 1
        task.began = now
        if task.first_start is None:
            task.first_start = now
        elif not held:
            task.stalled_s += now - task.queued_at
        task.sites.append(members[0].place.site)
        self._running[task.job.id] = task
        self._push(now + task.left_s, _END, task.job.id, task.attempt)

    def _settle(self, task: Task, at: float) -> float:
        """End the current attempt: take its slots back and charge for it; return for how long it has run."""
        ran = max(0.0, at - task.began)
        task.spent += money.cost(task.price, ran)
        self._world.release(task, task.members, at)
        task.members = ()
        return ran

    def _lose(self, task: Task, done: float, lost: float) -> None:
        task.left_s = max(0.0, task.left_s - done) + lost
        task.lost_s += lost

    def _give_up(self, task: Task, reason: str) -> None:
        task.reason = reason
        self._done += 1

    # -- decisions --------------------------------------------------------------------------------

    def _round(self, now: float) -> None:
        self._rounds += 1
        self._round_at = now
        self._quick_at = None
        self._make_way(now)
        asked, decisions = self._place(now)
        left = [
            demand
            for demand, found in zip(asked, decisions, strict=True)
            if found.for_planner and demand.session not in self._served
        ]
        if self._offers and (left or self._is_timed()) and not self._is_planned(left):
            self._scale(left, now)
        if self._home is not None:
            stuck = [d for d, found in zip(asked, decisions, strict=True) if found.outcome is Verdict.WAIT]
            self._bring_home(self._home, stuck, now)
        self._look_at = self._next_look(now)

    def _next_look(self, now: float) -> float | None:
        """Return when time alone may change something."""
        if self._waiting or (self._standing and not self._is_over()):
            return now + self._options.look_s
        idle = self._world.next_idle(now)
        if idle is not None:
            return idle
        away = self._home is not None and any(
            task.job.checkpoint is not None and task.members[0].place.machine for task in self._running.values()
        )
        return now + self._options.look_s if away or self._is_timed() else None

    def _is_timed(self) -> bool:
        """Say whether a plan may be another one only because of the time."""
        return self._standing or self._world.restless or self._may_return()

    def _may_return(self) -> bool:
        """Say whether something runs on demand that has a deadline, and may have time enough for spot by and by."""
        return any(
            task.job.spot and task.job.deadline_s is not None and task.job.checkpoint is not None
            and (machine := task.members[0].place.machine) is not None and not machine.shape.spot
            for task in (self._running.values() if self._deadlines else ())
        )  # fmt: skip

    def _place(self, now: float) -> tuple[list[Demand], list[Decision]]:
        """Place what can be placed; return what is left as it was asked for, and what was decided for it."""
        if not self._waiting:
            return [], []
        left: list[tuple[tuple[int, float, str], Task]] = []
        kept: list[Decision] = []
        demands = self._demands(now)
        decisions = self._decide(demands, now)
        for pair, decision in zip(self._waiting, decisions, strict=True):
            task = pair[1]
            if decision.outcome is Verdict.PLACE:
                self._run(task, self._members(decision), now)
            elif decision.outcome is Verdict.HOLD:
                self._give_up(task, decision.reason)
            else:
                left.append(pair)
                kept.append(decision)
                for session in decision.preempts:
                    self._preempt(self._running.get(session), now)
        self._waiting = left
        known = {demand.session: demand for demand in demands}
        return [known[task.job.id] for _, task in left], kept

    def _demands(self, now: float) -> list[Demand]:
        """Return what waits, with what deadlines rule out."""
        demands = [task.demand for _, task in self._waiting]
        if not self._deadlines:
            return demands
        due = {task.job.id: partial(task.pace, now) for _, task in self._waiting if task.job.deadline_s is not None}
        return in_time(demands, due, self._offers, now, self._terms)

    def _decide(self, demands: list[Demand], now: float) -> list[Decision]:
        capacity = self._world.settle(now)
        if not self._options.queue:
            return route(demands, capacity, now=now, rules=self._rules)
        running = [task.running(now) for task in self._running.values()]
        return schedule(demands, capacity, now=now, rules=self._rules, running=running)

    def _members(self, decision: Decision) -> tuple[Member, ...]:
        places = self._world.places
        return tuple(Member(places[offer.target], offer.slots, offer.price) for offer in decision.taken)

    def _is_planned(self, left: list[Demand]) -> bool:
        """Say whether the last plan still holds: the same wait, nothing has changed, and no time is counted."""
        same = self._planned == (self._world.changes, [demand.session for demand in left])
        return same and not self._is_timed()

    def _scale(self, left: list[Demand], now: float) -> None:
        self._plans += 1
        made = plan(
            self._world.views(now, gangs=any(demand.nodes > 1 for demand in left)),
            left,
            plan_id=f"p-{self._plans}",
            generation=self._plans,
            at=now,
            terms=self._terms,
        )
        awaited: dict[str, list[Task]] = {}
        for session, instance in made.awaits:
            awaited.setdefault(instance, []).append(self._tasks[session])
        self._world.awaited = awaited
        for step in made.steps:
            self._adopt(step, now)
        for move in made.moves:
            self._move(move, now)
        self._planned = (self._world.changes, [demand.session for demand in left])

    def _adopt(self, step: Step, now: float) -> None:
        group = self._world.groups[step.group]
        if step.action is Action.LAUNCH and step.shape is not None:
            self._boot(self._world.launch(step.instance, group, step.shape, now), now)
        elif step.action is Action.START:
            self._boot(self._world.start(step.instance, step.group, now), now)
        elif not step.agent:
            self._world.end(self._machines.pop(step.instance), now)
        else:
            self._change(step, self._world.places[step.agent], now)

    def _boot(self, machine: Launched, now: float) -> None:
        self._machines[machine.id] = machine
        if machine.refused:
            self._push(now + self._options.refuse_s, _REFUSE, machine.id, machine.starts)
        else:
            self._push(now + machine.shape.start_s, _JOIN, machine.id, machine.starts)

    def _change(self, step: Step, place: Place, now: float) -> None:
        if step.action is Action.DRAIN and place.state is AgentState.READY:
            self._acks.append((place, self._world.drain(place)))
            self._quick_at = now + self._options.drain_s
        elif step.action is Action.UNDRAIN:
            self._world.undrain(place)
            self._quick_at = now
        elif place.machine is not None and not place.holding:
            if step.action is Action.STOP:
                self._world.stop(place.machine, now)
            elif step.action is Action.TERMINATE:
                self._world.end(self._machines.pop(place.machine.id), now)

    def _make_way(self, now: float) -> None:
        """Let sessions that can be moved make way; nothing is launched for whom they do that, until they have gone."""
        self._served = {waits: mover for waits, mover in self._served.items() if mover.leaving}
        waiting = [task.demand for _, task in self._waiting if task.demand.session not in self._served]
        if self._way is None or not waiting:
            return
        for made in self._way(self._running.values(), waiting, self._world, now):
            self._served[made.session] = self._running[made.move.session]
            self._move(made.move, now)
        if self._options.move_s <= 0:
            self._happen(now)

    def _bring_home(self, home: "Home", waiting: Sequence[Demand], now: float) -> None:
        for move in home(self._running.values(), waiting, self._world, now):
            self._move(move, now)

    def _move(self, move: Move, now: float) -> None:
        """Ask a session for a checkpoint: it stops working now, and holds both places until it has exited."""
        task = self._running.get(move.session)
        if task is None or task.attempt != move.attempt or task.leaving or task.job.checkpoint is None:
            return
        target = tuple(Member(self._world.places[offer.target], offer.slots, offer.price) for offer in move.to)
        self._lose(task, now - task.began, task.job.checkpoint.lost)
        self._world.hold(task, target, now)
        task.target = target
        task.moves += 1
        task.moved_at = now
        self._leave(task, now)

    def _preempt(self, task: Task | None, now: float) -> None:
        """Ask a session to make room: with a checkpoint it keeps its work, else it will begin anew."""
        if task is None or task.leaving:
            return
        done, keeps = now - task.began, task.job.checkpoint
        self._lose(task, done, min(done, keeps.lost) if keeps else done)
        task.interruptions += 1
        self._leave(task, now)

    def _leave(self, task: Task, now: float) -> None:
        task.leaving, task.known = True, None
        task.attempt += 1
        self._push(now + self._options.move_s, _LAND, task.job.id, task.attempt)
        if self._options.move_s <= 0:
            self._quick_at = now

    # -- the end ----------------------------------------------------------------------------------

    def _close(self) -> None:
        for _, task in self._waiting:
            self._give_up(task, "NO_FREE_SLOTS")
        for machine in list(self._world.live()):
            if machine.refused:
                self._world.refuse(machine, self._now)
            else:
                self._world.end(machine, self._now)

    def outcome(self, seconds: float) -> Outcome:
        """Return what the replay came to."""
        runs = tuple(_run_of(self._tasks[job.id]) for job in self._jobs)
        return Outcome(
            began=self._began,
            submitted=self._jobs[-1].at if self._jobs else 0.0,
            ended=self._now,
            runs=runs,
            sites=self._world.ledger.sites(self._now),
            series=self._world.ledger.series(),
            machines=tuple(sorted(self._world.gone, key=lambda use: (use.launched_at, use.id))),
            waits=tuple(sorted(run.waited_s for run in runs if run.started_at is not None)),
            unit=self._world.ledger.unit,
            rounds=self._rounds,
            plans=self._plans,
            refused=self._world.refusals.count,
            seconds=seconds,
        )


Home = Callable[[Iterable[Task], Sequence[Demand], World, float], Sequence[Move]]
Way = Callable[[Iterable[Task], Sequence[Demand], World, float], Sequence[Exchange]]


def _is_standing(group: Group) -> bool:
    """Say whether a group wants machines, or moves, without anybody waiting."""
    pools = group.pools
    kept = group.size.min or pools.hot_count or pools.hot_times or pools.cold or pools.predict
    return bool(kept or group.scale_down.consolidate)


def _run_of(task: Task) -> Run:
    job = task.job
    return Run(
        job=job.id,
        at=job.at,
        started_at=task.first_start,
        ended_at=task.ended_at,
        waited_s=task.first_start - job.at if task.first_start is not None else 0.0,
        stalled_s=task.stalled_s,
        lost_s=task.lost_s,
        interruptions=task.interruptions,
        moves=task.moves,
        spent=task.spent,
        sites=tuple(task.sites),
        reason=task.reason,
    )
