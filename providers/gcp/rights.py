"""What the credential must be allowed to do: the least of it, and the role that grants it. Pure."""

from collections.abc import Iterable

from providers.gcp.settings import Settings

_ALWAYS = (
    "compute.acceleratorTypes.list",
    "compute.disks.create",
    "compute.instances.create",
    "compute.instances.delete",
    "compute.instances.get",
    "compute.instances.getSerialPortOutput",
    "compute.instances.list",
    "compute.instances.setLabels",
    "compute.instances.setMetadata",
    "compute.instances.start",
    "compute.instances.stop",
    "compute.machineTypes.list",
    "compute.projects.get",
    "compute.regions.get",
    "compute.subnetworks.use",
    "compute.zoneOperations.get",
    "compute.zones.get",
)


def permissions(settings: Settings) -> tuple[str, ...]:
    """Return the least that this driver needs with these settings."""
    more = []
    if settings.public_ip:
        more.append("compute.subnetworks.useExternalIp")
    if settings.subnetwork:
        more.append("compute.subnetworks.get")
    else:
        more.append("compute.networks.get")
    if settings.network_tags:
        more.append("compute.instances.setTags")
    if settings.service_account:
        more += ["compute.instances.setServiceAccount", "iam.serviceAccounts.actAs"]
    if settings.image.startswith(f"projects/{settings.project}/"):
        more += ["compute.images.get", "compute.images.getFromFamily", "compute.images.useReadOnly"]
    return tuple(sorted({*_ALWAYS, *more}))


def role(wanted: Iterable[str]) -> str:
    """Return the custom role that grants these permissions, as `gcloud iam roles create --file` reads it."""
    lines = ["title: Atoll", "description: What Atoll needs to make and end machines", "stage: GA"]
    return "\n".join([*lines, "includedPermissions:", *(f"- {permission}" for permission in wanted), ""])


def url(settings: Settings) -> str:
    """Return where to ask which of some permissions the credential has."""
    return f"{settings.rights_endpoint}/v1/projects/{settings.project}:testIamPermissions"
