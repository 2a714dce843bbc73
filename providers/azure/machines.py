"""From what Azure shows to machines: virtual machines with their power state, and parts left without one. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from providers.azure.errors import classified
from providers.azure.request import CREATED_TAG, address, card, disk
from providers.errors import ProviderError
from providers.port import INTENT_TAG, OWNER_TAG, Machine, MachineState

Resource = Mapping[str, Any]
_M = MachineState
_POWER = {
    "starting": _M.PENDING,
    "running": _M.RUNNING,
    "stopping": _M.STOPPING,
    "stopped": _M.STOPPED,
    "deallocating": _M.STOPPING,
    "deallocated": _M.STOPPED,
}
_STILL_BILLED = "switched off from inside; Azure bills it until it is deallocated or deleted"
LEFT_S = 300.0
"""A part without its machine counts as left behind when it is older than this: before, it may be in the making."""


def owned(resource: Resource, owner: str = "") -> bool:
    """Say whether a resource carries our tag; with `owner`, this installation's."""
    tag = (resource.get("tags") or {}).get(OWNER_TAG, "")
    return bool(tag) if not owner else tag == owner


def provisioning(vm: Resource) -> str:
    """Return Azure's word for how far the last change got: Creating, Updating, Deleting, Succeeded, Failed."""
    return str(vm.get("properties", {}).get("provisioningState") or "")


def failure(view: Resource) -> ProviderError | None:
    """Return why a machine's last change failed, as its instance view tells; None where it did not."""
    for status in view.get("statuses") or ():
        head, _, rest = str(status.get("code", "")).partition("/")
        word, _, code = rest.partition("/")
        if head == "ProvisioningState" and word == "failed":
            return classified(code, str(status.get("message", "")))
    return None


def power(view: Resource) -> str:
    """Return the power state of an instance view, such as `running`; "" where there is none yet."""
    codes = [str(status.get("code", "")) for status in view.get("statuses") or ()]
    return next((code.partition("/")[2] for code in codes if code.startswith("PowerState/")), "")


def shown(vm: Resource, view: Resource) -> Machine:
    """Return a virtual machine in words common to all clouds; `view` is its instance view, empty where unread.

    One that was never made shows as stopped: it does not run, and its parts must still be removed.
    """
    properties, labels = vm.get("properties", {}), vm.get("tags") or {}
    state, message = _state(provisioning(vm), view)
    zones = vm.get("zones") or []
    region = str(vm.get("location", ""))
    return Machine(
        intent=labels.get(INTENT_TAG, ""),
        provider_id=str(vm.get("name", "")),
        state=state,
        shape=properties.get("hardwareProfile", {}).get("vmSize", ""),
        zone=f"{region}-{zones[0]}" if zones else region,
        spot=properties.get("priority") == "Spot",
        created_at=_created(vm),
        message=message,
    )


def _state(provisioned: str, view: Resource) -> tuple[MachineState, str]:
    if provisioned == "Deleting":
        return _M.ENDING, ""
    if provisioned == "Creating":
        return _M.PENDING, ""
    word = power(view)
    reason = failure(view)
    message = reason.message if reason else _STILL_BILLED if word == "stopped" else ""
    if not word:
        return (_M.STOPPED if provisioned == "Failed" else _M.PENDING), message
    return _POWER.get(word, _M.PENDING), message


def left_behind(
    owner: str, now: float, known: Iterable[str], cards: Iterable[Resource], addresses: Iterable[Resource],
    disks: Iterable[Resource],
) -> list[Machine]:  # fmt: skip
    """Return what is left of machines that are not there: by name, as stopped machines that terminate removes."""
    loose = [
        *(_part(part, card, "network card") for part in cards if not part["properties"].get("virtualMachine")),
        *(_part(part, address, "address") for part in addresses if not part["properties"].get("ipConfiguration")),
        *(_part(part, disk, "disk") for part in disks if not part.get("managedBy")),
    ]
    names, found = set(known), dict[str, Machine]()
    for part, name, what in loose:
        if owned(part, owner) and name and name not in names and now - _created(part) >= LEFT_S:
            intent, region = (part["tags"]).get(INTENT_TAG, ""), str(part.get("location", ""))
            message = f"its {what} is left without a machine"
            found.setdefault(
                name, Machine(intent=intent, provider_id=name, state=_M.STOPPED, zone=region, message=message)
            )
    return list(found.values())


def _part(part: Resource, named: Any, what: str) -> tuple[Resource, str, str]:
    suffix = named("")
    full = str(part.get("name", ""))
    return part, full.removesuffix(suffix) if full.endswith(suffix) else "", what


def _created(resource: Resource) -> float:
    said = str((resource.get("tags") or {}).get(CREATED_TAG, ""))
    return float(said) if said.isdecimal() else 0.0
