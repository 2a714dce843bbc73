"""One real machine: Debian's kernel, systemd and cloud-init under QEMU, from its user data to its own end."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from federation.control.bootscript import BootScript
from tests.clouds import vm
from tests.e2e.installation import Installation
from tests.e2e.launched import Launched, result
from tests.e2e.waiting import until
from tests.ports import free_port
from tunnel.jointoken import JoinToken

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.vm]

LEASE_S = 30
BOOT_S = 600
"""Emulated on two busy cores a boot takes minutes; alone, one."""


@pytest.fixture
def reachable(tmp_path: Path) -> Iterator[Installation]:
    """An installation on loopback, which the machine knows by the address that slirp gives this host."""
    port = free_port()
    settings = {"ATOLL_SERVER__PUBLIC_URL": f"https://{vm.HOST}:{port}", "ATOLL_TIMES__LOST_AFTER_S": "90"}
    with Installation(tmp_path, port=port, env=settings) as installation:
        installation.up("--no-agent")
        yield installation


def test_the_dead_man_of_systemd_ends_a_machine_that_never_joins(tmp_path: Path) -> None:
    nobody = JoinToken(f"https://{vm.HOST}:9", "00" * 32, "5" * 64)
    script = BootScript(name="i-1", token=nobody, cloud="openstack", boot_s=20, max_life_s=86400)
    with vm.machine(tmp_path / "vm", script.render()) as machine:
        machine.boot()
        until(lambda: not machine.on, "the machine's own end", within=BOOT_S, story=machine.console)
        console = machine.console()
        assert "CANNOT JOIN: no agent from https://10.0.2.2:9" in console
        assert "this machine ends: nothing has let it live longer" in console
        assert "Power down" in console


def test_from_user_data_to_power_off(reachable: Installation, tmp_path: Path) -> None:
    launched = Launched(reachable, tmp_path, lease=f"{LEASE_S}s", scale_down="{idle: 3600}")
    first = launched.begin("sh", "-c", "uname -r; cat /sys/class/dmi/id/sys_vendor")
    began = time.monotonic()

    def tell(what: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {what}")

    with vm.machine(tmp_path / "vm", launched.user_data()) as machine:

        def story() -> str:
            return machine.console()[-8000:] + reachable.story()

        machine.boot()
        until(launched.connected, "the machine's agent", within=BOOT_S, story=story)
        tell("its agent is connected")
        assert "-cloud-amd64\nQEMU\n" in result(first, reachable, 180)
        units = launched.run("systemctl", "is-active", "atoll-agent", "atoll-deadman", within=180)
        assert units == "active\nactive\n"
        tell("sessions ran; both units are active")

        # The agent is killed by the very session it runs; the next one takes the session over (I14).
        kill = "kill -KILL $(systemctl show -P MainPID atoll-agent); sleep 20; systemctl show -P NRestarts atoll-agent"
        assert launched.run("sh", "-c", kill, within=300) == "1\n"
        tell("its agent was killed and came back")
        agent = launched.agent()["id"]

        # A cold pool stops and starts its machines: the token is used up, the agent has joined already.
        parting = launched.begin("systemctl", "poweroff")
        until(lambda: not machine.on, "the machine's stop", within=180, story=story)
        parting.kill()
        parting.communicate()
        tell("stopped")
        machine.boot()
        until(launched.connected, "the machine's agent after a stop and start", within=BOOT_S, story=story)
        tell("started, its agent is connected")
        assert launched.agent()["id"] == agent
        assert launched.run("systemctl", "is-active", "atoll-agent", "atoll-deadman", within=180) == "active\nactive\n"

        # Without its control plane it switches itself off once its lease is over.
        reachable.atoll("down")
        down = time.monotonic()
        until(lambda: not machine.on, "the machine's own end", within=LEASE_S + 90, story=machine.console)
        tell("its control plane gone, it has switched itself off")
        assert time.monotonic() - down > LEASE_S - 10
        assert "the length of its lease" in machine.console()
        assert "Power down" in machine.console()
