"""What Compute Engine refuses in an instance that is of the right form: names, references, labels, combinations."""

import re
from collections.abc import Mapping
from typing import Any

from tests.clouds.gcp import catalogue

METADATA_VALUE, METADATA_TOTAL = 256 * 1024, 512 * 1024
_LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")
_METADATA_KEY = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_MOST_VCPUS = {
    "nvidia-tesla-t4": {1: 48, 2: 48, 4: 96},
    "nvidia-tesla-v100": {1: 12, 2: 24, 4: 48, 8: 96},
}
_LONGEST_S = 120 * 86400


class Refusal(Exception):
    """An error answer: HTTP status, Google's reason, and its message."""

    def __init__(self, status: int, message: str, reason: str = "invalid", retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.reason = reason
        self.retry_after = retry_after


def wrong(field: str, value: object, why: str = "") -> Refusal:
    return Refusal(400, f"Invalid value for field 'resource.{field}': '{value}'. {why}".strip())


def missing(path: str) -> Refusal:
    return Refusal(404, f"The resource '{path}' was not found", "notFound")


def check(body: Mapping[str, Any], project: str, zone: str) -> None:
    """Raise `Refusal` for an instance that cannot be."""
    if not body.get("name"):
        raise wrong("name", "", "Required field missing.")
    place = f"projects/{project}/zones/{zone}"
    kind = _reference("machineType", body.get("machineType", ""), f"{place}/machineTypes")
    types = catalogue.machine_types(zone)
    if kind not in types:
        raise wrong("machineType", body["machineType"], "The referenced resource does not exist.")
    _accelerators(body, types[kind], place, zone)
    _scheduling(body, types[kind])
    _disks(body, place)
    _network(body, project)
    _labels(body.get("labels", {}))
    _metadata(body.get("metadata", {}).get("items", []))
    for account in body.get("serviceAccounts", []):
        if not account.get("email") or not account.get("scopes"):
            raise wrong("serviceAccounts", account, "An email and scopes are needed.")


def _reference(field: str, url: str, folder: str) -> str:
    """Return the name at the end of a full or partial URL, which must point into `folder`."""
    start, _, name = url.partition("/compute/v1/")[2].rpartition("/") if "/compute/v1/" in url else url.rpartition("/")
    if not (folder == start or folder.endswith(f"/{start}")):
        raise wrong(field, url, "The URL is malformed.")
    return name


def _accelerators(body: Mapping[str, Any], kind: Mapping[str, Any], place: str, zone: str) -> None:
    cards = body.get("guestAccelerators", [])
    for each in cards:
        name, count = each.get("acceleratorType", ""), each.get("acceleratorCount", 0)
        card = _reference("guestAccelerators[0].acceleratorType", name, f"{place}/acceleratorTypes")
        if card not in catalogue.accelerator_types(zone):
            raise missing(f"{place}/acceleratorTypes/{card}")
        most = _MOST_VCPUS.get(card, {}).get(count, 0)
        if not kind["name"].startswith("n1-") or card not in catalogue.ATTACHABLE or kind["guestCpus"] > most:
            said = f"[{kind['name']}, {card} x {count}] features are not compatible for creating instance."
            raise Refusal(400, said, "badRequest")
    moves = body.get("scheduling", {}).get("onHostMaintenance", "MIGRATE") == "MIGRATE"
    if moves and (cards or kind.get("accelerators")):
        raise Refusal(400, "Instances with guest accelerators do not support live migration.", "badRequest")


def _scheduling(body: Mapping[str, Any], kind: Mapping[str, Any]) -> None:
    scheduling = body.get("scheduling", {})
    spot = scheduling.get("provisioningModel") == "SPOT"
    action = scheduling.get("instanceTerminationAction")
    life = int(scheduling.get("maxRunDuration", {}).get("seconds", 0))
    if spot and scheduling.get("automaticRestart", True):
        raise wrong("scheduling.automaticRestart", True, "Spot instances cannot be restarted automatically.")
    if spot and scheduling.get("onHostMaintenance") != "TERMINATE":
        raise wrong("scheduling.onHostMaintenance", "MIGRATE", "Spot instances are terminated, never moved.")
    if action and not spot and not life:
        raise wrong("scheduling.instanceTerminationAction", action, "It needs SPOT or a time limit.")
    if life and not action:
        raise wrong("scheduling.instanceTerminationAction", "", "It is needed with maxRunDuration.")
    if life and not 30 <= life <= _LONGEST_S:
        raise wrong("scheduling.maxRunDuration", life, "It must be from 30 seconds to 120 days.")


def _disks(body: Mapping[str, Any], place: str) -> None:
    disks = body.get("disks", [])
    if not disks:
        raise wrong("disks", "", "No disks are specified.")
    made = disks[0].get("initializeParams", {})
    if not disks[0].get("boot"):
        raise wrong("disks[0].boot", False, "Boot disk must be the first disk attached to the instance.")
    image = made.get("sourceImage", "")
    known = {
        f"projects/{catalogue.IMAGE_OWNER}/global/images/family/{catalogue.IMAGE_FAMILY}",
        f"projects/{catalogue.IMAGE_OWNER}/global/images/{catalogue.IMAGE}",
    }
    if image.rpartition("/compute/v1/")[2] not in known:
        raise wrong("disks[0].initializeParams.sourceImage", image, "The referenced image resource cannot be found.")
    disk = _reference("disks[0].initializeParams.diskType", made.get("diskType", ""), f"{place}/diskTypes")
    if disk not in catalogue.DISK_TYPES:
        raise missing(f"{place}/diskTypes/{disk}")
    if int(made.get("diskSizeGb", 10)) < 10:
        raise wrong("disks[0].initializeParams.diskSizeGb", made["diskSizeGb"], "Smaller than the image.")


def _network(body: Mapping[str, Any], project: str) -> None:
    interfaces = body.get("networkInterfaces", [])
    if not interfaces:
        raise wrong("networkInterfaces", "", "At least one network interface is required.")
    first = interfaces[0]
    if subnetwork := first.get("subnetwork", ""):
        folder = f"projects/{project}/regions/{catalogue.REGION}/subnetworks"
        known, name = catalogue.SUBNETWORKS, _reference("networkInterfaces[0].subnetwork", subnetwork, folder)
    else:
        folder = f"projects/{project}/global/networks"
        network = first.get("network", "global/networks/default")
        known, name = catalogue.NETWORKS, _reference("networkInterfaces[0].network", network, folder)
    if name not in known:
        raise wrong("networkInterfaces[0]", name, "The referenced network resource cannot be found.")


def _labels(labels: Mapping[str, str]) -> None:
    if len(labels) > 64:
        raise wrong("labels", "", "There may be 64 labels.")
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key):
            raise wrong("labels", key, "Label keys are lower-case letters, digits, - and _, a letter first.")
        if not _LABEL_VALUE.fullmatch(value):
            raise wrong("labels", value, "Label values are lower-case letters, digits, - and _, 63 at most.")


def _metadata(items: list[dict[str, str]]) -> None:
    keys = [item.get("key", "") for item in items]
    if len(set(keys)) != len(keys):
        raise wrong("metadata.items", "", "A key is there twice.")
    for number, item in enumerate(items):
        if not _METADATA_KEY.fullmatch(item.get("key", "")):
            raise wrong(f"metadata.items[{number}].key", item.get("key", ""))
        if len(item.get("value", "").encode()) > METADATA_VALUE:
            said = f"Value is too large: maximum size {METADATA_VALUE} character(s)"
            raise wrong(f"metadata.items[{number}].value", item["value"], said)
    if sum(len(item.get("value", "").encode()) for item in items) > METADATA_TOTAL:
        raise wrong("metadata.items", "", "The total size of all keys and values must be less than 512 KB.")
