"""`atoll policy`, `budget` and `approve` against a small server: what they send, print and exit with."""

import json
from pathlib import Path

import pytest

from atoll import AsyncClient
from atoll.cli.main import main
from atoll.client import views
from atoll.document import budget as read_budget
from atoll.document import policy as read_policy
from tests.atoll.plane import TOKEN, Plane, budget_view, session_view

Capture = pytest.CaptureFixture[str]
POLICY = """
kind: policy
name: NAME
deny:
  - when: session.gpu > 4
    reason: too many
  - when: offer.site == 'far'
    reason: too far
approve:
  - {when: session.hours > 24, role: lead}
prefer:
  - {when: offer.spot, cost: x1.5}
"""


def file(folder: Path, text: str, name: str = "f.yaml") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def test_a_policy_is_applied_listed_shown_and_deleted(logged_in: Plane, tmp_path: Path, capsys: Capture) -> None:
    assert main(["policy", "list"]) == 0
    assert "everything is allowed" in capsys.readouterr().err
    place = file(tmp_path, POLICY.replace("NAME", "default"))
    assert main(["policy", "apply", place]) == 0
    assert main(["policy", "apply", place]) == 0
    assert main(["apply", "-f", place]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "policy/default created",
        "policy/default unchanged",
        "policy/default unchanged",
    ]
    logged_in.rule_problems = [views.RuleProblemView(rule="default: x", why="division by zero")]
    assert main(["policy", "list"]) == 0
    told = capsys.readouterr()
    assert told.out.splitlines()[1].split() == ["default", "all", "yes", "2", "1", "1", *told.out.split()[-1:]]
    assert "division by zero" in told.err
    assert main(["policy", "show"]) == 0
    assert capsys.readouterr().out.startswith("kind: policy\nname: default\ndeny:\n")
    assert main(["get", "policies", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["name"] == "default"
    assert main(["get", "policy", "default"]) == 0
    assert main(["policy", "delete", "default"]) == 0
    assert main(["policy", "delete", "default"]) == 122


def test_a_policy_that_is_not_in_force_can_be_tried_as_a_shadow(
    logged_in: Plane, tmp_path: Path, capsys: Capture
) -> None:
    assert main(["policy", "apply", file(tmp_path, POLICY.replace("NAME", "new"))]) == 0
    assert "atoll policy shadow new" in capsys.readouterr().err
    assert main(["policy", "diff"]) == 122
    assert main(["policy", "shadow"]) == 120
    assert main(["policy", "shadow", "new"]) == 0
    capsys.readouterr()
    assert main(["policy", "diff"]) == 0
    told = capsys.readouterr().out
    assert "policy new: 3 differences over 9 sessions" in told
    assert "3  place -> POLICY" in told
    assert "train" in told
    assert main(["policy", "shadow", "--off"]) == 0
    assert logged_in.shadow == ""


def test_a_policy_is_checked_against_a_session(logged_in: Plane, tmp_path: Path, capsys: Capture) -> None:
    place = file(tmp_path, POLICY.replace("NAME", "new"))
    assert main(["policy", "check", place]) == 0
    assert capsys.readouterr().out == "policy new is well: 4 rules\n"
    assert main(["policy", "check", file(tmp_path, "deny: [{when: session.gpus, reason: x}]", "bad.yaml")]) == 120
    assert "did you mean 'gpu'?" in capsys.readouterr().err
    small = file(tmp_path, "command: x\nlifetime: {expected: 2d}\n", "s.yaml")
    assert main(["policy", "check", place, "--session", small, "--offline"]) == 0
    assert "needs the approval of a lead" in capsys.readouterr().out
    large = file(tmp_path, "command: x\nresources: {gpu: 8}\n", "l.yaml")
    assert main(["policy", "check", place, "--session", large, "--offline"]) == 0
    assert "the session is denied: too many" in capsys.readouterr().out
    facts = {"kind": "launch", "group": "b", "slots": views.SlotsView(), "price": 1.0, "cost": 1.0, "start_s": 9.0}
    logged_in.ranked = [
        views.OfferView(site="far", target="c4/a/spot", spot=True, **facts),  # type: ignore[arg-type]
        views.OfferView(site="near", target="c4/b/spot", spot=True, **facts),  # type: ignore[arg-type]
    ]
    assert main(["policy", "check", place, "--session", file(tmp_path, "command: x\n", "p.yaml")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == [
        "the session may run",
        "  launch c4/a/spot of b at far: denied: too far",
        "  launch c4/b/spot of b at near: x1.5 +0",
    ]


def test_a_budget_is_applied_shown_as_a_bar_and_deleted(logged_in: Plane, tmp_path: Path, capsys: Capture) -> None:
    assert main(["budget", "list"]) == 0
    assert "no budgets" in capsys.readouterr().err
    place = file(tmp_path, "{kind: budget, name: red, project: red, amount: 10, period: total}")
    assert main(["budget", "apply", place]) == 0
    assert main(["apply", "-f", place]) == 0
    assert capsys.readouterr().out == "budget/red created\nbudget/red unchanged\n"
    logged_in.objects["budgets"] = {"red": budget_view()}
    assert main(["budget", "list"]) == 0
    assert "[########++++........]" in capsys.readouterr().out
    assert main(["budget", "show", "red"]) == 0
    told = capsys.readouterr().out
    assert "budget red of project red: 10.00, for ever" in told
    assert "[################++++++++................]" in told
    assert "at 80 % (8.00): notify  <- now" in told
    assert main(["budget", "show", "red", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["spent"] == 4.0
    assert main(["budget", "delete", "red"]) == 0
    assert main(["budget", "show", "red"]) == 122


def test_a_session_is_approved_as_a_role(logged_in: Plane, capsys: Capture) -> None:
    logged_in.sessions["s-1"] = session_view(1, {"name": "train"})
    assert main(["approve", "train", "--as", "lead"]) == 0
    assert capsys.readouterr().out == "train is queued: approved by me as lead\n"
    assert logged_in.bodies[-1] == {"role": "lead"}
    assert main(["approve", "none"]) == 122


def test_roles_are_of_api_tokens(logged_in: Plane, capsys: Capture) -> None:
    assert main(["token", "create", "--api", "--owner", "bo", "--role", "lead", "--role", "finance"]) == 0
    assert logged_in.bodies[-1] == {"kind": "api", "owner": "bo", "roles": ["lead", "finance"]}
    assert main(["token", "create", "--site", "desk", "--role", "lead"]) == 120


async def test_the_other_client_does_the_same(plane: Plane) -> None:
    async with AsyncClient(plane.url, TOKEN) as client:
        row = read_policy({"name": "new", "max_wait": 60})
        assert (await client.apply_policy(row)).spec == {"name": "new", "max_wait": "1m"}
        assert [each.name for each in await client.policies()] == ["new"]
        assert (await client.policy("new")).active is False
        await client.shadow("new")
        assert (await client.policy_diff()).asked == 9
        assert await client.policy_problems() == []
        budget = await client.apply_budget(read_budget({"name": "red", "amount": 5}))
        assert (budget.amount, len(await client.budgets()), (await client.budget("red")).name) == (5, 1, "red")
        plane.sessions["s-1"] = session_view(1, {"name": "train"})
        assert (await client.approve("train", "lead")).state == "queued"


def test_offers_are_asked_for_in_a_project_and_say_when_the_session_would_be_held(
    logged_in: Plane, capsys: Capture
) -> None:
    offer = views.OfferView(
        kind="agent", site="here", group="hall", target="a-1", slots=views.SlotsView(cpu=1, memory=1, disk=0, gpu=[]),
        price=0.1, cost=0.1, start_s=0.0, spot=False,
    )  # fmt: skip
    assert main(["offers", "--cpu", "1"]) == 0
    assert logged_in.bodies[-1]["project"] == "default"
    assert capsys.readouterr().out.startswith("no offer: PLACED")
    logged_in.ranked, logged_in.outlook = [offer], ("hold", "BUDGET", "budget red has no room", "raise it")
    assert main(["offers", "--project", "red"]) == 0
    assert logged_in.bodies[-1]["project"] == "red"
    told = capsys.readouterr()
    assert told.out.splitlines()[-1] == "it would be held: BUDGET budget red has no room"
    assert "hint: raise it" in told.err
