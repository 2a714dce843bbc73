"""Launches of a real control plane whose machines the test boots: the `sim` cloud takes the order and boots nothing."""

import json
import subprocess
from pathlib import Path

from tests.e2e.installation import Installation
from tests.e2e.waiting import until

PROVIDER = """
kind: provider
name: sim
type: sim
settings:
  boot_s: 0.1
  shapes: [{name: small, cpu: 1, memory: 512MiB, price: 0.02}]
  faults: {never_joins: {times: 1000}}
"""
GROUP = """
kind: group
name: burst
site: far
provider: sim
size: {max: 1}
"""


class Launched:
    """The group `burst` at the site `far`, of at most one machine, which nothing boots but the caller.

    `terms` are further lines of the group's document.
    """

    def __init__(self, installation: Installation, folder: Path, **terms: str) -> None:
        self.at = installation
        lines = "".join(f"{key}: {value}\n" for key, value in terms.items())
        document = folder / "launched.yaml"
        document.write_text(f"{PROVIDER}---\n{GROUP}{lines}")
        installation.atoll("apply", "-f", str(document))

    def begin(self, *command: str) -> "subprocess.Popen[str]":
        """Begin an attached session at `far`, small enough for one machine."""
        return self.at.begin("run", "--site", "far", "--cpu", "0.5", "--memory", "64MiB", "--", *command)

    def run(self, *command: str, within: float = 60.0) -> str:
        """Run a session at `far` to its good end and return what it printed."""
        return result(self.begin(*command), self.at, within)

    def user_data(self) -> str:
        """Return the user data of the one machine that was ordered, once it is."""
        folders = self.at.home / "providers"
        found = until(lambda: list(folders.rglob("user-data")), "the order of a machine", story=self.at.story)
        assert len(found) == 1
        return found[0].read_text()

    def connected(self) -> bool:
        """Whether an agent of `far` is connected."""
        return any(agent["site"] == "far" and agent["connected"] for agent in self.at.agents())

    def agent(self) -> dict[str, object]:
        """Return the one agent at `far`, which has joined."""
        listed = json.loads(self.at.atoll("agent", "list", "--all", "-o", "json"))
        [agent] = [agent for agent in listed if agent["site"] == "far"]
        return dict(agent)


def result(process: "subprocess.Popen[str]", installation: Installation, within: float) -> str:
    """Wait for the good end of an attached session; return what it printed."""
    try:
        out, err = process.communicate(timeout=within)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"no end within {within:g} s\n{out}\n{err}\n{installation.story()}") from None
    assert process.returncode == 0, f"{out}\n{err}\n{installation.story()}"
    return out
