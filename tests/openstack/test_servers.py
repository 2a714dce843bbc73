"""What only the real servers can show of the driver: its machines, its races, its GPUs."""

import asyncio
import base64
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from providers.errors import Absent, Capacity, Quota
from providers.openstack.request import owner_tag
from providers.port import Driver, Intent, MachineState
from tests.clouds.harness import OWNER
from tests.clouds.openstack.harness import OpenStackHarness
from tests.openstack.server import GPUS

pytestmark = pytest.mark.xdist_group("cloud-openstack")
DEADLINE_S = 60.0


def on(cloud: OpenStackHarness, name: str, flavor: str, zone: str = "a") -> Intent:
    intent = cloud.intent(name, zone=zone)
    return replace(intent, shape=replace(intent.shape, name=flavor))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.05)


async def gone(driver: Driver, provider_id: str) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                await driver.terminate(provider_id)
            except Absent:
                return
            await asyncio.sleep(0.05)


async def test_four_gpus_are_four_machines_and_the_fifth_finds_no_host(cloud: OpenStackHarness) -> None:
    driver = cloud.driver()
    made = await asyncio.gather(*(driver.create(on(cloud, f"i-{n}", "g1.a100")) for n in range(GPUS)))
    with pytest.raises(Capacity, match="No valid host"):
        await driver.create(on(cloud, "i-5", "g1.a100"))
    assert {seen.intent for seen in cloud.inventory()} == {f"i-{n}" for n in range(GPUS)}
    await driver.create(on(cloud, "i-6", "g1.a100", zone="b"))
    await gone(driver, made[0].provider_id)
    await driver.create(on(cloud, "i-5", "g1.a100"))
    assert {seen.zone for seen in cloud.inventory() if seen.intent == "i-6"} == {"b"}
    assert len(cloud.inventory()) == GPUS + 1


async def test_what_found_no_host_holds_no_quota(cloud: OpenStackHarness) -> None:
    driver = cloud.driver()
    with pytest.raises(Capacity) as caught:
        await driver.create(on(cloud, "i-1", "m1.huge"))
    assert caught.value.scope == "shape"
    assert cloud.inventory() == []
    assert {limit.name: limit.used for limit in await driver.quota()}["instances"] == 0


async def test_a_quota_is_named_as_quota_tells_it(cloud: OpenStackHarness) -> None:
    cloud.cloud.operator.set_quota(instances=1)
    driver = cloud.driver()
    await driver.create(cloud.intent("i-1"))
    with pytest.raises(Quota) as caught:
        await driver.create(cloud.intent("i-2"))
    told = {limit.name: (limit.limit, limit.used, limit.counts) for limit in await driver.quota()}
    assert caught.value.name == "instances"
    assert told["instances"] == (1, 1, "instances")
    assert told["cores"] == (8000, 1, "cpu")
    assert "ram" not in told, "an unlimited one is no limit"


async def test_control_planes_on_several_hosts_make_one_machine(cloud: OpenStackHarness, tmp_path: Path) -> None:
    """Without the lock that they share on one host, nova makes several; all agree on the one that stays."""
    hosts = [replace(cloud, directory=tmp_path / f"host-{n}") for n in range(4)]
    made = await asyncio.gather(*(host.driver().create(host.intent("i-1")) for host in hosts))
    await until(lambda: len(cloud.inventory()) == 1)
    assert cloud.inventory()[0].provider_id in {machine.provider_id for machine in made}
    assert [machine.intent for machine in await cloud.driver().describe(OWNER)] == ["i-1"]


async def test_doubles_are_shown_and_the_next_create_ends_them(cloud: OpenStackHarness) -> None:
    driver = cloud.driver()
    made = await driver.create(cloud.intent("i-1"))
    (first,) = cloud.inventory()
    for _ in range(2):
        cloud.twin(first)
    shown = await driver.describe(OWNER)
    assert [machine.intent for machine in shown] == ["i-1"] * 3
    again = await driver.create(cloud.intent("i-1"))
    assert again.provider_id == made.provider_id
    await until(lambda: len(cloud.inventory()) == 1)
    assert [seen.provider_id for seen in cloud.inventory()] == [made.provider_id]


async def test_image_and_network_may_be_named(cloud: OpenStackHarness) -> None:
    cloud.settings |= {"image": "debian-12", "network": ["private"]}
    await cloud.driver().create(cloud.intent("i-1"))
    (server,) = cloud.cloud.operator.servers()
    assert server["image"]["id"] == cloud.cloud.operator.image
    await until(lambda: "private" in cloud.cloud.operator.servers()[0]["addresses"])


async def test_a_listing_of_several_pages(cloud: OpenStackHarness) -> None:
    driver = cloud.driver()
    await asyncio.gather(*(driver.create(cloud.intent(f"i-{n}")) for n in range(6)))
    assert {machine.intent for machine in await driver.describe(OWNER)} == {f"i-{n}" for n in range(6)}


async def test_an_older_compute_is_served_without_tags(cloud: OpenStackHarness) -> None:
    cloud.settings["microversion"] = "2.1"
    driver = cloud.driver()
    made = await driver.create(cloud.intent("i-1"))
    await driver.create(cloud.intent("i-1"))
    (server,) = cloud.cloud.operator.servers()
    assert server["tags"] == []
    assert [machine.provider_id for machine in await driver.describe(OWNER)] == [made.provider_id]
    assert "g1.a100" in {shape.name for shape in await driver.shapes(cloud.book()) if shape.slots.gpu}
    await gone(driver, made.provider_id)


async def test_the_tag_is_in_the_create_call(cloud: OpenStackHarness) -> None:
    await cloud.driver().create(cloud.intent("i-1"))
    (server,) = cloud.cloud.operator.servers()
    assert server["tags"] == [owner_tag(OWNER)]


async def test_a_machine_that_switches_itself_off_is_stopped(cloud: OpenStackHarness) -> None:
    script = '#!/bin/sh\ntest -e "$HOME/been" && exec sleep 60\ntouch "$HOME/been"; poweroff\n'
    driver = cloud.driver()
    made = await driver.create(cloud.intent("i-1", script=script))
    await until(lambda: cloud.inventory()[0].state is MachineState.STOPPED)
    assert [machine.state for machine in await driver.describe(OWNER)] == [MachineState.STOPPED]
    await driver.start(made.provider_id)
    await until(lambda: cloud.inventory()[0].state is MachineState.RUNNING)


async def test_no_log_holds_user_data_in_any_form(cloud: OpenStackHarness, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    script = "#!/bin/sh\nTOKEN=atj_verysecretvalue; exec sleep 60\n"
    await cloud.driver().create(cloud.intent("i-1", script=script))
    logged = caplog.text
    assert cloud.inventory()[0].user_data == script  # now the operator's own calls are logged too
    assert "keystoneauth.session" in logged
    assert base64.b64encode(script.encode()).decode()[:40] not in logged
    assert "adminPass" not in logged
