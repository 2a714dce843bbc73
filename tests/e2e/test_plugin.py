"""The example of a provider from elsewhere: installed by pip, held by the contract's suite, and put to work."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e import namespaces
from tests.e2e.installation import ROOT, Installation
from tests.e2e.waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.xdist_group("plugin")]

EXAMPLE = ROOT / "docs" / "plugin-example"
FLAGS = ("--pid", "--fork", "--mount-proc")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the example is installed in, as a distribution with its entry point."""
    namespaces.need(*(() if os.geteuid() == 0 else ("--user", "--map-root-user")), *FLAGS)
    folder = tmp_path_factory.mktemp("plugin")
    shutil.copytree(EXAMPLE, folder / "source")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index"]
    done = subprocess.run(
        [*pip, "--no-build-isolation", "--target", str(folder / "site"), str(folder / "source")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "site"


def test_the_contracts_suite_runs_over_it(site: Path) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": f"{site}{os.pathsep}{EXAMPLE}",
        "ATOLL_PROVIDER_HARNESS": "harness:LabHarness",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/contracts/providers"],
        cwd=ROOT,
        env={key: value for key, value in environment.items() if not key.startswith("PYTEST_")},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed
    assert int(passed[1]) >= 19, done.stdout
    reasons = re.findall(r"^SKIPPED .*?: (.*)$", done.stdout, re.MULTILINE)
    known = r"the lab server cannot be made to have \w+|lab sells nothing as spot|lab is not reached by HTTP"
    assert all(re.fullmatch(known, reason) for reason in reasons)


def test_a_session_runs_on_a_machine_it_made(site: Path, tmp_path: Path) -> None:
    with Installation(tmp_path, env={"PYTHONPATH": str(site)}) as running:
        running.up()
        running.atoll("provider", "add", "lab", "--name", "bench", "--set", "price=0.05", "--doctor")
        (offer,) = json.loads(running.atoll("provider", "shapes", "bench", "-o", "json"))
        assert offer["price"] == 0.05
        (tmp_path / "group.yaml").write_text(
            "kind: group\nname: burst\nsite: lab\nprovider: bench\n"
            "size: {max: 1}\nscale_down: {idle: 1s, cooldown: 1s}\n"
        )
        running.atoll("apply", "-f", str(tmp_path / "group.yaml"))
        ran = running.atoll(
            "run", "--site", "lab", "--cpu", "0.5", "--memory", "64MiB", "--", "echo", "here", timeout=90
        )
        assert ran == "here\n"
        (record,) = (running.home / "providers").rglob("record.json")
        assert json.loads(record.read_text())["owner"]
        until(
            lambda: json.loads(record.read_text())["state"] == "ended",
            "the idle machine's end",
            within=120,
            story=running.story,
        )
