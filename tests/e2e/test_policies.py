"""Policies, approvals and budgets from the command line, against one real installation."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.installation import Installation
from tests.e2e.test_bad_input import told
from tests.e2e.waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.xdist_group("policies")]

RULES = """
kind: policy
deny:
  - {when: session.cpu > 16, reason: more than half the hall}
  - {when: offer.provider == 'sim', reason: that cloud is not ours}
approve:
  - {when: session.cpu > 4, role: lead, reason: large}
prefer:
  - {when: offer.spot, cost: x1.5}
---
kind: budget
name: team
project: default
amount: 1.5
period: month
stages: [{at: 0.5, do: notify}, {at: 1.0, do: hold}]
"""
TRACE = "id,at,duration_s,cpu\n" + "".join(f"job-{n},{n * 60},600,{2 if n % 3 else 6}\n" for n in range(30))


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    env = {"ATOLL_TIMES__SCHEDULE_S": "0.2"}
    with Installation(tmp_path_factory.mktemp("policies"), slots="cpu=32,memory=32GiB", env=env) as installation:
        installation.up()
        yield installation


@pytest.fixture(scope="module")
def rules(at: Installation) -> str:
    """The policy and the budget are in force; what `atoll apply` said."""
    at.atoll("apply", "-f", "-", stdin="kind: site\nname: local\nprice: 3.2\n")
    return at.atoll("apply", "-f", "-", stdin=RULES)


def submit(at: Installation, name: str, cpu: int, *flags: str, seconds: int = 30) -> None:
    command = ["--name", name, "--cpu", str(cpu), *flags, "--", "sleep", str(seconds)]
    at.atoll("run", "--detach", *command)


def test_documents_are_put_in_force_once(at: Installation, rules: str, tmp_path: Path) -> None:
    assert rules.splitlines() == ["budget/team created", "policy/default created"]
    again = at.atoll("apply", "-f", "-", stdin=RULES)
    assert again.splitlines() == ["budget/team unchanged", "policy/default unchanged"]
    [listed] = [line.split() for line in at.atoll("policy", "list").splitlines()[1:]]
    assert listed[:6] == ["default", "all", "yes", "2", "1", "1"]
    shown = at.atoll("policy", "show")
    (tmp_path / "shown.yaml").write_text(shown)
    assert at.atoll("policy", "apply", str(tmp_path / "shown.yaml")) == "policy/default unchanged\n"
    standing = at.atoll("budget", "show", "team")
    assert "budget team of project default: 1.50, a month" in standing
    assert "at 100 % (1.50): hold" in standing


def test_a_denied_session_is_held_and_told_why(at: Installation, rules: str) -> None:
    told(at.call("run", "--name", "greedy", "--cpu", "20", "--", "true"), "more than half the hall", code=124)
    view = at.session("greedy")
    assert (view["state"], view["reason"]) == ("held", "POLICY")
    why = " ".join(at.atoll("why", "greedy").split())
    assert "decision" in why
    assert "denied by policy default: more than half the hall" in why
    at.atoll("stop", "greedy")


def test_somebody_with_the_role_approves(at: Installation, rules: str) -> None:
    submit(at, "large", 6)
    [held] = at.wait(["large"], ["held"])
    assert (held["reason"], held["message"]) == ("APPROVAL", "needs the approval of a lead, by policy default: large")
    assert "atoll approve large --as lead" in at.atoll("why", "large")
    lead = at.atoll("token", "create", "--api", "--owner", "ada", "--role", "lead").strip()
    other = at.atoll("token", "create", "--api", "--owner", "bo", "--role", "intern").strip()
    refused = at.call("approve", "large", env={"ATOLL_TOKEN": other})
    told(refused, "bo does not have the role lead", "atoll approve large --as lead", code=121)
    approved = at.call("approve", "large", env={"ATOLL_TOKEN": lead})
    assert (approved.returncode, "approved by ada as lead" in approved.stdout) == (0, True), approved.stderr
    at.wait(["large"], ["running"])
    told(at.call("approve", "large"), "is running and needs no approval", code=123)
    told(at.call("approve", "nobody"), "nobody", code=122)
    at.atoll("stop", "--wait", "large")


def test_a_policy_is_tried_on_a_session_before_it_is_in_force(at: Installation, rules: str, tmp_path: Path) -> None:
    policy, session = tmp_path / "policy.yaml", tmp_path / "session.yaml"
    policy.write_text(
        "deny: [{when: offer.site == 'local', reason: closed}]\napprove: [{when: session.cost > 1, role: cfo}]"
    )
    session.write_text("command: ['true']\n")
    text = at.atoll("policy", "check", str(policy), "--session", str(session))
    assert text.splitlines()[:2] == ["policy default is well: 2 rules", "the session may run"]
    assert "of local at local: denied: closed" in text
    dear = at.atoll("policy", "check", str(policy), "--session", str(session), "--cost", "2", "--offline")
    assert "the session needs the approval of a cfo" in dear


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("deny: [{when: session.gpus > 1, reason: x}]", ["session.gpus", "did you mean", "session.gpu"]),
        ("deny: [{when: session.gpu >, reason: x}]", ["policy.deny[0].when"]),
        ("deny: [{when: 'open(1)', reason: x}]", ["policy.deny[0].when"]),
        ("project: red\nshares: {red: 2}", ["whole installation", "default"]),
        ("dney: []", ["dney", "did you mean", "deny"]),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_wrong_rule_is_told(at: Installation, tmp_path: Path, text: str, words: list[str]) -> None:
    (tmp_path / "wrong.yaml").write_text(text)
    told(at.call("policy", "check", str(tmp_path / "wrong.yaml")), *words, code=120)


def test_wrong_words_are_told(at: Installation, rules: str) -> None:
    budget = "kind: budget\nname: b\n"
    for stdin, words in (
        (budget, ["amount"]),
        (f"{budget}amount: 5\nperiod: fortnight\n", ["fortnight", "month"]),
        (f"{budget}amount: 5\nstages: [{{at: 0.5, do: panic}}]\n", ["panic", "hold"]),
    ):
        told(at.call("apply", "-f", "-", stdin=stdin), *words, code=120)
    told(at.call("policy", "show", "defualt"), "defualt", "default", code=122)
    told(at.call("budget", "show", "tema"), "tema", "team", code=122)
    told(at.call("policy", "shadow", "default"), "is in force", code=120)
    told(at.call("policy", "diff"), "no policy is a shadow", code=122)
    told(at.call("policy", "test", "-", "--replay", "7x"), code=120)


def test_a_policy_is_tested_on_a_trace(at: Installation, rules: str, tmp_path: Path) -> None:
    (tmp_path / "jobs.csv").write_text(TRACE)
    strict = tmp_path / "strict.yaml"
    strict.write_text("name: strict\ndeny: [{when: session.cpu > 4, reason: too large}]\n")
    args = ["policy", "test", str(strict), "--trace", str(tmp_path / "jobs.csv"), "--compare"]
    text = at.atoll(*args)
    assert text.startswith("30 jobs\n")
    assert "10 denied: too large" in text
    assert "default: 10 for approval: lead: large" in text
    assert "10 denied" in text.split("under ")[1]
    live, tested = json.loads(at.atoll(*args, "-o", "json"))
    assert (len(live["for_approval"]), len(tested["denied"]), len(live["denied"])) == (10, 10, 0)
    assert live["unplaced"] == tested["unplaced"] == 0
    assert live["wait_p95_s"] >= tested["wait_p95_s"]


def test_a_shadow_is_compared_and_changes_nothing(at: Installation, rules: str, tmp_path: Path) -> None:
    (tmp_path / "tried.yaml").write_text("name: tried\ndeny: [{when: session.cpu > 1, reason: tried}]\n")
    said = at.call("policy", "apply", str(tmp_path / "tried.yaml"))
    assert (said.stdout, "only 'default' is in force" in said.stderr) == ("policy/tried created\n", True)
    assert "policy tried is the shadow" in at.atoll("policy", "shadow", "tried")
    submit(at, "fills", 4)
    at.wait(["fills"], ["running"])
    submit(at, "waits", 4, "--site", "nowhere")

    def differs() -> str:
        found = at.atoll("policy", "diff")
        return found if "waits" in found else ""

    text = until(differs, "a difference", story=at.story)
    assert "denied by policy default: tried" in text
    assert at.session("waits")["reason"] == "NO_CAPABLE_SITE"
    assert "shadow" in at.atoll("policy", "list")
    told(at.call("policy", "delete", "tried"), "is the shadow", "--off", code=123)
    at.atoll("policy", "shadow", "--off")
    assert at.atoll("policy", "delete", "tried") == "policy tried deleted\n"
    at.atoll("stop", "fills", "waits")


def test_a_budget_holds_what_is_beyond_it(at: Installation, rules: str, tmp_path: Path) -> None:
    document = {"resources": {"cpu": 4}, "lifetime": {"expected": "1h"}, "command": ["sleep", "60"]}
    for number in range(4):
        (tmp_path / "s.yaml").write_text(json.dumps({**document, "name": f"paid-{number}"}))
        at.atoll("run", "--detach", "--file", str(tmp_path / "s.yaml"))
    at.wait([f"paid-{number}" for number in range(3)], ["running"])
    [held] = at.wait(["paid-3"], ["held"])
    assert (held["reason"], held["message"]) == ("BUDGET", "budget team has no room for more that costs money")
    assert "raise the budget to go on sooner" in held["hint"]
    view = json.loads(at.atoll("budget", "show", "team", "-o", "json"))
    assert 1.1 < view["spent"] + view["committed"] <= view["amount"] == 1.5
    assert "notify" in at.atoll("budget", "list")
    assert "budget/team changed" in at.atoll("apply", "-f", "-", stdin=RULES.replace("1.5\n", "5\n", 1))
    at.wait(["paid-3"], ["running"])
    at.atoll("stop", *(f"paid-{number}" for number in range(4)))
