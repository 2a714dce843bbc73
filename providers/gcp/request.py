"""From an intent to the body of `instances.insert`. Pure."""

import hashlib
import uuid
from typing import Any

from atoll.slots import GIB
from providers.errors import BadRequest
from providers.gcp.labels import labels, metadata
from providers.gcp.offers import parts
from providers.gcp.settings import Settings
from providers.port import Intent

SCRIPT = "startup-script"
"""Metadata key: Google's guest agent runs its value at every boot."""
SCRIPT_LIMIT = 16 * 1024
"""Bytes of boot script that are taken, as at the other clouds (Google itself would take 256 KiB)."""

_LIFE_S = range(30, 120 * 86400 + 1)  # what maxRunDuration may be
_HYPERDISK_ONLY = frozenset({"a4", "a4x", "c4", "c4a", "c4d", "g4", "h4d", "m4", "n4", "n4a", "n4d", "x4"})
_NEVER_MOVED = frozenset({"a2", "a3", "a4", "a4x", "g2", "g4", "h3", "h4d"})


def request_id(intent: Intent, attempt: int) -> str:
    """Return the UUID by which Google knows a repeated call: other content or attempt, other id."""
    said = f"{intent.token}/{intent.fingerprint}/{attempt}"
    return str(uuid.UUID(bytes=hashlib.sha256(said.encode()).digest()[:16], version=4))


def instance(intent: Intent, settings: Settings) -> dict[str, Any]:
    """Return the instance to make; raise `BadRequest` when there can be no such one."""
    if len(intent.user_data.encode()) > SCRIPT_LIMIT:
        raise BadRequest(f"the boot script is longer than {SCRIPT_LIMIT} bytes")
    kind, accelerator, count = parts(intent.shape.name)
    place = f"projects/{settings.project}/zones/{intent.shape.zone}"
    items = {SCRIPT: intent.user_data, **metadata(intent, settings.tags)}
    body: dict[str, Any] = {
        "name": intent.name,
        "machineType": f"{place}/machineTypes/{kind}",
        "labels": labels(intent, settings.tags),
        "metadata": {"items": [{"key": key, "value": value} for key, value in items.items()]},
        "disks": [_disk(kind, place, settings)],
        "networkInterfaces": [_interface(settings)],
        "scheduling": _scheduling(intent, kind, bool(accelerator)),
        "shieldedInstanceConfig": {"enableVtpm": True, "enableIntegrityMonitoring": True},
    }
    if accelerator:
        body["guestAccelerators"] = [
            {"acceleratorType": f"{place}/acceleratorTypes/{accelerator}", "acceleratorCount": count}
        ]
    if settings.network_tags:
        body["tags"] = {"items": list(settings.network_tags)}
    if settings.service_account:
        body["serviceAccounts"] = [{"email": settings.service_account, "scopes": _scopes(settings)}]
    return body


def _disk(kind: str, place: str, settings: Settings) -> dict[str, Any]:
    usual = "hyperdisk-balanced" if kind.partition("-")[0] in _HYPERDISK_ONLY else "pd-balanced"
    return {
        "boot": True,
        "autoDelete": True,
        "initializeParams": {
            "sourceImage": settings.image,
            "diskSizeGb": str(-(-settings.disk // GIB)),
            "diskType": f"{place}/diskTypes/{settings.disk_type or usual}",
        },
    }


def _interface(settings: Settings) -> dict[str, Any]:
    interface: dict[str, Any] = (
        {"subnetwork": settings.subnetwork} if settings.subnetwork else {"network": settings.network}
    )
    if settings.public_ip:
        interface["accessConfigs"] = [{"type": "ONE_TO_ONE_NAT", "name": "External NAT"}]
    return interface


def _scheduling(intent: Intent, kind: str, attached: bool) -> dict[str, Any]:
    """Return how the machine ends: a reclaimed or overdue one is deleted, so that not even its disk stays."""
    scheduling: dict[str, Any] = {"provisioningModel": "SPOT" if intent.shape.spot else "STANDARD"}
    lives = int(intent.max_life_s)
    if intent.shape.spot or attached or kind.partition("-")[0] in _NEVER_MOVED:
        scheduling["onHostMaintenance"] = "TERMINATE"
    if intent.shape.spot:
        scheduling["automaticRestart"] = False
    if lives in _LIFE_S:
        scheduling["maxRunDuration"] = {"seconds": str(lives)}
    if intent.shape.spot or lives in _LIFE_S:
        scheduling["instanceTerminationAction"] = "DELETE"
    return scheduling


def _scopes(settings: Settings) -> list[str]:
    return list(settings.scopes) or ["https://www.googleapis.com/auth/cloud-platform"]
