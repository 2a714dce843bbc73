"""The driver against the pretend Azure: calls cut short, failures told late, and nothing left lying."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from atoll.group import Provider
from atoll.host.system import SystemClock
from providers.azure.driver import Azure
from providers.azure.machines import LEFT_S
from providers.azure.operations import Operation
from providers.errors import Absent, Auth, BadRequest, Capacity, ProviderError, Quota, Throttled, Unknown
from providers.port import Intent, Machine, MachineState
from providers.registry import make
from tests.clouds.azure.cloud import ADDRESS, CARD, DISK
from tests.clouds.azure.harness import AzureHarness
from tests.clouds.harness import OWNER, Seen


@dataclass
class Later:
    """The system's clock, so much later."""

    by: float

    def now(self) -> float:
        return SystemClock().now() + self.by

    def monotonic(self) -> float:
        return SystemClock().monotonic()


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[AzureHarness]:
    harness = AzureHarness(tmp_path)
    harness.start()
    try:
        yield harness
    finally:
        harness.stop()
    assert harness.leftovers() == []


def driver(cloud: AzureHarness, later: float = 0.0, **settings: Any) -> Azure:
    provider = cloud.provider()
    given = Provider(name=provider.name, kind="azure", settings={**provider.settings, **settings})
    made = make(given, replace(cloud.context(), clock=Later(later)))
    assert isinstance(made, Azure)
    return made


def noted(cloud: AzureHarness) -> list[Path]:
    return [path for path in (cloud.directory / "plane").rglob("*") if path.is_file()]


def only(cloud: AzureHarness) -> Seen:
    (seen,) = cloud.inventory()
    return seen


def sized(cloud: AzureHarness, name: str, size: str) -> Intent:
    intent = cloud.intent(name)
    return replace(intent, shape=replace(intent.shape, name=size))


async def gone(azure: Azure, provider_id: str) -> None:
    async with asyncio.timeout(60):
        with suppress(Absent):
            while True:
                await azure.terminate(provider_id)
                await asyncio.sleep(0.02)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await condition():
            await asyncio.sleep(0.02)


# -- a create call that is cut short ---------------------------------------------------------------------


async def accepted(cloud: AzureHarness, fails_after: float = 1.0, **fault: Any) -> Intent:
    """Have a create call accepted, with a failure still to come, and the one who made it gone."""
    cloud.inject(slow_boot={"extra_s": fails_after}, no_capacity=fault)
    intent = cloud.intent("i-1")
    made = await driver(cloud, create_wait=0.1).create(intent)
    assert made.state is MachineState.PENDING
    assert [machine.state for machine in await driver(cloud).describe(OWNER)] == [MachineState.PENDING]
    return intent


async def test_who_comes_after_learns_by_the_token_how_it_ended(cloud: AzureHarness) -> None:
    intent = await accepted(cloud)
    (note,) = noted(cloud)
    assert note.stat().st_mode & 0o777 == 0o600
    assert json.loads(note.read_text())["token"]
    with pytest.raises(Capacity, match="AllocationFailed"):
        await driver(cloud, create_wait=20).create(intent)
    assert cloud.inventory() == []
    assert cloud.service.cloud.loose() == []
    assert noted(cloud) == []
    made = await driver(cloud).create(intent)
    assert only(cloud).provider_id == made.provider_id


async def test_a_repeated_create_writes_nothing(cloud: AzureHarness) -> None:
    azure = driver(cloud)
    made = await azure.create(cloud.intent("i-1"))
    cloud.service.asked.clear()
    assert (await azure.create(cloud.intent("i-1"))).provider_id == made.provider_id
    assert set(cloud.service.asked) == {"GET"}


async def test_without_the_token_the_failed_machine_itself_tells(cloud: AzureHarness) -> None:
    intent = await accepted(cloud, code="OverconstrainedZonalAllocationRequest")
    (note,) = noted(cloud)
    note.unlink()

    async def failed() -> bool:
        (machine,) = await driver(cloud).describe(OWNER)
        return machine.state is MachineState.STOPPED and "OverconstrainedZonal" in machine.message

    await until(failed)
    with pytest.raises(Capacity, match="OverconstrainedZonalAllocationRequest"):
        await driver(cloud).create(intent)
    assert cloud.inventory() == []
    assert cloud.service.cloud.loose() == []


async def test_an_operation_azure_has_forgotten_is_not_needed(cloud: AzureHarness) -> None:
    intent = await accepted(cloud, fails_after=60.0)
    cloud.service.cloud.operations.clear()
    assert (await driver(cloud).create(intent)).state is MachineState.PENDING
    assert noted(cloud) == []


async def test_a_note_that_cannot_be_read_is_none(cloud: AzureHarness) -> None:
    intent = await accepted(cloud, fails_after=60.0)
    (note,) = noted(cloud)
    note.write_text("{")
    assert (await driver(cloud).create(intent)).state is MachineState.PENDING


async def test_the_reason_outlives_a_crash_amid_the_clean_up(cloud: AzureHarness) -> None:
    """Killed after the failed machine was removed and before its reason was told: the note still tells it."""
    intent = cloud.intent("i-1")
    await driver(cloud).create(intent)
    driver(cloud)._operations.write(intent.name, Operation(token="x", code="ZonalAllocationFailed", message="none"))
    cloud.remove(intent.name)

    async def removed() -> bool:
        return cloud.inventory() == []

    await until(removed)
    with pytest.raises(Capacity) as caught:
        await driver(cloud).create(intent)
    assert caught.value.scope == "zone"
    assert noted(cloud) == []


@pytest.mark.parametrize(
    ("fault", "kind"), [({"throttle": {"calls": ["poll"]}}, Throttled), ({"auth": {"calls": ["poll"]}}, Unknown)]
)
async def test_a_look_that_fails_is_no_failed_machine(
    cloud: AzureHarness, fault: dict[str, Any], kind: type[ProviderError]
) -> None:
    """The SDK calls both a failure: taking this one for the operation's would delete a good machine."""
    cloud.inject(**fault)
    with pytest.raises(kind):
        await driver(cloud).create(cloud.intent("i-1"))
    assert only(cloud).intent == "i-1"
    made = await driver(cloud).create(cloud.intent("i-1"))
    assert only(cloud).provider_id == made.provider_id
    assert noted(cloud) == []


async def test_a_failure_that_cannot_be_cleaned_up_is_not_known(cloud: AzureHarness) -> None:
    cloud.inject(no_capacity={}, terminate={})
    with pytest.raises(Unknown, match="cannot be removed yet"):
        await driver(cloud).create(cloud.intent("i-1"))
    assert only(cloud).state is MachineState.STOPPED
    with pytest.raises(Capacity):
        await driver(cloud).create(cloud.intent("i-1"))
    assert cloud.inventory() == []
    assert cloud.service.cloud.loose() == []


# -- parts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ({"no_capacity": {}}, Capacity),
        ({"no_capacity": {"code": "ZonalAllocationFailed"}}, Capacity),
        ({"quota": {}}, Quota),
        ({"auth": {"calls": ["create"]}}, Auth),
    ],
)
async def test_a_refusal_leaves_no_part(cloud: AzureHarness, fault: dict[str, Any], kind: type[ProviderError]) -> None:
    cloud.inject(**fault)
    with pytest.raises(kind):
        await driver(cloud).create(cloud.intent("i-1"))
    assert cloud.service.cloud.loose() == []
    assert not any(cloud.service.cloud.parts.values())


async def test_what_the_settings_get_wrong_leaves_no_part_either(cloud: AzureHarness) -> None:
    wrong = driver(cloud, image="Debian:debian-13:nothing:latest")
    with pytest.raises(BadRequest, match="PlatformImageNotFound"):
        await wrong.create(cloud.intent("i-1"))
    assert cloud.service.cloud.loose() == []


async def test_a_machine_takes_all_its_parts_along(cloud: AzureHarness) -> None:
    made = await driver(cloud).create(cloud.intent("i-1"))
    parts = cloud.service.cloud.parts
    assert [len(parts[kind]) for kind in (CARD, ADDRESS, DISK)] == [1, 1, 1]
    for kind in parts:
        assert all(part["tags"]["cost centre"] == "42" for part in parts[kind].values())
    await gone(driver(cloud), made.provider_id)
    assert not any(parts.values())


async def test_without_a_public_address_there_is_none(cloud: AzureHarness) -> None:
    await driver(cloud, public_ip=False).create(cloud.intent("i-1"))
    assert cloud.service.cloud.parts[ADDRESS] == {}


async def test_parts_of_a_call_that_died_are_found_later_and_removed(cloud: AzureHarness) -> None:
    cloud.inject(lost_reply={"after_effect": False})
    intent = cloud.intent("i-1")
    with pytest.raises(Unknown):
        await driver(cloud).create(intent)
    assert len(cloud.service.cloud.loose()) == 1, "the card, which holds the address"
    assert await driver(cloud).describe(OWNER) == [], "it may still be in the making"
    old = driver(cloud, later=LEFT_S + 5)
    assert await old.describe("somebody-else") == []
    (left,) = await old.describe(OWNER)
    assert (left.intent, left.provider_id, left.state) == ("i-1", intent.name, MachineState.STOPPED)
    await gone(old, left.provider_id)
    assert not any(cloud.service.cloud.parts.values())
    assert await old.describe(OWNER) == []


async def test_a_card_that_azure_still_holds_does_not_hide_the_reason(cloud: AzureHarness) -> None:
    intent = cloud.intent("i-1")
    cloud.inject(quota={})
    cloud.service.cloud.reserve(f"{intent.name}-nic", 180.0)
    with pytest.raises(Quota):
        await driver(cloud).create(intent)
    (left,) = await driver(cloud, later=LEFT_S + 5).describe(OWNER)
    assert left.message == "its network card is left without a machine"
    cloud.service.cloud.reserve(f"{intent.name}-nic", 0.5)

    async def free() -> bool:
        with suppress(Absent):
            await driver(cloud).terminate(left.provider_id)
            return False
        return True

    await until(free)
    assert not any(cloud.service.cloud.parts.values())


async def test_nothing_of_others_is_touched_by_name(cloud: AzureHarness) -> None:
    made = await driver(cloud).create(cloud.intent("i-1"))
    with cloud.service.cloud.lock:
        del cloud.service.cloud.machines[made.provider_id].body["tags"]["atoll-owner"]
    azure = driver(cloud)
    for call in (azure.terminate, azure.stop, azure.start):
        with pytest.raises(Absent):
            await call(made.provider_id)
    assert only(cloud).state is MachineState.RUNNING


# -- limits, states, people -------------------------------------------------------------------------------


async def test_a_real_limit_is_told_by_its_name(cloud: AzureHarness) -> None:
    limits = {limit.name: limit for limit in await driver(cloud).quota()}
    azure = driver(cloud, shapes=["*"])
    for number in range(3):
        await azure.create(sized(cloud, f"i-{number}", "Standard_D16s_v5"))
    with pytest.raises(Quota) as caught:
        await azure.create(sized(cloud, "i-9", "Standard_D16s_v5"))
    assert caught.value.name == "standardDSv5Family"
    assert limits[caught.value.name].limit == 50
    used = {limit.name: limit.used for limit in await azure.quota()}
    assert (used["standardDSv5Family"], used["cores"], used["virtualMachines"]) == (48, 48, 3)


async def test_a_machine_that_switches_itself_off_is_seen(cloud: AzureHarness) -> None:
    await driver(cloud).create(cloud.intent("i-1", script="#!/bin/sh\npoweroff\n"))

    async def off() -> bool:
        (machine,) = await driver(cloud).describe(OWNER)
        return machine.state is MachineState.STOPPED and "Azure bills it" in machine.message

    await until(off)


async def test_every_page_of_a_listing_is_read(cloud: AzureHarness) -> None:
    azure = driver(cloud)
    await asyncio.gather(*(azure.create(sized(cloud, f"i-{n}", "Standard_B2s")) for n in range(5)))
    shown: list[Machine] = await azure.describe(OWNER)
    assert sorted(machine.intent for machine in shown) == [f"i-{n}" for n in range(5)]
    assert {machine.zone for machine in shown} == {"westeurope-1"}


async def test_a_wrong_secret_is_told_and_stays_secret(cloud: AzureHarness) -> None:
    given = dict(cloud.provider().settings)["credentials"]
    assert isinstance(given, dict)
    wrong = driver(cloud, credentials={**given, "client_secret": "guessed-wrong"})
    with pytest.raises(Auth) as caught:
        await wrong.describe(OWNER)
    assert "guessed-wrong" not in f"{caught.value!r} {caught.value.__cause__!r}"
    (finding,) = await wrong.doctor()
    assert (finding.check, finding.ok) == ("credential", False)


async def test_a_token_as_it_stands_is_sent(cloud: AzureHarness) -> None:
    cloud.service.tokens.add("given")
    assert await driver(cloud, credentials={"token": "given"}).describe(OWNER) == []
    with pytest.raises(Auth):
        await driver(cloud, credentials={"token": "another"}).describe(OWNER)


async def test_an_account_that_cannot_be_reached_is_unknown(cloud: AzureHarness) -> None:
    with pytest.raises(Unknown):
        await driver(cloud, endpoint="https://127.0.0.1:9", credentials={"token": "x"}).describe(OWNER)
