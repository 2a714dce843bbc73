"""EC2's instances as machines. Pure."""

from collections.abc import Mapping
from typing import Any

from providers.port import INTENT_TAG, Machine, MachineState

_STATES: Mapping[str, MachineState] = {
    "pending": MachineState.PENDING,
    "running": MachineState.RUNNING,
    "stopping": MachineState.STOPPING,
    "stopped": MachineState.STOPPED,
    "shutting-down": MachineState.ENDING,
    "terminated": MachineState.ENDED,
}


def machine(told: Mapping[str, Any]) -> Machine:
    """Return the machine of one instance as DescribeInstances or RunInstances tell it.

    `created_at` is the last launch: EC2 tells no other time of a machine that was stopped and started.
    """
    launched = told.get("LaunchTime")
    return Machine(
        intent=tags(told).get(INTENT_TAG, ""),
        provider_id=told["InstanceId"],
        state=_STATES.get(told["State"]["Name"], MachineState.PENDING),
        shape=told.get("InstanceType", ""),
        zone=told.get("Placement", {}).get("AvailabilityZone", ""),
        spot=told.get("InstanceLifecycle") == "spot",
        created_at=launched.timestamp() if launched else 0.0,
        message=told.get("StateReason", {}).get("Message", "") or told.get("StateTransitionReason", ""),
    )


def tags(told: Mapping[str, Any]) -> dict[str, str]:
    """Return a resource's tags by key."""
    return {tag["Key"]: tag["Value"] for tag in told.get("Tags", ())}
