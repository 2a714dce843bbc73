"""Routes of policies, budgets and approvals, over the fake control plane's real use cases."""

from typing import Any

from atoll.money import micros
from atoll.session import Member, Session, Stretch
from atoll.slots import Slots
from atoll.states import Reason, SessionState
from tests.fakes.plane import NOW
from tests.federation.served import SESSIONS, Served

LEAD = {"approve": [{"when": "session.gpu > 1", "role": "lead", "reason": "GPUs are few"}]}


async def token(server: Served, *roles: str) -> dict[str, str]:
    _, secret = await server.plane.tokens.create_api("bo", roles)
    return {"Authorization": f"Bearer {secret}"}


async def test_a_policy_is_put_shown_and_deleted(server: Served) -> None:
    view = await server.good("PUT", "/v1/policies/default", LEAD)
    assert (view.name, view.active, view.shadow, view.spec) == ("default", True, False, {"name": "default", **LEAD})
    other = await server.good("PUT", "/v1/policies/new", {"deny": [{"when": "True", "reason": "closed"}]})
    assert (other.active, other.shadow) == (False, False)
    assert [each.name for each in (await server.good("GET", "/v1/policies")).items] == ["default", "new"]
    await server.good("POST", "/v1/policies:shadow", {"name": "new"})
    assert (await server.good("GET", "/v1/policies/new")).shadow is True
    found = await server.good("GET", "/v1/policies:diff")
    assert (found.policy, found.asked, found.counts, found.newest) == ("new", 0, {}, [])
    assert (await server.ask("DELETE", "/v1/policies/new"))[0] == 409
    await server.good("POST", "/v1/policies:shadow", {})
    await server.good("DELETE", "/v1/policies/new")
    assert (await server.ask("GET", "/v1/policies:diff"))[0] == 404
    status, problem = await server.ask("GET", "/v1/policies/defalt")
    assert (status, problem.hint) == (404, "did you mean 'default'?")


async def test_mistakes_in_a_policy_are_told_and_rules_that_fail_are_listed(server: Served) -> None:
    status, problem = await server.ask(
        "PUT", "/v1/policies/default", {"deny": [{"when": "session.gpus", "reason": "x"}]}
    )
    assert (status, problem.hint) == (400, "did you mean 'gpu'?")
    status, problem = await server.ask("PUT", "/v1/policies/default", {"name": "other"})
    assert status == 400
    await server.good("PUT", "/v1/policies/default", {"deny": [{"when": "1 / session.gpu > 1", "reason": "x"}]})
    assert (await server.good("GET", "/v1/policies:problems")).items == []
    row = await server.plane.sessions.get("default", (await server.submit()).id)
    (await server.plane.policies.active()).admit(row)
    (found,) = (await server.good("GET", "/v1/policies:problems")).items
    assert (found.rule, "division by zero" in found.why) == ("default: 1 / session.gpu > 1", True)


async def test_a_session_is_approved_by_those_who_have_the_role(server: Served) -> None:
    await server.good("PUT", "/v1/policies/default", LEAD)
    view = await server.submit(name="train", resources={"gpu": 2})
    row = await server.plane.sessions.get("default", view.id)
    held: dict[str, Any] = {"state": SessionState.HELD, "reason": Reason.APPROVAL}
    await server.plane.change(row, **held)
    path = f"{SESSIONS}/train:approve"
    status, problem = await server.ask("POST", path, {}, **await token(server, "finance"))
    assert (status, problem.code, problem.detail) == (
        403,
        "FORBIDDEN",
        "bo does not have the role lead",
    )
    done = await server.good("POST", path, {"role": "lead"}, **await token(server, "lead"))
    assert (done.state, done.reason, done.approved_by) == ("queued", "APPROVED", "lead:bo")
    assert (await server.ask("POST", f"{SESSIONS}/none:approve", {}))[0] == 404


async def test_roles_are_given_by_administrators_only(server: Served) -> None:
    made = await server.good("POST", "/v1/tokens", {"kind": "api", "owner": "bo", "roles": ["lead"]})
    assert made.roles == ["lead"]
    plain = {"Authorization": f"Bearer {made.secret}"}
    for roles in (["lead"], ["admin"]):
        status, problem = await server.ask("POST", "/v1/tokens", {"kind": "api", "roles": roles}, **plain)
        assert (status, problem.detail) == (403, "bo may not give roles")
    assert (await server.good("POST", "/v1/tokens", {"kind": "api"}, **plain)).roles == []
    status, problem = await server.ask("POST", "/v1/tokens", {"site": "desk", "roles": ["lead"]})
    assert (status, problem.detail) == (400, "a join token has no roles")


async def test_a_budget_is_put_shown_and_deleted(server: Served) -> None:
    member = Member(rank=0, agent="a-1", slots=Slots(), price=micros(2), started_at=NOW - 1800, ended_at=NOW)
    spec = (await server.plane.sessions.get("default", (await server.submit()).id)).spec
    ended = Session(
        id="s-old", name="old", project="default", owner="ada", spec=spec, state=SessionState.SUCCEEDED,
        members=(member,), cost=micros(1), created_at=NOW - 1800, ended_at=NOW,
        stretches=(
            Stretch(site="a", group="b", price=micros(2), started_at=NOW - 1800, ended_at=NOW, cost=micros(1)),
        ),
    )  # fmt: skip
    async with server.plane.store.transaction() as tx:
        await tx.insert(ended)
    view = await server.good("PUT", "/v1/budgets/mine", {"amount": 10, "project": "default", "period": "total"})
    assert (view.spent, view.committed, view.left, view.stage, view.ends) == (1.0, 0.0, 9.0, "", None)
    assert view.spec == {"name": "mine", "amount": 10, "project": "default", "period": "total"}
    view = await server.good("PUT", "/v1/budgets/mine", {"amount": 1, "project": "default", "period": "month"})
    assert (view.left, view.stage) == (0.0, "hold")
    assert view.began < NOW < view.ends
    (listed,) = (await server.good("GET", "/v1/budgets")).items
    assert listed == await server.good("GET", "/v1/budgets/mine")
    assert (await server.ask("PUT", "/v1/budgets/mine", {"amount": -1}))[0] == 400
    assert (await server.ask("PUT", "/v1/budgets/mine", {"amount": 1, "zone": "Mars"}))[0] == 400
    await server.good("DELETE", "/v1/budgets/mine")
    assert (await server.ask("GET", "/v1/budgets/mine"))[0] == 404
    events = (await server.good("GET", "/v1/events?kinds=budget")).items
    assert [each.state for each in events] == ["created", "changed", "deleted"]
    assert {each.message for each in events} == {"by ada"}
