"""The fake's instances and operations as time goes by; every running instance is a real guest."""

import itertools
import threading
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.clouds.gcp import catalogue
from tests.clouds.gcp.faults import Faults
from tests.clouds.gcp.rules import Refusal, check, missing
from tests.clouds.guests import Guests

BASE = "https://www.googleapis.com/compute/v1"
PLACED_S, BOOTED_S, ENDED_S = 0.04, 0.08, 0.05
GONE = ""
_OFF = frozenset({"TERMINATED", "STOPPED"})
_CPU_QUOTAS = {"n1": "CPUS", "e2": "CPUS", "n2d": "N2D_CPUS", "c3": "C3_CPUS", "a2": "A2_CPUS"}

Key = tuple[str, str]
"""Zone and name."""


@dataclass
class Instance:
    """`document` as Google shows it; `steps`: what it will be by itself, and when (`GONE`: no more)."""

    document: dict[str, Any]
    steps: list[tuple[float, str]] = field(default_factory=list)
    ends_at: float = float("inf")

    @property
    def leaving(self) -> bool:
        return any(status == GONE for _, status in self.steps)


@dataclass
class Operation:
    document: dict[str, Any]
    done_at: float
    error: dict[str, Any] | None = None


class World:
    """All zones of one project. Every method may be called from any thread."""

    def __init__(self, guests: Guests, faults: Faults) -> None:
        self.faults = faults
        self.lock = threading.RLock()
        self.instances: dict[Key, Instance] = {}
        self.made: list[tuple[Key, dict[str, Any]]] = []
        self._guests = guests
        self._operations: dict[Key, Operation] = {}
        self._requests: dict[Key, tuple[dict[str, Any], str]] = {}
        self._numbers = itertools.count(7_000_000_000_000_000_000)
        self._history: list[tuple[float, list[dict[str, Any]]]] = [(0.0, [])]

    def insert(self, zone: str, body: Mapping[str, Any], request: str) -> dict[str, Any]:
        """Begin an instance; a request id that was seen before gives the operation of then."""
        if request and (known := self._requests.get((zone, _uuid(request)))):
            if known[0] != body:
                raise Refusal(400, f"The request ID {request} was used with another request.")
            return self.operation(zone, known[1])
        check(body, catalogue.PROJECT, zone)
        path = f"projects/{catalogue.PROJECT}/zones/{zone}/instances/{body['name']}"
        if (zone, body["name"]) in self.instances:
            raise Refusal(409, f"The resource '{path}' already exists", "alreadyExists")
        spot = body.get("scheduling", {}).get("provisioningModel") == "SPOT"
        slow = self.faults.strike("slow_boot")
        now = time.monotonic()
        booted = now + BOOTED_S + (slow["extra_s"] if slow else 0.0)
        error, steps = self._over_quota(body, spot), [(now + PLACED_S, "STAGING"), (booted, "RUNNING")]
        if error is None and (full := self.faults.strike("no_capacity", zone=zone, spot=spot)):
            booted = now + BOOTED_S + full.get("after_s", 0.0)
            error, steps = _stockout(zone, body), [(booted, GONE)]
        if error is None or steps[0][1] == GONE:
            self.instances[zone, body["name"]] = made = Instance(self._document(zone, body), steps)
            if error is None:
                self.made.append(((zone, body["name"]), made.document))
            self._note()
        operation = self._operation(zone, "insert", body["name"], booted, error)
        if request:
            self._requests[zone, _uuid(request)] = dict(body), operation["name"]
        return operation

    def delete(self, zone: str, name: str) -> dict[str, Any]:
        instance = self._live(zone, name)
        if rule := self.faults.strike("terminate"):
            if not rule.get("silent"):
                raise Refusal(503, "Internal error. Please try again.", "backendError")
            return self._operation(zone, "delete", name, time.monotonic())
        if not instance.leaving or instance.document["status"] != "STOPPING":
            self._leave(zone, name, GONE)
        return self._operation(zone, "delete", name, instance.steps[-1][0])

    def stop(self, zone: str, name: str) -> dict[str, Any]:
        instance = self._live(zone, name)
        if instance.leaving:
            raise Refusal(400, f"The resource '{name}' is not ready", "resourceNotReady")
        if instance.document["status"] not in (*_OFF, "STOPPING"):
            self._leave(zone, name, "TERMINATED")
        return self._operation(zone, "stop", name, time.monotonic() + ENDED_S)

    def start(self, zone: str, name: str) -> dict[str, Any]:
        instance, now = self._live(zone, name), time.monotonic()
        if instance.leaving or instance.document["status"] == "STOPPING":
            raise Refusal(400, f"The resource '{name}' is not ready", "resourceNotReady")
        if instance.document["status"] in _OFF:
            instance.steps = [(now + PLACED_S, "STAGING"), (now + BOOTED_S, "RUNNING")]
            self._show(instance, "PROVISIONING")
        return self._operation(zone, "start", name, now + BOOTED_S)

    def reclaim(self, zone: str, name: str) -> None:
        """Take a spot instance away, as its own termination action says."""
        scheduling = self._live(zone, name).document["scheduling"]
        assert scheduling.get("provisioningModel") == "SPOT", "only spot instances are taken back"
        ends = scheduling.get("instanceTerminationAction", "STOP") == "DELETE"
        self._leave(zone, name, GONE if ends else "TERMINATED")

    def instance(self, zone: str, name: str) -> dict[str, Any]:
        return self._live(zone, name).document

    def operation(self, zone: str, name: str) -> dict[str, Any]:
        if not (found := self._operations.get((zone, name))):
            raise missing(f"projects/{catalogue.PROJECT}/zones/{zone}/operations/{name}")
        return found.document

    def listed(self) -> list[dict[str, Any]]:
        """Return all instances in order of creation; of earlier, where `list_lag` strikes."""
        if rule := self.faults.strike("list_lag"):
            horizon = time.monotonic() - rule["lag_s"]
            return next(shown for at, shown in reversed(self._history) if at <= horizon or at == 0.0)
        return self._history[-1][1]

    def console(self, zone: str, name: str) -> str:
        self._live(zone, name)
        return self._guests.console(f"{zone}.{name}")

    def usage(self) -> Counter[str]:
        """Return what the instances that are switched on take of each quota."""
        used: Counter[str] = Counter()
        for (zone, _), instance in self.instances.items():
            used["INSTANCES"] += 1
            if instance.document["status"] not in _OFF:
                spot = instance.document["scheduling"].get("provisioningModel") == "SPOT"
                used.update(_needs(instance.document, zone, spot))
        return used

    def advance(self) -> None:
        """Let time go by: what is due happens now."""
        with self.lock:
            now = time.monotonic()
            for (zone, name), instance in list(self.instances.items()):
                while instance.steps and instance.steps[0][0] <= now:
                    self._enter(zone, name, instance, instance.steps.pop(0)[1])
                self._look(zone, name, instance, now)
            for operation in self._operations.values():
                _progress(operation, now)

    def close(self) -> None:
        with self.lock:
            self.instances.clear()
            self._guests.close()

    def _enter(self, zone: str, name: str, instance: Instance, status: str) -> None:
        if status == GONE:
            del self.instances[zone, name]
            self._guests.discard(f"{zone}.{name}")
            self._note()
            return
        if status == "RUNNING":
            items = instance.document.get("metadata", {}).get("items", [])
            script = next((item["value"] for item in items if item["key"] == "startup-script"), "")
            self._guests.boot(f"{zone}.{name}", script)  # at every boot, as the guest agent does
            life = instance.document["scheduling"].get("maxRunDuration", {}).get("seconds")
            instance.ends_at = time.monotonic() + int(life) if life else float("inf")
        self._show(instance, status)

    def _look(self, zone: str, name: str, instance: Instance, now: float) -> None:
        """Notice a guest that switched itself off, and one whose time is up."""
        if instance.document["status"] != "RUNNING" or instance.steps:
            return
        if not self._guests.running(f"{zone}.{name}"):
            self._leave(zone, name, "TERMINATED")
        elif now >= instance.ends_at:
            action = instance.document["scheduling"]["instanceTerminationAction"]
            self._leave(zone, name, GONE if action == "DELETE" else "TERMINATED")

    def _leave(self, zone: str, name: str, goal: str) -> None:
        instance = self.instances[zone, name]
        self._show(instance, "STOPPING")
        self._guests.stop(f"{zone}.{name}")
        instance.steps = [(time.monotonic() + ENDED_S, goal)]

    def _show(self, instance: Instance, status: str) -> None:
        instance.document = {**instance.document, "status": status}
        self._note()

    def _note(self) -> None:
        self._history.append((time.monotonic(), [each.document for each in self.instances.values()]))
        del self._history[:-1000]

    def _live(self, zone: str, name: str) -> Instance:
        if found := self.instances.get((zone, name)):
            return found
        raise missing(f"projects/{catalogue.PROJECT}/zones/{zone}/instances/{name}")

    def _document(self, zone: str, body: Mapping[str, Any]) -> dict[str, Any]:
        link = f"{BASE}/projects/{catalogue.PROJECT}/zones/{zone}"
        kind = body["machineType"].rpartition("/")[2]
        return {
            **body,
            "kind": "compute#instance",
            "id": str(next(self._numbers)),
            "creationTimestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "zone": link,
            "selfLink": f"{link}/instances/{body['name']}",
            "machineType": f"{link}/machineTypes/{kind}",
            "scheduling": {"provisioningModel": "STANDARD", **body.get("scheduling", {})},
            "status": "PROVISIONING",
        }

    def _operation(
        self, zone: str, kind: str, name: str, done_at: float, error: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        link = f"{BASE}/projects/{catalogue.PROJECT}/zones/{zone}"
        number = next(self._numbers)
        document: dict[str, Any] = {
            "kind": "compute#operation",
            "id": str(number),
            "name": f"operation-{number}",
            "zone": link,
            "operationType": kind,
            "targetLink": f"{link}/instances/{name}",
            "status": "PENDING",
            "progress": 0,
            "insertTime": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "selfLink": f"{link}/operations/operation-{number}",
        }
        self._operations[zone, document["name"]] = Operation(document, done_at, error)
        return document

    def _over_quota(self, body: Mapping[str, Any], spot: bool) -> dict[str, Any] | None:
        zone_needs = _needs(body, "", spot)
        used = self.usage()
        limits = catalogue.QUOTAS
        short = next((m for m, n in zone_needs.items() if m in limits and used[m] + n > limits[m]), "")
        if not short and self.faults.strike("quota"):
            short = "CPUS"
        return _exceeded(short) if short else None


def _progress(operation: Operation, now: float) -> None:
    if operation.document["status"] == "DONE":
        return
    if now < operation.done_at:
        operation.document = {**operation.document, "status": "RUNNING"}
        return
    operation.document = {**operation.document, "status": "DONE", "progress": 100}
    if operation.error:
        failed = {"errors": [operation.error]}
        operation.document |= {"error": failed, "httpErrorStatusCode": 503, "httpErrorMessage": "SERVICE UNAVAILABLE"}


def _needs(body: Mapping[str, Any], zone: str, spot: bool) -> Counter[str]:
    """Return what an instance takes of each quota; spot goes on the preemptible one where that is granted."""
    kind = body["machineType"].rpartition("/")[2]
    cpus, _, card, cards = catalogue.TYPES[kind]
    for each in body.get("guestAccelerators", []):
        card, cards = each["acceleratorType"].rpartition("/")[2], each["acceleratorCount"]
    needs: Counter[str] = Counter()
    if metric := _CPU_QUOTAS.get(kind.partition("-")[0]):
        needs["PREEMPTIBLE_CPUS" if spot and catalogue.QUOTAS["PREEMPTIBLE_CPUS"] else metric] += cpus
    if card:
        device = card.upper().replace("-", "_").replace("NVIDIA_TESLA_", "NVIDIA_") + "_GPUS"
        granted = catalogue.QUOTAS.get(f"PREEMPTIBLE_{device}", 0)
        needs[f"PREEMPTIBLE_{device}" if spot and granted else device] += cards
    if any(each.get("accessConfigs") for each in body.get("networkInterfaces", [])):
        needs["IN_USE_ADDRESSES"] += 1
    return needs


def _exceeded(metric: str) -> dict[str, Any]:
    limit = catalogue.QUOTAS[metric]
    return {
        "code": "QUOTA_EXCEEDED",
        "message": f"Quota '{metric}' exceeded.  Limit: {limit}.0 in region {catalogue.REGION}.",
        "errorDetails": [
            {
                "quotaInfo": {
                    "metricName": f"compute.googleapis.com/{metric.lower()}",
                    "limitName": f"{metric.replace('_', '-')}-per-project-region",
                    "dimensions": {"region": catalogue.REGION},
                    "limit": float(limit),
                }
            }
        ],
    }


def _stockout(zone: str, body: Mapping[str, Any]) -> dict[str, Any]:
    kind = body["machineType"].rpartition("/")[2]
    return {
        "code": "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS",
        "message": f"The zone 'projects/{catalogue.PROJECT}/zones/{zone}' does not have enough resources available "
        "to fulfill the request.  '(resource type:compute)'.",
        "errorDetails": [
            {
                "errorInfo": {
                    "reason": "resource_availability",
                    "domain": "compute.googleapis.com",
                    "metadatas": {"vmType": kind, "zone": zone, "attachment": "", "zonesAvailable": ""},
                }
            }
        ],
    }


def _uuid(text: str) -> str:
    try:
        found = uuid.UUID(text)
    except ValueError:
        raise Refusal(400, f"Invalid value for field 'requestId': '{text}'. It must be a UUID.") from None
    if not found.int:
        raise Refusal(400, "Invalid value for field 'requestId': the zero UUID is not supported.")
    return str(found)
