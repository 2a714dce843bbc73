"""Policies and budgets: their documents, and what a policy says of sessions and offers."""

from typing import Any

import pytest

from atoll.budget import STAGES, Budget, Do, Period, Stage
from atoll.document import READERS, budget, dump_budget, dump_policy, policy, session_spec
from atoll.errors import Invalid
from atoll.judge import MAX_FACTOR, Judge, Said, roles
from atoll.money import micros
from atoll.policy import ACTIVE, Asked, Homecoming, Offered, Policy, asked, grant, granted

FULL: dict[str, Any] = {
    "name": "default",
    "deny": [
        {"when": "session.gpu > 8", "reason": "nobody needs so many"},
        {"when": "offer.site == 'far' and session.type == 'interactive'", "reason": "too far for people"},
    ],
    "approve": [{"when": "session.cost > 100", "role": "lead", "reason": "it is dear"}],
    "prefer": [{"when": "offer.spot", "cost": "x1.5"}, {"when": "not offer.owned", "cost": "+0.1 * session.hours"}],
    "max_wait": "1h",
    "wait_value": 0.5,
    "scarcity": 0.25,
    "shares": {"red": 2.0},
    "homecoming": {"enabled": True, "max_moves": 3},
}


def test_a_policy_is_read_and_written() -> None:
    row = policy(FULL)
    assert (row.max_wait, row.wait_value, row.shares, row.homecoming) == (
        3600.0,
        micros(0.5),
        {"red": 2.0},
        Homecoming(max_moves=3),
    )
    assert dump_policy(row) == FULL
    assert policy(dump_policy(row)) == row
    assert policy({"kind": "policy"}) == Policy(name=ACTIVE)
    assert policy({"project": "red"}).name == "red"
    assert policy({"homecoming": False}).homecoming == Homecoming(enabled=False)
    assert policy({"deny": [{"when": True, "reason": "closed"}]}).deny[0].when == "True"
    assert READERS["policy"] is policy


@pytest.mark.parametrize(
    ("document", "says", "advice"),
    [
        ({"denny": []}, "unknown key 'denny'", "deny"),
        ({"deny": {}}, "policy.deny must be a list", "- "),
        ({"deny": [{"reason": "x"}]}, "policy.deny[0].when is missing", "session.gpu"),
        ({"deny": [{"when": "True"}]}, "policy.deny[0].reason is missing", ""),
        ({"deny": [{"when": "sesion.gpu > 1", "reason": "x"}]}, "policy.deny[0].when: `sesion` is not", "session"),
        ({"deny": [{"when": "session.gpu", "reason": "x"}]}, "must be true or false", ""),
        ({"deny": [{"when": "session.cost > offer.price", "reason": "x"}]}, "names session.cost and an offer", ""),
        ({"approve": [{"when": "True"}]}, "policy.approve[0].role is missing", ""),
        ({"approve": [{"when": "offer.spot", "role": "lead"}]}, "names an offer", "deny"),
        ({"prefer": [{"when": "offer.spot"}]}, "policy.prefer[0].cost is missing", "x1.5"),
        ({"prefer": [{"cost": "1.5"}]}, "a preference's cost cannot be '1.5'", "x1.5"),
        ({"prefer": [{"cost": "xoffer.site"}]}, "must be a number", ""),
        ({"project": "red", "shares": {"red": 1}}, "policy.shares cannot be given", "default"),
        ({"project": "red", "name": "default"}, "is the installation's", ""),
        ({"shares": {"red": 0}}, "must be above 0", ""),
        ({"scarcity": 2}, "policy.scarcity cannot be 2", ""),
        ({"homecoming": {"max_moves": 0}}, "max_moves is 0", ""),
        ({"name": "Not Good"}, "not a valid policy name", ""),
    ],
)
def test_what_a_policy_may_not_say(document: dict[str, Any], says: str, advice: str) -> None:
    with pytest.raises(Invalid) as caught:
        policy(document)
    assert says in caught.value.message
    assert advice in caught.value.hint


def test_a_budget_is_read_and_written() -> None:
    document = {
        "name": "red-week",
        "amount": 500,
        "period": "week",
        "project": "red",
        "zone": "Asia/Seoul",
        "stages": [{"at": 0.5, "do": "owned_only"}, {"at": 1.0, "do": "stop"}],
        "grace": "1m",
    }
    row = budget(document)
    assert (row.amount, row.period, row.grace_s) == (micros(500), Period.WEEK, 60.0)
    assert dump_budget(row) == document
    plain = budget({"amount": 1.5})
    assert (plain.name, plain.project, plain.period, plain.stages) == ("all", "", Period.MONTH, STAGES)
    assert dump_budget(plain) == {"name": "all", "amount": 1.5, "period": "month"}


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({}, "budget.amount is missing"),
        ({"amount": 0}, "must be above 0"),
        ({"amount": 1, "period": "year"}, "budget.period cannot be 'year'"),
        ({"amount": 1, "stages": [{"do": "hold"}]}, "stages[0].at is missing"),
        ({"amount": 1, "stages": [{"at": 1, "do": "explode"}]}, "do cannot be 'explode'"),
        ({"amount": 1, "stages": [{"at": 1}]}, "do cannot be ''"),
        ({"amount": 1, "stages": 7}, "budget.stages must be a list"),
    ],
)
def test_what_a_budget_may_not_say(document: dict[str, Any], says: str) -> None:
    with pytest.raises(Invalid) as caught:
        budget(document)
    assert says in caught.value.message


def test_limits_follow_from_the_earliest_stage_that_forbids() -> None:
    stages = (Stage(at=0.5, do=Do.OWNED_ONLY), Stage(at=0.9, do=Do.HOLD), Stage(at=1.2, do=Do.STOP))
    row = Budget(name="red", project="red", amount=1000, stages=stages)
    assert (row.limit(paid=True), row.limit(paid=False)) == (500, 900)
    assert [row.reached(spent, 100) for spent in (0, 400, 800, 1199, 1200)] == [
        None, Do.OWNED_ONLY, Do.HOLD, Do.HOLD, Do.STOP,
    ]  # fmt: skip
    everything = Budget(name="all", amount=1000, stages=stages)
    assert (everything.limit(paid=True), everything.limit(paid=False)) == (500, None)


def test_a_session_as_expressions_see_it() -> None:
    spec = session_spec(
        {
            "command": "x",
            "type": "service",
            "nodes": 2,
            "labels": {"team": "red"},
            "resources": {"cpu": 2, "memory": "4GiB", "gpu": {"count": 3, "name": ["L4", "T4"]}},
            "lifetime": {"expected": "2h"},
            "cost": {"spot": False},
        }
    )
    facts = asked(spec, "red", "ada", micros(7))
    assert (facts.type, facts.project, facts.owner, facts.nodes, facts.spot) == ("service", "red", "ada", 2, False)
    assert (facts.cpu, facts.memory, facts.gpu, facts.gpu_models) == (2.0, 4.0, 3.0, ("L4", "T4"))
    assert (facts.hours, facts.cost, facts.labels, facts.max_price) == (2.0, 7.0, ("team=red",), float("inf"))


def test_denials_come_before_approvals_and_costs_when_they_are_known() -> None:
    judge = Judge([policy(FULL)])
    assert judge.session(Asked(gpu=9)) == Said(policy="default", reason="nobody needs so many")
    assert judge.session(Asked(gpu=1, cost=200.0), cost_known=False) is None
    needed = judge.session(Asked(gpu=1, cost=200.0))
    assert needed == Said(policy="default", reason="it is dear", role="lead")
    assert judge.session(Asked(cost=200.0), approved_by="lead:ada") is None
    assert judge.session(Asked(cost=200.0), approved_by="finance:ada") == needed


def test_offers_are_denied_or_made_dearer() -> None:
    judge = Judge([policy(FULL)])
    assert judge.offer(Asked(type="interactive"), Offered(site="far")) == ("too far for people", 1.0, 0)
    assert judge.offer(Asked(gpu=9), Offered())[0] == "nobody needs so many"
    assert judge.offer(Asked(hours=2.0), Offered(spot=True, owned=False)) == ("", 1.5, micros(0.2))
    assert judge.offer(Asked(hours=2.0), Offered()) == ("", 1.0, 0)
    assert judge.reads == ("gpu", "hours", "type")


def test_preferences_stay_within_bounds_and_failures_are_reported() -> None:
    rules = [{"cost": "x1e6"}, {"cost": "+1e18"}, {"cost": "x0 - 1"}, {"cost": "+1 / offer.start"}, {"cost": "x1e18"}]
    judge = Judge([policy({"prefer": rules, "deny": [{"when": "1 / session.gpu > 1", "reason": "x"}]})])
    denied, factor, extra = judge.offer(Asked(), Offered())
    assert (denied, factor, extra) == ("", MAX_FACTOR, micros(1e6))
    assert sorted(judge.errors) == [
        "default: 1 / session.gpu > 1",
        "default: True, cost +1 / offer.start",
        "default: True, cost x0 - 1",
    ]
    assert judge.session(Asked()) is None


def test_a_projects_policy_is_for_its_sessions_only() -> None:
    judge = Judge([policy({"project": "red", "deny": [{"when": "offer.spot", "reason": "no spot for red"}]})])
    assert judge.offer(Asked(project="red"), Offered(spot=True))[0] == "no spot for red"
    assert judge.offer(Asked(project="blue"), Offered(spot=True))[0] == ""
    assert judge.reads == ("project",)


def test_approvals_are_kept_by_role_and_nobody_forges_one() -> None:
    once = grant("", "lead", "ada")
    twice = grant(once, "finance", "bo,lead:eve")
    assert (once, granted(twice)) == ("lead:ada", {"lead": "ada", "finance": "bo_lead_eve"})
    assert roles([policy(FULL), policy({"project": "red", "approve": [{"when": "True", "role": "x"}]})], "blue") == [
        "lead"
    ]
