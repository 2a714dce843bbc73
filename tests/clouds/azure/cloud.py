"""The pretend subscription: addresses, cards, disks and machines with ARM's life-cycle, and guests behind them."""

import base64
import heapq
import itertools
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from providers.port import INTENT_TAG, OWNER_TAG, MachineState
from tests.clouds.azure import catalogue, rules
from tests.clouds.azure.arm import (
    REGION,
    SUBNET,
    ArmError,
    HungUp,
    Resource,
    checked_name,
    checked_place,
    checked_tags,
    not_found,
    resource_id,
)
from tests.clouds.azure.faults import Faults
from tests.clouds.guests import Guests
from tests.clouds.harness import Seen

CARD, ADDRESS = "Microsoft.Network/networkInterfaces", "Microsoft.Network/publicIPAddresses"
DISK, MACHINE = "Microsoft.Compute/disks", "Microsoft.Compute/virtualMachines"
PROVISION_S, POWER_S, DELETE_S = 0.15, 0.05, 0.1
_STATES = {
    "starting": MachineState.PENDING,
    "running": MachineState.RUNNING,
    "stopped": MachineState.STOPPED,
    "deallocating": MachineState.STOPPING,
    "deallocated": MachineState.STOPPED,
}


@dataclass(eq=False)
class Machine:
    """A virtual machine: its body as it was asked for, and what has become of it."""

    name: str
    body: Resource
    born: float
    provisioning: str = "Creating"
    power: str = ""
    failure: tuple[str, str] | None = None
    id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def user_data(self) -> str:
        sent = str(self.body["properties"]["osProfile"].get("customData", ""))
        return base64.b64decode(sent).decode()

    @property
    def zone(self) -> str:
        return str((self.body.get("zones") or [""])[0])

    @property
    def spot(self) -> bool:
        return bool(self.body["properties"].get("priority") == "Spot")

    @property
    def size(self) -> str:
        return str(self.body["properties"]["hardwareProfile"]["vmSize"])


@dataclass(eq=False)
class Operation:
    """A long-running operation, as its own address shows it."""

    id: str
    status: str = "InProgress"
    error: tuple[str, str] | None = None
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat())

    def shown(self) -> Resource:
        error = {"error": {"code": self.error[0], "message": self.error[1]}} if self.error else {}
        return {"startTime": self.started, "status": self.status, "name": self.id, **error}


class Cloud:
    """One resource group in one region. All methods hold its lock; what takes time happens on its own thread."""

    def __init__(self, guests: Guests) -> None:
        self.guests = guests
        self.faults = Faults()
        self.lock = threading.RLock()
        self.machines: dict[str, Machine] = {}
        self.made: list[Machine] = []
        self.parts: dict[str, dict[str, Resource]] = {CARD: {}, ADDRESS: {}, DISK: {}}
        self.operations: dict[str, Operation] = {}
        self._reserved: dict[str, float] = {}
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tick, name="azure-cloud", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        self.guests.close()

    def _tick(self) -> None:
        while not self._ended.wait(0.01):
            with self.lock:
                while self._due and self._due[0][0] <= time.monotonic():
                    heapq.heappop(self._due)[2]()
                for machine in self.machines.values():
                    if machine.power == "running" and not self.guests.running(machine.id):
                        machine.power = "stopped"  # it powered itself off: billed on until deallocated

    def _later(self, seconds: float, act: Callable[[], None]) -> Operation:
        operation = Operation(id=str(uuid.uuid4()))
        self.operations[operation.id] = operation

        def end() -> None:
            act()
            if operation.status == "InProgress":
                operation.status = "Succeeded"

        heapq.heappush(self._due, (time.monotonic() + seconds, next(self._count), end))
        return operation

    # -- parts ----------------------------------------------------------------------------------------

    def put_address(self, name: str, body: Resource) -> tuple[Resource, Operation]:
        checked_name(name, 80)
        checked_place(body)
        checked_tags(body.get("tags") or {})
        properties = body.get("properties") or {}
        if (body.get("sku") or {}).get("name") == "Standard" and properties.get("publicIPAllocationMethod") != "Static":
            raise ArmError(400, "StandardSkuPublicIPAddressesMustBeStatic", "Standard addresses must be static.")
        return self._put_part(ADDRESS, name, body), self._later(0.02, lambda: None)

    def put_card(self, name: str, body: Resource) -> tuple[Resource, Operation]:
        checked_name(name, 80)
        checked_place(body)
        checked_tags(body.get("tags") or {})
        (place,) = (body.get("properties") or {}).get("ipConfigurations") or [{}]
        properties = place.get("properties") or {}
        if (properties.get("subnet") or {}).get("id", "").lower() != SUBNET.lower():
            raise ArmError(400, "InvalidResourceReference", "Resource referenced by the card was not found: subnet.")
        held = properties.get("publicIPAddress")
        if held:
            address = self.parts[ADDRESS].get(str(held.get("id", "")).rpartition("/")[2])
            if address is None:
                raise ArmError(400, "InvalidResourceReference", f"Resource {held.get('id')} was not found.")
            address["properties"]["ipConfiguration"] = {"id": f"{resource_id(CARD, name)}/ipConfigurations/primary"}
            if option := (held.get("properties") or {}).get("deleteOption"):
                address["properties"]["deleteOption"] = option
        return self._put_part(CARD, name, body), self._later(0.0, lambda: None)

    def _put_part(self, kind: str, name: str, body: Resource) -> Resource:
        known = self.parts[kind].get(name, {"properties": {}})
        kept = {k: v for k, v in known["properties"].items() if k in ("virtualMachine", "ipConfiguration")}
        properties = {**(body.get("properties") or {}), **kept, "provisioningState": "Succeeded"}
        self.parts[kind][name] = {
            **body, "id": resource_id(kind, name), "name": name, "type": kind, "properties": properties
        }  # fmt: skip
        return self.parts[kind][name]

    def delete_part(self, kind: str, name: str) -> Operation | None:
        part = self.parts[kind].get(name)
        if part is None:
            return None
        if kind == CARD and part["properties"].get("virtualMachine"):
            raise ArmError(400, "NicInUse", f"Network Interface {name} is used by existing resource.")
        if kind == CARD and self._reserved.get(name, 0.0) > time.monotonic():
            raise ArmError(400, "NicReservedForAnotherVm", f"Nic(s) in request is reserved for 180 seconds: {name}")
        if kind == ADDRESS and part["properties"].get("ipConfiguration"):
            raise ArmError(400, "PublicIPAddressCannotBeDeleted", f"Public IP address {name} is still allocated.")
        if kind == DISK and part.get("managedBy"):
            raise ArmError(409, "OperationNotAllowed", f"Disk {name} is attached to VM {part['managedBy']}.")
        return self._later(0.02, lambda: self._drop(kind, name))

    def _drop(self, kind: str, name: str) -> None:
        self.parts[kind].pop(name, None)
        if kind == CARD:
            for address in self.parts[ADDRESS].values():
                if f"/{name}/ipConfigurations/" in (address["properties"].get("ipConfiguration") or {}).get("id", ""):
                    del address["properties"]["ipConfiguration"]

    # -- machines -------------------------------------------------------------------------------------

    def put_machine(self, name: str, body: Resource, *, only_new: bool) -> tuple[Resource, Operation]:
        zone = f"{REGION}-{(body.get('zones') or [''])[0]}"
        spot = (body.get("properties") or {}).get("priority") == "Spot"
        lost = self.faults.strike("lost_reply")
        if lost and not lost.get("after_effect", True):
            raise HungUp
        self.refuse("create")
        known = self.machines.get(name)
        if known and only_new:
            raise ArmError(412, "PreconditionFailed", f"The precondition given in the request headers failed: {name}.")
        if known:
            raise ArmError(409, "PropertyChangeNotAllowed", "Changing property 'osProfile' is not allowed.")
        card = self._checked(name, body, spot)
        machine = self.machines[name] = Machine(name, body, time.monotonic())
        self.made.append(machine)
        card["properties"]["virtualMachine"] = {"id": resource_id(MACHINE, name)}
        disk = body["properties"]["storageProfile"]["osDisk"]["name"]
        self.parts[DISK][disk] = {
            "id": resource_id(DISK, disk), "name": disk, "type": DISK, "location": REGION, "tags": body.get("tags", {}),
            "managedBy": resource_id(MACHINE, name), "properties": {"provisioningState": "Succeeded"},
        }  # fmt: skip
        slow = self.faults.strike("slow_boot")
        wait = PROVISION_S + (slow.get("extra_s", 0.0) if slow else 0.0)
        none_left = self.faults.strike("no_capacity", zone=zone, spot=spot)
        if none_left:
            machine.failure = (
                none_left.get("code", "ZonalAllocationFailed" if none_left.get("whole_zone") else "AllocationFailed"),
                "Allocation failed. We do not have sufficient capacity for the requested VM size in this region.",
            )
        operation = self._later(wait, lambda: self._provisioned(machine, operation))
        if lost:
            raise HungUp
        return self.shown(machine), operation

    def _checked(self, name: str, body: Resource, spot: bool) -> Resource:
        checked_place(body)
        checked_tags(body.get("tags") or {})
        rules.checked_machine(name, body)
        wanted = body["properties"]["networkProfile"]["networkInterfaces"][0]["id"]
        card = self.parts[CARD].get(wanted.rpartition("/")[2])
        if card is None or card["id"].lower() != wanted.lower():
            raise ArmError(404, "NotFound", f"Resource {wanted} not found.")
        if card["properties"].get("virtualMachine"):
            raise ArmError(400, "NetworkInterfaceInUse", f"Network interface {card['name']} is in use.")
        disk = body["properties"]["storageProfile"]["osDisk"]["name"]
        if disk in self.parts[DISK]:
            raise ArmError(409, "ConflictingUserInput", f"Disk {disk} already exists in resource group.")
        self._counted(body["properties"]["hardwareProfile"]["vmSize"], spot)
        return card

    def _counted(self, size: str, spot: bool) -> None:
        family = "lowPriorityCores" if spot else catalogue.FAMILIES[size]
        used, more = self.used(), catalogue.CORES[size]
        for name, words in ((family, f"{family} Cores"), ("" if spot else "cores", "Total Regional Cores")):
            limit = catalogue.LIMITS.get(name)
            if limit is not None and used.get(name, 0) + more > limit:
                raise _over(words, limit, used.get(name, 0), more)
        if self.faults.strike("quota"):
            raise _over(f"{family} Cores", 10, 10, more)

    def used(self) -> dict[str, int]:
        """Return what counts towards each limit now."""
        counts: dict[str, int] = {"virtualMachines": len(self.machines)}
        for machine in self.machines.values():
            names = ("lowPriorityCores",) if machine.spot else ("cores", catalogue.FAMILIES[machine.size])
            for name in names:
                counts[name] = counts.get(name, 0) + catalogue.CORES[machine.size]
        return counts

    def _provisioned(self, machine: Machine, operation: Operation) -> None:
        if machine.provisioning != "Creating":  # deleted meanwhile
            operation.status, operation.error = "Canceled", ("OperationPreempted", "A later operation took its place.")
        elif machine.failure:
            machine.provisioning = "Failed"
            operation.status, operation.error = "Failed", machine.failure
        else:
            machine.provisioning = "Succeeded"
            self._boot(machine)

    def _boot(self, machine: Machine) -> None:
        self.guests.boot(machine.id, machine.user_data)
        machine.power = "running"

    def delete_machine(self, name: str) -> Operation | None:
        machine = self.machines.get(name)
        if machine is None:
            return None
        fault = self.faults.strike("terminate")
        if fault and not fault.get("silent"):
            raise ArmError(409, "OperationNotAllowed", f"Operation 'delete' is not allowed on VM '{name}' now.")
        if fault:
            return self._later(0.0, lambda: None)
        return self._vanish(machine)

    def _vanish(self, machine: Machine) -> Operation:
        if machine.provisioning != "Deleting":
            machine.provisioning = "Deleting"
        return self._later(DELETE_S, lambda: self._gone(machine))

    def _gone(self, machine: Machine) -> None:
        if self.machines.pop(machine.name, None) is None:
            return
        self.guests.discard(machine.id)
        profile = machine.body["properties"]
        entry = profile["networkProfile"]["networkInterfaces"][0]
        card = self.parts[CARD].get(entry["id"].rpartition("/")[2])
        if card:
            del card["properties"]["virtualMachine"]
            if (entry.get("properties") or {}).get("deleteOption") == "Delete":
                self._drop_with_address(card)
        disk = self.parts[DISK][profile["storageProfile"]["osDisk"]["name"]]
        del disk["managedBy"]
        if profile["storageProfile"]["osDisk"].get("deleteOption") == "Delete":
            self._drop(DISK, disk["name"])

    def _drop_with_address(self, card: Resource) -> None:
        held = [
            name
            for name, address in self.parts[ADDRESS].items()
            if card["id"] in (address["properties"].get("ipConfiguration") or {}).get("id", "")
            and address["properties"].get("deleteOption") == "Delete"
        ]
        self._drop(CARD, card["name"])
        for name in held:
            self._drop(ADDRESS, name)

    def start(self, name: str) -> Operation:
        machine = self.live(name)
        if machine.power == "deallocating":
            raise ArmError(409, "OperationNotAllowed", f"VM '{name}' is being deallocated.")
        if machine.power in ("deallocated", "stopped"):
            machine.power = "starting"
            return self._later(POWER_S, lambda: self._boot(machine))
        return self._later(0.0, lambda: None)

    def deallocate(self, name: str) -> Operation:
        machine = self.live(name)

        def off() -> None:
            self.guests.stop(machine.id)
            machine.power = "deallocated"

        if machine.power in ("running", "stopped", "starting"):
            machine.power = "deallocating"
            return self._later(POWER_S, off)
        return self._later(0.0, lambda: None)

    def live(self, name: str) -> Machine:
        machine = self.machines.get(name)
        if machine is None:
            raise not_found(MACHINE, name)
        return machine

    # -- showing --------------------------------------------------------------------------------------

    def refuse(self, call: str) -> None:
        """Raise what is ordered for this kind of call."""
        if self.faults.strike("auth", call=call):
            raise ArmError(401, "ExpiredAuthenticationToken", "The access token expiry UTC time is earlier than now.")
        if fault := self.faults.strike("throttle", call=call):
            raise ArmError(
                429, "TooManyRequests", "The request is being throttled.", retry_after=int(fault.get("retry_after", 5))
            )

    def listed(self) -> list[Resource]:
        """Return the machines as a listing shows them: late where `list_lag` strikes."""
        self.refuse("describe")
        late = self.faults.strike("list_lag")
        horizon = time.monotonic() - (late["lag_s"] if late else 0.0)
        return [self.shown(machine) for machine in self.machines.values() if machine.born <= horizon]

    def shown(self, machine: Machine) -> Resource:
        body = rules.shown(machine.body)
        told = {"vmId": machine.id, "provisioningState": machine.provisioning}
        return {
            **body, "id": resource_id(MACHINE, machine.name), "name": machine.name, "type": MACHINE,
            "etag": '"1"', "properties": {**body["properties"], **told},
        }  # fmt: skip

    def view(self, name: str) -> Resource:
        machine = self.live(name)
        word = {"Creating": "creating", "Deleting": "deleting", "Failed": "failed"}.get(
            machine.provisioning, "succeeded"
        )
        code, message = machine.failure if machine.failure and word == "failed" else ("", "")
        statuses = [
            {
                "code": f"ProvisioningState/{word}" + (f"/{code}" if code else ""),
                "level": "Error" if code else "Info",
                "displayStatus": f"Provisioning {word}",
                **({"message": message} if message else {}),
            }
        ]
        if machine.power:
            statuses.append(
                {"code": f"PowerState/{machine.power}", "level": "Info", "displayStatus": f"VM {machine.power}"}
            )
        return {"statuses": statuses}

    def inventory(self) -> list[Seen]:
        """Return every machine of every owner, as the cloud itself sees it."""
        with self.lock:
            return [
                Seen(
                    provider_id=machine.name,
                    intent=(machine.body.get("tags") or {}).get(INTENT_TAG, ""),
                    owner=(machine.body.get("tags") or {}).get(OWNER_TAG, ""),
                    state=_state(machine),
                    created=machine.size,
                    zone=f"{REGION}-{machine.zone}" if machine.zone else REGION,
                    spot=machine.spot,
                    user_data=machine.user_data,
                    tags=dict(machine.body.get("tags") or {}),
                )
                for machine in self.machines.values()
            ]

    def loose(self) -> list[str]:
        """Return the ids of parts that no machine has."""
        with self.lock:
            attached = ("virtualMachine", "ipConfiguration")
            return [
                str(part["id"])
                for parts in self.parts.values()
                for part in parts.values()
                if not part.get("managedBy") and not any(part["properties"].get(key) for key in attached)
            ]

    def vanish(self, name: str) -> None:
        """Delete a machine as its user or the platform does, with what its delete options name."""
        with self.lock:
            self._vanish(self.live(name))

    def reserve(self, card: str, seconds: float) -> None:
        """Hold a card for a machine that was not made, as Azure does for three minutes."""
        self._reserved[card] = time.monotonic() + seconds


def _state(machine: Machine) -> MachineState:
    if machine.provisioning == "Deleting":
        return MachineState.ENDING
    if machine.provisioning == "Creating":
        return MachineState.PENDING
    return _STATES.get(machine.power, MachineState.STOPPED)


def _over(words: str, limit: int, used: int, more: int) -> ArmError:
    return ArmError(
        409,
        "OperationNotAllowed",
        f"Operation could not be completed as it results in exceeding approved {words} quota. Additional details - "
        f"Deployment Model: Resource Manager, Location: {REGION}, Current Limit: {limit}, Current Usage: {used}, "
        f"Additional Required: {more}, (Minimum) New Limit Required: {used + more}.",
    )


Answer = tuple[int, Any, dict[str, str]]
"""HTTP status, JSON document (None: empty), headers."""
