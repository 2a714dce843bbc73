"""Policies in the control plane: in force at once, approvals by roles, a shadow that only counts, foreign plug-ins."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from atoll.document import policy as read
from atoll.errors import Conflict, Forbidden, Invalid, NotFound
from atoll.group import Group, GroupKind
from atoll.money import micros
from atoll.offer import WAIT_VALUE, Decision, Demand, OfferKind, Outcome
from atoll.policy import Policy
from atoll.session import Lifetime, Session, SessionSpec
from atoll.slots import GpuRequest, Request
from atoll.states import Reason, SessionState
from federation.control.approvals import Approvals
from federation.control.changes import Changes
from federation.control.policies import Policies
from federation.control.rulings import Active, Held, active, denies, plugins, terms_of
from federation.control.steps import Steps
from federation.routing.rules import PLAIN, Candidate, Ruling
from federation.store.bus import LocalBus
from tests.fakes.plane import SHAPE, FakeClock
from tests.fakes.store import MemoryStore

CANDIDATE = Candidate(kind=OfferKind.LAUNCH, site="far", group="burst", provider="cloud", price=micros(2), owned=False)
LEAD = {"approve": [{"when": "session.gpu > 1", "role": "lead", "reason": "GPUs are few"}]}


class World:
    def __init__(self, *plugins: tuple[str, Any]) -> None:
        self.changes = Changes(MemoryStore(), LocalBus(), FakeClock(), Steps())
        self.hints = 0
        self.policies = Policies(self.changes, self._hint, lambda: (list(plugins), {"broken": "ImportError: no"}))
        self.approvals = Approvals(self.changes, self.policies, self._hint)

    def _hint(self) -> None:
        self.hints += 1

    async def apply(self, **document: Any) -> Policy:
        return (await self.policies.apply(read(document), by="ada"))[0]

    async def held(self, **fields: Any) -> Session:
        row = replace(session(gpu=2), state=SessionState.HELD, reason=Reason.APPROVAL, **fields)
        async with self.changes.commit("test") as change:
            return await change.tx.insert(row)


def session(gpu: int = 0, **fields: Any) -> Session:
    spec = SessionSpec(command=("x",), resources=Request(gpu=GpuRequest(gpu * 1000)), labels={"team": "red"})
    return Session(**{"id": "s-1", "name": "train", "project": "red", "owner": "ada", "spec": spec, **fields})


async def test_a_policy_is_in_force_from_the_next_decision_on() -> None:
    world = World()
    assert (await world.policies.active()).admit(session(gpu=2)) is None
    await world.apply(deny=[{"when": "session.gpu > 1", "reason": "too many"}])
    held = (await world.policies.active()).admit(session(gpu=2))
    assert held == Held(
        reason=Reason.POLICY,
        message="denied by policy default: too many",
        hint="change the session, or see `atoll policy show default`",
    )
    hints = world.hints
    assert (await world.policies.apply(read({"deny": [{"when": "session.gpu > 1", "reason": "too many"}]}), by="bo"))[
        1
    ] is False
    assert world.hints == hints
    await world.policies.delete("default", by="ada")
    assert (await world.policies.active()).admit(session(gpu=2)) is None
    events = await world.changes.store.events(0, kinds=("policy",))
    assert [(e.key, e.state, e.message) for e in events] == [
        ("default", "created", "by ada"),
        ("default", "deleted", "by ada"),
    ]


async def test_a_session_held_for_its_cost_stays_held_at_that_cost() -> None:
    now = active([read({"deny": [{"when": "session.cost > 5", "reason": "too dear"}]})])
    row = session()
    assert now.admit(row) is None
    assert now.admit(row, micros(6)) is not None
    assert now.admit(row) is not None
    assert now.admit(row, micros(4)) is None
    assert now.admit(row) is None


async def test_waiting_is_limited_by_the_session_then_its_project_then_the_installation() -> None:
    now = active([read({"max_wait": 60}), read({"project": "red", "max_wait": 30})])
    row = session()
    own = replace(row, spec=replace(row.spec, lifetime=Lifetime(max_wait=5.0)))
    assert [now.max_wait(each) for each in (row, replace(row, project="blue"), own)] == [30.0, 60.0, 5.0]
    assert active([]).max_wait(row) is None


def test_rules_for_the_router() -> None:
    assert active([]).rules is PLAIN
    plain = Active([read({"wait_value": 0.36, "scarcity": 0, "shares": {"red": 3}})]).rules
    assert (plain.wait_value, plain.scarcity, plain.shares, plain.judge) == (100, 0.0, {"red": 3.0}, None)
    assert terms_of(plain, ()).wait_value == 100
    first = Active([read({"prefer": [{"when": "not offer.owned and session.gpu > 1", "cost": "x2"}]})]).rules
    assert (first.wait_value, first.reads) == (WAIT_VALUE, ("request",))
    assert first.judge is not None
    asks = Demand(session="s", request=Request(gpu=GpuRequest(2000)), type="service", tags=("team=red",))
    assert first.judge(asks, CANDIDATE) == Ruling(factor=2.0)
    assert first.judge(replace(asks, request=Request()), CANDIDATE) == Ruling()
    labels = Active(
        [read({"deny": [{"when": "'team=red' in session.labels and offer.price > 1", "reason": "dear"}]})]
    ).rules
    assert labels.reads == ("tags",)
    assert labels.judge is not None
    assert labels.judge(asks, CANDIDATE) == Ruling(denied="dear")
    assert labels.version != first.version


def test_every_field_of_a_session_reaches_expressions_the_same_way() -> None:
    from atoll.policy import asked
    from federation.control.rulings import asked_of

    row = session(gpu=3)
    demand = Demand(
        session="s", request=row.spec.resources, project="red", owner="ada", tags=("team=red",), type="batch"
    )
    assert asked_of(demand) == asked(row.spec, "red", "ada")


def test_plug_ins_rule_too_and_broken_ones_stop_nothing() -> None:
    class Good:
        reads = ("spot",)

        def judge(self, demand: Demand, candidate: Candidate) -> Ruling:
            return Ruling(factor=3.0, extra=7)

    class Bad(Good):
        def judge(self, demand: Demand, candidate: Candidate) -> Ruling:
            raise RuntimeError("oh")

    class Wrong(Good):
        def judge(self, demand: Demand, candidate: Candidate) -> Ruling:
            return Ruling(factor=-1.0)

    found = active([read({"prefer": [{"cost": "x2"}]})], [("bad", Bad()), ("good", Good()), ("wrong", Wrong())])
    assert found.rules.reads == ("spot",)
    assert found.rules.judge is not None
    assert found.rules.judge(Demand(session="s", request=Request()), CANDIDATE) == Ruling(factor=6.0, extra=7)
    assert found.errors == {"plug-in bad": "RuntimeError: oh", "plug-in wrong": "ruled factor -1.0, extra 0"}


def test_plug_ins_are_found_by_their_entry_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = tmp_path / "lab_rules-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: lab-rules\nVersion: 1.0\n")
    points = ("good", "missing", "raises", "unknown")
    lines = [f"{name} = lab_rules:{name}" for name in points]
    (facts / "entry_points.txt").write_text("\n".join(["[atoll.policies]", *lines, ""]))
    (tmp_path / "lab_rules.py").write_text(
        "from federation.routing.rules import Ruling\n"
        "class Rules:\n"
        "    reads = ('project',)\n"
        "    def judge(self, demand, candidate):\n"
        "        return Ruling(denied='not here' if demand.project == 'red' else '')\n"
        "good = Rules\n"
        "def raises():\n"
        "    raise RuntimeError('no licence')\n"
        "class unknown(Rules):\n"
        "    reads = ('colour',)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    found, failed = plugins()
    assert [name for name, _ in found] == ["good"]
    assert failed == {
        "missing": "AttributeError: module 'lab_rules' has no attribute 'missing'",
        "raises": "RuntimeError: no licence",
        "unknown": "reads colour, which demands do not have",
    }
    now = active([], found)
    assert now.rules.judge is not None
    assert now.rules.judge(Demand(session="s", request=Request(), project="red"), CANDIDATE).denied == "not here"


async def test_plug_ins_are_loaded_once() -> None:
    world = World(("mine", SimpleNamespace(reads=("spot",), judge=lambda demand, candidate: Ruling(denied="no"))))
    now = await world.policies.active()
    assert now.rules.judge is not None
    assert now.rules.judge(Demand(session="s", request=Request()), CANDIDATE).denied == "no"
    assert world.policies.failed == {"broken": "ImportError: no"}


def test_the_planner_is_told_what_may_not_be_launched() -> None:
    assert denies(PLAIN, {}) is None
    found = Active([read({"deny": [{"when": "offer.region == 'eu' and offer.price > 0.5", "reason": "dear"}]})]).rules
    denied = denies(found, {"far": "eu"})
    assert denied is not None
    group = Group(name="burst", site="far", kind=GroupKind.ELASTIC, provider="cloud")
    asks = Demand(session="s", request=Request(1000))
    cheap, dear = (replace(SHAPE, price=micros(price)) for price in (1.9, 2.1))
    assert [denied(asks, group, shape) for shape in (cheap, dear)] == [False, True]  # a quarter of the machine
    assert denied(asks, replace(group, site="near"), dear) is False


# -- approvals ----------------------------------------------------------------------------------------


async def test_somebody_with_the_role_lets_a_session_go_on() -> None:
    world = World()
    await world.apply(**LEAD)
    row = await world.held()
    now = await world.policies.active()
    held = now.admit(row)
    assert held is not None
    assert (held.reason, held.message) == (
        Reason.APPROVAL,
        "needs the approval of a lead, by policy default: GPUs are few",
    )
    assert held.hint.endswith("atoll approve train --as lead")
    for has, role in (((), ""), (("finance",), ""), (("finance",), "lead")):
        with pytest.raises(Forbidden, match="role lead"):
            await world.approvals.approve("red", "train", by="eve", has=has, role=role)
    with pytest.raises(Conflict, match="no policy asks for the approval of a finance"):
        await world.approvals.approve("red", "train", by="bo", has=("finance",), role="finance")
    row = await world.approvals.approve("red", "train", by="bo", has=("lead",))
    assert (row.state, row.reason, row.message) == (SessionState.QUEUED, Reason.APPROVED, "approved by bo as lead")
    assert row.approved_by == "lead:bo"
    assert now.admit(row) is None
    (event,) = await world.changes.store.events(0, kinds=("session",))
    assert (event.reason, event.message) == ("APPROVED", "approved by bo as lead")
    again = await world.approvals.approve("red", "train", by="bo", has=("lead",))
    assert again.version == row.version


async def test_an_administrator_has_every_role_and_some_sessions_need_several() -> None:
    world = World()
    await world.apply(**LEAD)
    await world.apply(project="red", approve=[{"when": "True", "role": "finance"}])
    row = await world.held()
    await world.approvals.approve("red", "train", by="bo", has=("lead",))
    row = await world.approvals.approve("red", "train", by="root", has=("admin",))
    assert row.approved_by == "finance:root,lead:bo" or row.approved_by == "lead:bo,finance:root"
    assert (await world.policies.active()).admit(row) is None


async def test_what_needs_no_approval_takes_none() -> None:
    world = World()
    await world.held()
    with pytest.raises(Conflict, match="needs no approval"):
        await world.approvals.approve("red", "train", by="root", has=("admin",))
    with pytest.raises(NotFound):
        await world.approvals.approve("red", "trane", by="root", has=("admin",))


# -- the shadow ---------------------------------------------------------------------------------------


async def test_a_shadow_is_compared_and_does_nothing() -> None:
    world = World()
    with pytest.raises(NotFound, match="no policy is a shadow"):
        await world.policies.differences()
    await world.apply(name="new", deny=[{"when": "session.gpu > 1", "reason": "too many"}])
    await world.policies.set_shadow("new", by="ada")
    row = session(gpu=2)
    now, shadow = await world.policies.active(), await world.policies.shadow()
    assert shadow is not None
    assert now.admit(row) is None
    placed = Decision(session=row.id, outcome=Outcome.PLACE, reason=Reason.PLACED, message="there")
    for _ in range(3):
        world.policies.compare(row, placed, shadow.admit(row), 5.0)
    world.policies.compare(replace(row, id="s-2"), placed, placed, 6.0)
    found = await world.policies.differences()
    assert (found.policy, found.asked, found.counts) == ("new", 2, {"place -> POLICY": 1})
    assert [(d.session, d.live, d.shadow) for d in found.newest] == [
        ("s-1", "place (PLACED)", "denied by policy default: too many")
    ]
    with pytest.raises(Conflict, match="is the shadow"):
        await world.policies.delete("new", by="ada")
    await world.apply(name="new", deny=[{"when": "session.gpu > 3", "reason": "too many"}])
    assert (await world.policies.differences()).asked == 0
    await world.policies.set_shadow("", by="ada")
    assert await world.policies.shadow() is None


async def test_only_what_is_not_in_force_can_be_a_shadow() -> None:
    world = World()
    await world.apply()
    await world.apply(project="red")
    for name in ("default", "red"):
        with pytest.raises(Invalid, match="is in force"):
            await world.policies.set_shadow(name, by="ada")
    with pytest.raises(NotFound) as caught:
        await world.policies.set_shadow("defalt", by="ada")
    assert caught.value.hint == "did you mean 'default'?"
