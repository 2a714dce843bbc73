"""What Azure shows, in words common to all clouds; and parts left without their machine."""

from typing import Any

import pytest

from providers.azure.machines import failure, left_behind, shown
from providers.azure.request import CREATED_TAG
from providers.errors import Capacity
from providers.port import INTENT_TAG, OWNER_TAG, MachineState


def vm(provisioning: str, **more: Any) -> dict[str, Any]:
    return {
        "name": "atoll-1",
        "location": "westeurope",
        "zones": ["3"],
        "tags": {OWNER_TAG: "o", INTENT_TAG: "i-1", CREATED_TAG: "90"},
        "properties": {"provisioningState": provisioning, "hardwareProfile": {"vmSize": "Standard_B2s"}, **more},
    }


def view(*codes: str) -> dict[str, Any]:
    return {"statuses": [{"code": code, "message": "words"} for code in codes]}


@pytest.mark.parametrize(
    ("provisioning", "codes", "state"),
    [
        ("Creating", (), MachineState.PENDING),
        ("Succeeded", (), MachineState.PENDING),
        ("Succeeded", ("PowerState/starting",), MachineState.PENDING),
        ("Succeeded", ("ProvisioningState/succeeded", "PowerState/running"), MachineState.RUNNING),
        ("Updating", ("ProvisioningState/updating", "PowerState/deallocating"), MachineState.STOPPING),
        ("Succeeded", ("PowerState/stopped",), MachineState.STOPPED),
        ("Succeeded", ("PowerState/deallocated",), MachineState.STOPPED),
        ("Failed", ("ProvisioningState/failed/AllocationFailed",), MachineState.STOPPED),
        ("Failed", ("ProvisioningState/failed/OSProvisioningTimedOut", "PowerState/running"), MachineState.RUNNING),
        ("Deleting", ("PowerState/running",), MachineState.ENDING),
    ],
)
def test_states(provisioning: str, codes: tuple[str, ...], state: MachineState) -> None:
    assert shown(vm(provisioning), view(*codes)).state is state


def test_what_a_machine_is() -> None:
    machine = shown(vm("Succeeded", priority="Spot"), view("PowerState/stopped"))
    assert (machine.intent, machine.provider_id, machine.shape) == ("i-1", "atoll-1", "Standard_B2s")
    assert (machine.zone, machine.spot, machine.created_at) == ("westeurope-3", True, 90.0)
    assert "bills it until" in machine.message


def test_a_failed_machine_tells_why() -> None:
    reason = failure(view("ProvisioningState/failed/AllocationFailed"))
    assert isinstance(reason, Capacity)
    assert failure(view("ProvisioningState/succeeded", "PowerState/running")) is None


def part(name: str, owner: str = "o", born: str = "0", **more: Any) -> dict[str, Any]:
    return {"name": name, "tags": {OWNER_TAG: owner, INTENT_TAG: "i-1", CREATED_TAG: born}, "properties": {}, **more}


def test_parts_without_a_machine_show_as_a_stopped_one_that_can_be_terminated() -> None:
    cards = [part("a-nic"), part("foreign-nic", owner="x"), part("young-nic", born="900"), part("odd")]
    disks = [part("a-os"), part("b-os", managedBy="/b"), part("c-os")]
    held = part("d-ip") | {"properties": {"ipConfiguration": {"id": "x"}}}
    found = left_behind("o", 1000.0, ["known"], [*cards, part("known-nic")], [held], disks)
    assert [(machine.provider_id, machine.state, machine.intent) for machine in found] == [
        ("a", MachineState.STOPPED, "i-1"),
        ("c", MachineState.STOPPED, "i-1"),
    ]
    assert found[0].message == "its network card is left without a machine"
