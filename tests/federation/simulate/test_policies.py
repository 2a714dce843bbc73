"""Which policies a replay goes by: the installation's, those of projects beside it, and what stands in for them."""

from pathlib import Path

import pytest

from atoll.document import policy
from atoll.errors import Invalid
from atoll.policy import Policy
from federation.control.rulings import active
from federation.simulate.model import Options
from federation.simulate.policies import course, replayed
from tests.federation.simulate.builders import job, setup, shape

EXACT = Options(tick_s=0.0, drain_s=0.0)
LIVE = policy({"max_wait": "10m"})
TEACHING = policy({
    "name": "teaching-rules", "project": "teaching", "max_wait": "1m",
    "deny": [{"when": "not offer.owned", "reason": "teaching stays at home"}],
})  # fmt: skip
NOBODY = policy({"name": "lab", "project": "lab", "deny": [{"when": "session.cpu > 1", "reason": "small ones only"}]})
INSTALLED = [LIVE, TEACHING, NOBODY, policy({"name": "aside", "deny": [{"when": "True", "reason": "never"}]})]


def names(found: tuple[Policy, ...]) -> list[str]:
    return [each.name for each in found]


def test_a_session_is_judged_by_the_policies_of_its_project_too() -> None:
    jobs = [
        job("home", 0, 3600, 2),
        job("burst", 1, 100, 2, project="vision"),
        job("pupil", 2, 100, 2, project="teaching"),
        job("lab", 3, 100, 2, project="lab"),
    ]
    found = replayed(course("default", INSTALLED), jobs, setup(1, shape()), options=EXACT)
    assert {run.job: (run.sites, run.reason) for run in found.runs} == {
        "home": (("hall",), ""),
        "burst": (("cloud",), ""),
        "pupil": ((), "MAX_WAIT"),
        "lab": ((), "small ones only"),
    }


def test_what_is_in_force_is_what_the_control_plane_has_in_force() -> None:
    here, there = course("default", INSTALLED).active, active(INSTALLED)
    assert here.policies == there.policies
    assert here.rules.version == there.rules.version
    assert [here.longest_wait(name) for name in ("teaching", "vision")] == [60.0, 600.0]


def test_what_is_named_stands_in_for_the_installations_own_or_its_projects(tmp_path: Path) -> None:
    assert names(course("aside", INSTALLED).active.policies) == ["aside", "lab", "teaching-rules"]
    assert names(course("lab", INSTALLED).active.policies) == ["default", "lab", "teaching-rules"]
    assert course("default").active.policies == ()
    path = tmp_path / "new.yaml"
    path.write_text("name: new\n---\nname: lab\nproject: lab\n---\nname: more\nproject: lab\n")
    found = course(f"{path}:wait_value=2", INSTALLED)
    assert names(found.active.policies) == ["new", "lab", "more", "teaching-rules"]
    assert found.active.policies[1].deny == ()
    path.write_text("name: new\n---\nname: newer\n")
    with pytest.raises(Invalid, match="2 policies of the installation"):
        course(str(path))
    with pytest.raises(Invalid, match="there is no policy 'nowhere'"):
        course("nowhere", INSTALLED)
