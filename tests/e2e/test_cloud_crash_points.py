"""SIGKILL of the control plane before and after every step that asks a cloud, with each cloud's own driver and server.

As in `test_crash_points`, but the machines are the cloud's: what is left, and what was made twice, is read
from the server's inventory, never from the driver.
"""

import asyncio
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from atoll import document
from atoll.client import Client
from tests.clouds import every
from tests.clouds.harness import Harness
from tests.e2e.test_crash_points import Crashing, sweep

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


class AtCloud(Crashing):
    """A control plane whose group grows at a test cloud."""

    def __init__(self, folder: Path, cloud: Harness, *, cold: int = 0) -> None:
        super().__init__(folder, cold=cold)
        self.cloud = cloud
        self.made: dict[str, set[str]] = {}

    def set_up(self, client: Client, provider: str = "", boot_s: float = 30) -> None:
        account = self.cloud.provider()
        row = {"name": account.name, "type": account.kind, "settings": dict(account.settings)}
        client.apply(document.provider(row))
        if self.cloud.name != "openstack":
            client.update_prices(account.name)
        super().set_up(client, account.name, boot_s)

    def fault(self, **faults: Mapping[str, object]) -> None:
        self.cloud.inject(**{kind: {k: v for k, v in rule.items() if k != "id"} for kind, rule in faults.items()})

    def crash(self, point: str, work: Any = None) -> None:
        super().crash(point, work)
        self.inventory()

    def inventory(self) -> dict[str, Any]:
        """Return what the cloud has and had, as far as anything has seen it."""
        machines = {seen.provider_id: seen for seen in self.cloud.inventory() if seen.owner}
        live: dict[str, list[str]] = {}
        for key, seen in machines.items():
            self.made.setdefault(seen.intent, set()).add(key)
            if seen.state != "ended":
                live.setdefault(seen.intent, []).append(key)
        assert all(len(keys) == 1 for keys in live.values()), f"an intent has two live machines: {live}"
        return {"machines": {key: {"intent": seen.intent, "state": seen.state} for key, seen in machines.items()}}


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.xdist_group(f"cloud-{name}")) for name in every.REAL])
def cloud(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Harness]:
    harness = every.harness(request.param, tmp_path / "cloud")
    harness.start()
    try:
        yield harness
    finally:
        harness.stop()
    assert harness.leftovers() == []


LIFE = ["launch.token", "launch.create", "launch.confirm", "join.consume", "end.call", "end.observe", "observe.list"]


def test_the_life_of_a_launch(cloud: Harness, tmp_path: Path) -> None:
    sweep(tmp_path, LIFE, crashing=AtCloud(tmp_path, cloud))


def test_a_refused_launch(cloud: Harness, tmp_path: Path) -> None:
    need(cloud, "no_capacity")
    sweep(tmp_path, ["launch.refuse"], faults={"no_capacity": {"times": 1}}, crashing=AtCloud(tmp_path, cloud))


def test_a_lost_reply(cloud: Harness, tmp_path: Path) -> None:
    need(cloud, "lost_reply")
    lost = {"lost_reply": {"times": 1, "after_effect": True}}
    sweep(tmp_path, ["launch.create", "launch.confirm"], faults=lost, crashing=AtCloud(tmp_path, cloud))


def test_a_cold_pool(cloud: Harness, tmp_path: Path) -> None:
    steps = ["cold.stop", "cold.observe", "cold.start"]
    sweep(tmp_path, steps, cold=1, crashing=AtCloud(tmp_path, cloud, cold=1))


def test_an_orphan(cloud: Harness, tmp_path: Path) -> None:
    def work(at: Crashing, process: "subprocess.Popen[bytes]") -> None:
        status = at.ask(lambda c: c.status(), process)
        if status is not None:
            intent = cloud.intent(f"i-orphan-{time.monotonic_ns()}", owner=status.installation)
            asyncio.run(cloud.driver().create(replace(intent, user_data="#!/bin/sh\nsleep 99\n")))

    sweep(tmp_path, ["sweep.terminate", "sweep.record"], work=work, crashing=AtCloud(tmp_path, cloud))


def need(cloud: Harness, fault: str) -> None:
    if fault not in cloud.can:
        pytest.skip(f"the {cloud.name} server cannot be made to have {fault}")
