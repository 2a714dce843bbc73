"""Pretend machines are real: they run their boot script, and nothing of them is left when they end."""

import asyncio
import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from providers.port import Intent, Machine, MachineState
from tests.clouds.harness import OWNER
from tests.clouds.sim.harness import SimHarness

DEADLINE_S = 15.0


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[SimHarness]:
    harness = SimHarness(tmp_path / "clouds")
    harness.start()
    yield harness
    harness.stop()
    assert harness.leftovers() == []


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.02)


def state(cloud: SimHarness) -> MachineState:
    return next(seen.state for seen in cloud.inventory())


def folder(cloud: SimHarness, machine: Machine) -> Path:
    return cloud.directory / "pretend" / "machines" / machine.provider_id


def spot(cloud: SimHarness, script: str) -> Intent:
    return cloud.intent("i-1", script=script, spot=True)


async def test_boot_script_gets_the_machines_own_environment(cloud: SimHarness) -> None:
    script = 'env > "$HOME/env.new" && mv "$HOME/env.new" "$HOME/env"; exec sleep 60\n'
    machine = await cloud.driver().create(cloud.intent("i-1", script=script))
    written = folder(cloud, machine) / "home" / "env"
    await until(written.exists)
    env = dict(line.split("=", 1) for line in written.read_text().splitlines())
    base = folder(cloud, machine)
    assert env["HOME"] == str(base / "home")
    assert env["ATOLL_HOME"] == str(base / "home" / ".atoll")
    assert env["ATOLL_AGENT_SLOTS"] == "cpu=1,memory=2GiB,disk=20GiB"
    assert env["ATOLL_INSTANCE_NOTICE"].startswith(str(base))
    assert os.access(env["ATOLL_INSTANCE_POWEROFF"], os.X_OK)
    assert "SIM_TEST_SECRET" not in env


async def test_terminate_ends_what_left_its_session(cloud: SimHarness) -> None:
    """Orphans that made a session of their own and ignore TERM end with their machine."""
    script = 'setsid sh -c \'trap "" TERM; touch "$HOME/up"; while :; do sleep 1; done\' & exec sleep 60\n'
    driver = cloud.driver()
    machine = await driver.create(cloud.intent("i-1", script=script))
    await until((folder(cloud, machine) / "home" / "up").exists)
    await driver.terminate(machine.provider_id)
    await until(lambda: state(cloud) is MachineState.ENDED)
    assert cloud.leftovers() == []
    assert not (folder(cloud, machine) / "home").exists()


async def test_power_off_from_inside(cloud: SimHarness) -> None:
    machine = await cloud.driver().create(cloud.intent("i-1", script='sleep 60 & "$ATOLL_INSTANCE_POWEROFF"; wait\n'))
    await until(lambda: state(cloud) is MachineState.ENDED)
    assert "powered off" in await cloud.driver().console(machine.provider_id)


async def test_machine_whose_processes_all_ended_is_ended(cloud: SimHarness) -> None:
    await cloud.driver().create(cloud.intent("i-1", script="exit 3\n"))
    await until(lambda: state(cloud) is MachineState.ENDED)
    (machine,) = await cloud.driver().describe(OWNER)
    assert "ended with 3" in machine.message


async def test_machine_lives_while_an_orphan_of_its_script_does(cloud: SimHarness) -> None:
    script = 'setsid sh -c \'while [ ! -e "$HOME/go" ]; do sleep 0.05; done\' >/dev/null 2>&1 & touch "$HOME/up"\n'
    machine = await cloud.driver().create(cloud.intent("i-1", script=script))
    home = folder(cloud, machine) / "home"
    await until((home / "up").exists)
    await until(lambda: state(cloud) is MachineState.RUNNING)
    (home / "go").touch()
    await until(lambda: state(cloud) is MachineState.ENDED)


async def test_reclaim_gives_notice_then_ends_it(cloud: SimHarness) -> None:
    cloud.inject(reclaim={"after_s": 0.3, "notice_s": 0.2, "times": 1})
    script = (
        'while [ ! -e "$ATOLL_INSTANCE_NOTICE" ]; do sleep 0.01; done; cat "$ATOLL_INSTANCE_NOTICE"; exec sleep 60\n'
    )
    machine = await cloud.driver().create(spot(cloud, script))
    await until(lambda: state(cloud) is MachineState.ENDED)
    console = await cloud.driver().console(machine.provider_id)
    notice = json.loads(next(line for line in console.splitlines() if line.startswith("{")).split("}")[0] + "}")
    assert 0 < notice["in_s"] <= 0.2
    assert "reclaimed" in console
    assert cloud.struck() == {"reclaim": 1}


async def test_on_demand_machines_are_not_reclaimed(cloud: SimHarness) -> None:
    cloud.inject(reclaim={"after_s": 0.0, "notice_s": 0.0})
    await cloud.driver().create(cloud.intent("i-1"))
    await until(lambda: state(cloud) is MachineState.RUNNING)
    assert cloud.struck() == {}


async def test_reclaim_by_the_operator(cloud: SimHarness) -> None:
    machine = await cloud.driver().create(spot(cloud, "exec sleep 60\n"))
    await until(lambda: state(cloud) is MachineState.RUNNING)
    cloud._sim().reclaim(machine.provider_id, 0.05)
    await until(lambda: state(cloud) is MachineState.ENDED)


async def test_killed_machine_is_noticed_and_its_leftovers_end(cloud: SimHarness) -> None:
    script = 'cd /; setsid env -i sleep 61 > "$HOME/log" & touch "$HOME/up"; exec sleep 60\n'
    machine = await cloud.driver().create(cloud.intent("i-1", script=script))
    base = folder(cloud, machine)
    await until((base / "home" / "up").exists)
    pid = int((base / "pid").read_text().partition(":")[0])
    os.kill(pid, signal.SIGKILL)
    await until(lambda: state(cloud) is MachineState.ENDED)
    assert cloud.leftovers() == []
    assert b"sleep\x0061" not in b"".join(_command_lines())


def _command_lines() -> list[bytes]:
    lines = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                lines.append((entry / "cmdline").read_bytes())
            except OSError:
                continue
    return lines


async def test_never_joining_boot_runs_nothing(cloud: SimHarness) -> None:
    cloud.inject(never_joins={"times": 1})
    machine = await cloud.driver().create(cloud.intent("i-1", script='touch "$HOME/up"; exec sleep 60\n'))
    await until(lambda: state(cloud) is MachineState.RUNNING)
    assert not (folder(cloud, machine) / "home" / "up").exists()
    assert "boot hangs" in await cloud.driver().console(machine.provider_id)


async def test_longest_life_ends_a_machine_by_itself(cloud: SimHarness) -> None:
    await cloud.driver().create(replace(cloud.intent("i-1"), max_life_s=0.2))
    await until(lambda: state(cloud) is MachineState.ENDED)


async def test_creator_that_died_before_switching_on(cloud: SimHarness) -> None:
    """The record is there, its process is not: whoever looks next switches it on."""
    cloud._sim()._accept(cloud.intent("i-1"))
    await until(lambda: state(cloud) is MachineState.RUNNING)
    assert len(cloud.launcher.started) == 1
