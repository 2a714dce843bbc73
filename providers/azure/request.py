"""From an intent to the bodies Azure wants: address, network card, machine. Pure; names follow from the intent."""

import base64
import hashlib
import re
from collections.abc import Mapping
from typing import Any

from atoll.slots import GIB
from providers.azure.settings import Settings
from providers.errors import BadRequest
from providers.port import INTENT_TAG, OWNER_TAG, PRINT_TAG, Intent

CREATED_TAG = "atoll-created"
"""Unix seconds of the create call: tells what was left behind from what is being made."""
USER_DATA_LIMIT = 65535
"""Bytes of user data that Azure takes."""
LOGIN = "atoll"
"""The login every Linux machine at Azure must have."""
TAGS_MOST = 50

Body = dict[str, Any]
_NOT_IN_KEYS = re.compile(r"[<>%&\\?/\x00-\x1f]")


def card(name: str) -> str:
    """Return the name of a machine's network card."""
    return f"{name}-nic"


def address(name: str) -> str:
    """Return the name of a machine's public address."""
    return f"{name}-ip"


def disk(name: str) -> str:
    """Return the name of a machine's disk."""
    return f"{name}-os"


def checked(intent: Intent) -> None:
    """Raise `BadRequest` for what Azure would refuse, before anything is made."""
    if len(intent.user_data.encode()) > USER_DATA_LIMIT:
        raise BadRequest(f"user data is longer than {USER_DATA_LIMIT} bytes")


def tags(intent: Intent, settings: Settings, now: float) -> dict[str, str]:
    """Return the tags of everything made for an intent: ours win, keys and values as Azure allows them."""
    theirs = {**settings.tags, **intent.tags}
    ours = {
        OWNER_TAG: intent.owner,
        INTENT_TAG: intent.id,
        PRINT_TAG: intent.fingerprint,
        CREATED_TAG: str(int(now)),
    }
    allowed = {
        _NOT_IN_KEYS.sub("-", key)[:512]: value[:256] for key, value in theirs.items() if key.lower() not in ours
    }
    first = dict(list(allowed.items())[: TAGS_MOST - len(ours)])
    return {**first, **ours}


def public_address(settings: Settings, labels: Mapping[str, str]) -> Body:
    """Return the body of a machine's public address; it goes with the card."""
    return {
        "location": settings.region,
        "tags": dict(labels),
        "sku": {"name": "Standard"},
        "properties": {
            "publicIPAllocationMethod": "Static",
            "publicIPAddressVersion": "IPv4",
            "deleteOption": "Delete",
        },
    }


def network_card(settings: Settings, labels: Mapping[str, str], address_id: str) -> Body:
    """Return the body of a machine's network card; `address_id` is empty where it has no public address."""
    place: Body = {
        "primary": True,
        "privateIPAllocationMethod": "Dynamic",
        "subnet": {"id": settings.subnet},
    }
    if address_id:
        place["publicIPAddress"] = {"id": address_id, "properties": {"deleteOption": "Delete"}}
    properties: Body = {"ipConfigurations": [{"name": "primary", "properties": place}]}
    if settings.security_group:
        properties["networkSecurityGroup"] = {"id": settings.security_group}
    return {"location": settings.region, "tags": dict(labels), "properties": properties}


def machine(intent: Intent, settings: Settings, labels: Mapping[str, str], card_id: str) -> Body:
    """Return the body of the machine itself: everything it brings goes when it goes."""
    body: Body = {
        "location": settings.region,
        "tags": dict(labels),
        "properties": {
            "hardwareProfile": {"vmSize": intent.shape.name},
            "storageProfile": {"imageReference": _image(settings.image), "osDisk": _disk(intent, settings)},
            "osProfile": _system(intent, settings),
            "networkProfile": {
                "networkInterfaces": [{"id": card_id, "properties": {"primary": True, "deleteOption": "Delete"}}]
            },
            "diagnosticsProfile": {"bootDiagnostics": {"enabled": True}},
            **(_spot() if intent.shape.spot else {}),
            **(_trusted(intent) if settings.trusted_launch else {}),
        },
    }
    if number := zone_number(intent.shape.zone, settings.region):
        body["zones"] = [number]
    return body


def zone_number(zone: str, region: str) -> str:
    """Return `1` of `westeurope-1`; "" for a region that has no zones."""
    return zone.removeprefix(f"{region}-") if zone != region else ""


def throwaway_key(token: str) -> str:
    """Return an SSH public key that nobody has the private half of: its bytes are a digest.

    Azure makes no Linux machine without a login; this one lets nobody in. Equal intents have equal ones.
    """
    kind, key = b"ssh-ed25519", hashlib.sha256(f"no login {token}".encode()).digest()
    blob = b"".join(len(part).to_bytes(4, "big") + part for part in (kind, key))
    return f"ssh-ed25519 {base64.b64encode(blob).decode()} nobody"


def _disk(intent: Intent, settings: Settings) -> Body:
    return {
        "name": disk(intent.name),
        "createOption": "FromImage",
        "caching": "ReadWrite",
        "deleteOption": "Delete",
        "diskSizeGB": -(-settings.disk // GIB),
        "managedDisk": {"storageAccountType": "StandardSSD_LRS"},
    }


def _system(intent: Intent, settings: Settings) -> Body:
    key = settings.ssh_public_key or throwaway_key(intent.token)
    return {
        "computerName": intent.name,
        "adminUsername": LOGIN,
        "customData": base64.b64encode(intent.user_data.encode()).decode(),
        "linuxConfiguration": {
            "disablePasswordAuthentication": True,
            "ssh": {"publicKeys": [{"path": f"/home/{LOGIN}/.ssh/authorized_keys", "keyData": key}]},
        },
    }


def _image(image: str) -> Body:
    if image.startswith("/"):
        return {"id": image}
    publisher, offer, sku, version = image.split(":")
    return {"publisher": publisher, "offer": offer, "sku": sku, "version": version}


def _spot() -> Body:
    """Taken back means deleted, and the price may rise to the on-demand one: the planner judges by its own book."""
    return {"priority": "Spot", "evictionPolicy": "Delete", "billingProfile": {"maxPrice": -1}}


def _trusted(intent: Intent) -> Body:
    """No secure boot on machines with GPUs: it refuses the drivers that images build for themselves."""
    return {
        "securityProfile": {
            "securityType": "TrustedLaunch",
            "uefiSettings": {"vTpmEnabled": True, "secureBootEnabled": not intent.shape.slots.gpu},
        }
    }
