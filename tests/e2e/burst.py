"""An installation that bursts to a test cloud: its machines run the user data they were made with, and join."""

import json
from collections.abc import Mapping
from pathlib import Path

import yaml

from tests.clouds.harness import Harness, Seen
from tests.clouds.netns import Network
from tests.e2e.installation import Installation
from tests.e2e.waiting import until
from tests.ports import free_port

TIMES = {
    "SCHEDULE_S": "0.3",
    "LAUNCH_S": "0.3",
    "OBSERVE_S": "0.5",
    "SWEEP_S": "2",
    "LOST_AFTER_S": "3",
    "SETTLE_S": "1",
    "BACKOFF_S": "1",
    "BACKOFF_MAX_S": "2",
    "APPEARS_S": "1",
    "ABSENT_AFTER_S": "3",
}

SIM = """
kind: provider
name: sim
type: sim
settings: {boot_s: 0.1}
---
kind: group
name: burst
site: far
provider: sim
shapes: [cpu-1]
spot: false
labels: {made: by-test}
scale_down: {idle: 1s, cooldown: 1s}
"""
"""The group `burst` at the pretend cloud, of machines at 0.024 USD an hour, which end soon."""


def installation(folder: Path, network: Network | None, env: Mapping[str, str] | None = None) -> Installation:
    """Return an installation without a local agent that listens where machines of `network` reach it."""
    port = free_port()
    settings = {f"ATOLL_TIMES__{key}": value for key, value in TIMES.items()}
    if network:
        settings["ATOLL_SERVER__LISTEN"] = f"{network.host}:{port}"
    return Installation(folder, port=port, env={**settings, **(env or {})})


class Burst:
    """The group `burst` of one provider, of at most `size` machines."""

    def __init__(self, at: Installation, cloud: Harness, folder: Path, *, size: int = 2, **terms: object) -> None:
        self.at = at
        self.cloud = cloud
        made = cloud.provider()
        self.provider = made.name
        documents = [
            {"kind": "provider", "name": made.name, "type": made.kind, "settings": dict(made.settings)},
            {
                "kind": "group",
                "name": "burst",
                "site": "far",
                "provider": made.name,
                "size": {"max": size},
                "spot": False,
                "scale_down": {"idle": 1, "cooldown": 0.5},
                "boot": "60s",
                "labels": {"team": "blue"},
                **terms,
            },
        ]
        path = folder / "burst.yaml"
        path.write_text(yaml.safe_dump_all(documents))
        at.atoll("apply", "-f", str(path))

    def priced(self) -> None:
        """Read today's prices from the cloud's own list, where it has one."""
        if self.cloud.name not in ("sim", "openstack"):
            self.at.atoll("prices", "update", self.provider, timeout=90)
        shapes = json.loads(self.at.atoll("provider", "shapes", self.provider, "-o", "json", timeout=90))
        assert any(shape["price"] for shape in shapes), shapes[:3]

    def run(self, name: str, *command: str, **flags: str) -> None:
        """Queue a session for this group."""
        more = [word for key, value in flags.items() for word in (f"--{key.replace('_', '-')}", value)]
        self.at.atoll(
            "run", "--detach", "--name", name, "--site", "far", "--cpu", "1", "--memory", "64MiB", *more, "--", *command
        )

    def live(self) -> list[Seen]:
        """Return what the cloud still has of ours, by its own inventory."""
        return [seen for seen in self.cloud.inventory() if seen.state != "ended" and seen.owner]

    def empty(self, within: float = 60.0) -> None:
        """Wait until the cloud has nothing of ours any more."""
        until(lambda: not self.live(), "no machine is left at the cloud", within=within, story=self.story)

    def story(self) -> str:
        """Return what helps to understand a failure."""
        found = [f"{seen.provider_id} {seen.state} {seen.intent}" for seen in self.cloud.inventory()]
        return "\n".join([*found, self.at.story()])
