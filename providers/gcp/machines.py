"""Compute Engine's instances as machines. Pure."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from providers.errors import BadRequest
from providers.gcp.labels import read
from providers.gcp.offers import ATTACHED
from providers.port import INTENT_TAG, OWNER_TAG, PRINT_TAG, Machine, MachineState

STATES: Mapping[str, MachineState] = {
    "PENDING": MachineState.PENDING,
    "PROVISIONING": MachineState.PENDING,
    "STAGING": MachineState.PENDING,
    "REPAIRING": MachineState.PENDING,
    "RUNNING": MachineState.RUNNING,
    "PENDING_STOP": MachineState.STOPPING,
    "STOPPING": MachineState.STOPPING,
    "SUSPENDING": MachineState.STOPPING,
    "SUSPENDED": MachineState.STOPPED,
    "STOPPED": MachineState.STOPPED,
    "TERMINATED": MachineState.STOPPED,
    "DEPROVISIONING": MachineState.ENDING,
}
"""TERMINATED keeps its disk and can be started: it is stopped. A deleted instance is listed no more."""

UNPLACED = frozenset({"", "PENDING", "PROVISIONING"})
"""States in which Google has not found a place for the machine yet: it may still say there is none."""


class Place(NamedTuple):
    """Where an instance is: all that calls about it need, also after the settings have changed."""

    project: str
    zone: str
    name: str

    @property
    def id(self) -> str:
        """The machine's `provider_id`."""
        return "/".join(self)


def place(provider_id: str) -> Place:
    """Return where a machine is; raise `BadRequest` for what is no id of this cloud."""
    parts = provider_id.split("/")
    if len(parts) != 3 or not all(parts):
        raise BadRequest(f"{provider_id!r} is no machine of this cloud")
    return Place(*parts)


def machine(instance: Mapping[str, Any], project: str) -> Machine:
    """Return an instance's resource as a machine."""
    zone = leaf(instance.get("zone", ""))
    return Machine(
        intent=read(instance).get(INTENT_TAG, ""),
        provider_id=Place(project, zone, instance["name"]).id,
        state=STATES.get(instance.get("status", ""), MachineState.PENDING),
        shape=_shape(instance),
        zone=zone,
        spot=instance.get("scheduling", {}).get("provisioningModel") == "SPOT",
        created_at=_moment(instance.get("creationTimestamp", "")),
        message=instance.get("statusMessage", ""),
    )


def is_owned(instance: Mapping[str, Any], owner: str) -> bool:
    """Say whether an instance carries exactly this owner, not one that only looks alike as a label."""
    return read(instance).get(OWNER_TAG) == owner


def fingerprint(instance: Mapping[str, Any]) -> str:
    """Return the fingerprint of the intent an instance was made for; empty where it was not made by us."""
    return read(instance).get(PRINT_TAG, "")


def leaf(url: str) -> str:
    """Return the name at the end of a resource's URL."""
    return url.rpartition("/")[2]


def _shape(instance: Mapping[str, Any]) -> str:
    kind = leaf(instance.get("machineType", ""))
    cards = instance.get("guestAccelerators", [])
    if not kind.startswith("n1-") or not cards:
        return kind
    return f"{kind}{ATTACHED}{leaf(cards[0]['acceleratorType'])}x{cards[0]['acceleratorCount']}"


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp() if text else 0.0
