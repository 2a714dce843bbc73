"""The pretended account's machines: moto's instances, with real processes behind them and EC2's life cycle."""

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moto.ec2.models import ec2_backends
from moto.ec2.models.instance_types import INSTANCE_TYPES

from providers.aws.machines import _STATES
from providers.port import INTENT_TAG, OWNER_TAG, MachineState
from tests.clouds.aws.facts import ACCOUNT
from tests.clouds.guests import Guests
from tests.clouds.harness import Seen

CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}


@dataclass(kw_only=True)
class Record:
    """What the server knows of an instance beyond moto. `boots_at` is when its guest is switched on."""

    id: str
    region: str
    token: str
    request: str
    answer: bytes
    user_data: str
    on_shutdown: str
    spot: bool
    boots_at: float
    state: str = "pending"
    before: str = ""
    created_at: float = field(default_factory=time.monotonic)
    changed_at: float = field(default_factory=time.monotonic)
    job: threading.Thread | None = None
    reclaimed_at: float | None = None


class Machines(Guests):
    """Guests whose agents find EC2's metadata service below a URL instead of at its link-local address."""

    metadata = ""

    def _environment(self, key: str, base: Path) -> dict[str, str]:
        return {"ATOLL_INSTANCE_METADATA": f"{self.metadata}/{key}", **super()._environment(key, base)}


def digest(query: dict[str, str]) -> str:
    """Return what EC2 compares of requests under one token: all that was asked for."""
    return hashlib.sha256(repr(sorted(query.items())).encode()).hexdigest()


class Hall:
    """All records. Call with the server's lock held."""

    def __init__(self, guests: Guests) -> None:
        self.guests = guests
        self.records: dict[str, Record] = {}
        self.by_token: dict[tuple[str, str], Record] = {}

    def moto(self, record: Record) -> Any:
        return ec2_backends[ACCOUNT][record.region].get_instance(record.id)

    def add(self, record: Record) -> None:
        self.records[record.id] = record
        if record.token:
            self.by_token[record.region, record.token] = record
        self._show(record, "", "")
        self.refresh()

    def refresh(self) -> None:
        """Bring every record in line with its guest, and moto with every record."""
        for record in self.records.values():
            if record.reclaimed_at is not None and time.time() >= record.reclaimed_at:
                self.terminate(record, "Server.SpotInstanceTermination", "Spot instance termination")
            if record.state == "pending" and time.monotonic() >= record.boots_at:
                self.guests.boot(record.id, record.user_data)
                self.enter(record, "running")
            elif record.state == "running" and not self.guests.running(record.id):
                self._switched_off(record)
            elif record.state == "stopping" and _done(record):
                self.enter(record, "stopped", "Client.UserInitiatedShutdown", "User initiated shutdown")
            elif record.state == "shutting-down" and _done(record):
                self.enter(record, "terminated")

    def _switched_off(self, record: Record) -> None:
        reason = ("Client.InstanceInitiatedShutdown", "Instance initiated shutdown")
        if record.on_shutdown == "terminate":
            self.terminate(record, *reason)
        else:
            self._begin(record, self.guests.stop)
            self.enter(record, "stopping", *reason)

    def start(self, record: Record) -> None:
        record.boots_at = time.monotonic()
        self.enter(record, "pending")

    def stop(self, record: Record) -> None:
        self._begin(record, self.guests.stop)
        self.enter(record, "stopping", "Client.UserInitiatedShutdown", "User initiated shutdown")

    def terminate(
        self, record: Record, code: str = "Client.UserInitiatedShutdown", message: str = "User initiated shutdown"
    ) -> None:
        """End a machine; idempotent. moto lets go of its volumes and addresses at once, the guest a little later."""
        if record.state in ("shutting-down", "terminated"):
            return
        ec2_backends[ACCOUNT][record.region].terminate_instances([record.id])
        self._begin(record, self.guests.discard)
        self.enter(record, "shutting-down", code, message)

    def _begin(self, record: Record, work: Callable[[str], None]) -> None:
        record.job = threading.Thread(target=work, args=(record.id,), daemon=True)
        record.job.start()

    def enter(self, record: Record, state: str, code: str = "", message: str = "") -> None:
        record.before, record.state, record.changed_at = record.state, state, time.monotonic()
        self._show(record, code, message)

    def _show(self, record: Record, code: str, message: str) -> None:
        instance = self.moto(record)
        instance._state.name, instance._state.code = record.state, CODES[record.state]
        if record.state != "terminated":  # it keeps the reason it began to end for
            instance.state_reason.code, instance.state_reason.message = code, f"{code}: {message}" if code else ""

    def seen(self, record: Record) -> Seen:
        instance = self.moto(record)
        tags = {tag["key"]: tag["value"] for tag in instance.get_tags()}
        return Seen(
            provider_id=record.id,
            intent=tags.get(INTENT_TAG, ""),
            owner=tags.get(OWNER_TAG, ""),
            state=_STATES.get(record.state, MachineState.PENDING),
            created=instance.instance_type,
            zone=instance.placement.zone,
            spot=record.spot,
            user_data=record.user_data,
            tags=tags,
        )

    def slots(self, key: str) -> str:
        """Return what a guest pretends to have: its instance type's cores, memory and GPUs."""
        kind = INSTANCE_TYPES[self.moto(self.records[key]).instance_type]
        gpus = [
            f",gpu={gpu['Name']}:{gpu['Count']}:{gpu['MemoryInfo']['SizeInMiB']}MiB"
            for gpu in kind.get("GpuInfo", {}).get("Gpus", [])
            if gpu["Count"]
        ]
        cores, memory = kind["VCpuInfo"]["DefaultVCpus"], kind["MemoryInfo"]["SizeInMiB"]
        return f"cpu={cores},memory={memory}MiB,disk=20GiB{''.join(gpus)}"


def _done(record: Record) -> bool:
    return record.job is None or not record.job.is_alive()
