"""What Compute refuses of a machine's body beyond its schema. Pure."""

import base64
import binascii
import re
from typing import Any

from tests.clouds.azure import catalogue
from tests.clouds.azure.arm import ArmError, Resource, checked_name

CUSTOM_DATA_LIMIT = 65535
IMAGE_GB = 30


def checked_machine(name: str, body: Resource) -> None:
    """Raise `ArmError` for a machine that Azure would not make."""
    checked_name(name, 64)
    properties = body.get("properties") or {}
    size = (properties.get("hardwareProfile") or {}).get("vmSize", "")
    if size not in catalogue.CORES:
        raise _invalid("vmSize", f"The value {size} provided for the VM size is not valid.")
    _zones(size, body.get("zones") or [])
    generation = _image((properties.get("storageProfile") or {}).get("imageReference") or {})
    _disk((properties.get("storageProfile") or {}).get("osDisk") or {})
    _system(properties.get("osProfile") or {})
    _payment(properties)
    _security(properties.get("securityProfile") or {}, size, generation)
    cards = (properties.get("networkProfile") or {}).get("networkInterfaces") or []
    if len(cards) != 1 or not cards[0].get("id"):
        raise _invalid("networkProfile", "Virtual machine must have a network interface.")


def _zones(size: str, zones: list[str]) -> None:
    where = catalogue.zones(size)
    if len(zones) > 1:
        raise _invalid("zones", "A virtual machine can be in one zone only.")
    if where is None or (zones and where and zones[0] not in where):
        raise ArmError(
            409,
            "SkuNotAvailable",
            f"The requested VM size for resource 'Following SKUs have failed for Capacity Restrictions: {size}' is "
            "currently not available in location 'westeurope'. Please try another size or deploy to a different "
            "location or different zone.",
        )
    if zones and not where:
        raise ArmError(
            400, "BadRequest", f"The requested VM size {size} is not supported in availability zones of this region."
        )


def _image(reference: Resource) -> str:
    if reference.get("id"):
        if "/Microsoft.Compute/images/" not in reference["id"] and "/galleries/" not in reference["id"]:
            raise _invalid("imageReference.id", "The value of parameter imageReference.id is invalid.")
        return "V2"
    urn = (reference.get("publisher", ""), reference.get("offer", ""), reference.get("sku", ""))
    if urn not in catalogue.URNS or not reference.get("version"):
        raise ArmError(
            404, "PlatformImageNotFound", f"The platform image '{':'.join(urn)}' is not available in this region."
        )
    return catalogue.URNS[urn]


def _disk(disk: Resource) -> None:
    if not disk.get("name") or disk.get("createOption") != "FromImage":
        raise _invalid("osDisk", "A disk made from an image needs a name and createOption FromImage.")
    if disk.get("diskSizeGB", IMAGE_GB) < IMAGE_GB:
        raise _invalid("osDisk.diskSizeGB", f"The specified disk size is smaller than the image's: {IMAGE_GB} GB.")
    if "storageAccountType" not in (disk.get("managedDisk") or {}):
        raise _invalid("osDisk.managedDisk", "managedDisk.storageAccountType is missing.")


def _system(system: Resource) -> None:
    for key in ("computerName", "adminUsername"):
        if not system.get(key):
            raise _invalid(f"osProfile.{key}", f"Required parameter '{key}' is missing (null).")
    if len(system["computerName"]) > 64 or re.search(r"[\\/\"\[\]:|<>+=;,?*@&_.]", system["computerName"]):
        raise _invalid("computerName", "Linux host name cannot exceed 64 characters or contain special ones.")
    if system["adminUsername"] in ("root", "admin", "administrator", "user", "test"):
        raise _invalid("adminUsername", "The Admin Username specified is not allowed.")
    try:
        data = base64.b64decode(system.get("customData", ""), validate=True)
    except binascii.Error:
        raise _invalid("customData", "Custom data in OSProfile must be in Base64 encoding.") from None
    if len(data) > CUSTOM_DATA_LIMIT:
        raise _invalid("customData", f"Custom data in OSProfile must be at most {CUSTOM_DATA_LIMIT} bytes long.")
    linux = system.get("linuxConfiguration") or {}
    keys = (linux.get("ssh") or {}).get("publicKeys") or []
    if not (system.get("adminPassword") or (linux.get("disablePasswordAuthentication") and keys)):
        raise _invalid("linuxConfiguration", "Authentication using either SSH or by user name and password is needed.")
    for key in keys:
        if key.get("path") != f"/home/{system['adminUsername']}/.ssh/authorized_keys":
            raise _invalid("linuxConfiguration.ssh.publicKeys.path", "Destination path must be its default value.")
        _login(key.get("keyData", ""))


def _login(text: str) -> None:
    kind, _, rest = text.partition(" ")
    try:
        blob = base64.b64decode(rest.partition(" ")[0], validate=True)
    except binascii.Error:
        blob = b""
    parts = []
    while len(blob) > 4:
        size = int.from_bytes(blob[:4], "big")
        parts.append(blob[4 : 4 + size])
        blob = blob[4 + size :]
    if blob or kind not in ("ssh-rsa", "ssh-ed25519") or not parts or parts[0] != kind.encode():
        raise _invalid("linuxConfiguration.ssh.publicKeys.keyData", "The key data is not a valid SSH public key.")
    if kind == "ssh-ed25519" and [len(part) for part in parts[1:]] != [32]:
        raise _invalid("linuxConfiguration.ssh.publicKeys.keyData", "The key data is not an Ed25519 key.")


def _payment(properties: Resource) -> None:
    spot = properties.get("priority") == "Spot"
    if not spot and ("evictionPolicy" in properties or "billingProfile" in properties):
        raise _invalid("evictionPolicy", "Eviction policy and billing profile can be set on Spot machines only.")
    most = (properties.get("billingProfile") or {}).get("maxPrice", -1)
    if spot and most != -1 and most <= 0:
        raise _invalid("billingProfile.maxPrice", "Max price must be -1 or greater than zero.")


def _security(security: Resource, size: str, generation: str) -> None:
    if "uefiSettings" in security and security.get("securityType") not in ("TrustedLaunch", "ConfidentialVM"):
        raise _invalid("securityProfile.uefiSettings", "UEFI settings need a security type.")
    if generation not in catalogue.GENERATIONS[size]:
        raise ArmError(
            400, "BadRequest", f"The selected VM size '{size}' cannot boot Hypervisor Generation '{generation[1]}'."
        )
    if security.get("securityType") == "TrustedLaunch" and generation != "V2":
        raise ArmError(400, "BadRequest", "Trusted launch is supported with generation 2 images only.")


def _invalid(target: str, message: str) -> ArmError:
    return ArmError(400, "InvalidParameter", f"{message} (target: {target})")


def shown(body: Resource) -> dict[str, Any]:
    """Return a machine's body as Azure shows it: what is written only is left out."""
    properties = {**body["properties"]}
    if system := properties.get("osProfile"):
        properties["osProfile"] = {k: v for k, v in system.items() if k not in ("customData", "adminPassword")}
    return {**body, "properties": properties}
