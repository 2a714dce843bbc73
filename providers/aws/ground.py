"""What machines stand on: the image's facts and a subnet for each zone."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from atoll.slots import GIB
from providers.aws.account import Account
from providers.aws.settings import Settings
from providers.errors import BadRequest

SSM = "ssm:"
"""Stands before the name of a parameter that holds an image's id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An AMI. `size` is its root disk's least size in bytes."""

    id: str
    root_device: str
    architecture: str = "x86_64"
    size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """`image` is None where the launch template has it; `subnets` is empty for the default VPC's."""

    image: Image | None = None
    subnets: Mapping[str, str] = field(default_factory=dict)


async def survey(account: Account, settings: Settings) -> Ground:
    """Ask the cloud for what the settings only name. Raises `BadRequest` where it is not there."""
    subnets = settings.subnets or (await _placed(account, settings.subnet_ids) if settings.subnet_ids else {})
    return Ground(image=await find_image(account, settings), subnets=subnets)


async def find_image(account: Account, settings: Settings) -> Image | None:
    """Return the image the settings name; None where they leave it to the launch template."""
    if not settings.image:
        return None
    ami = settings.image
    if ami.startswith(SSM):
        told = await account.ask("ssm", "get_parameter", Name=ami.removeprefix(SSM))
        ami = told["Parameter"]["Value"]
    found = (await account.ask("ec2", "describe_images", ImageIds=[ami]))["Images"]
    if not found:
        raise BadRequest(f"there is no image {ami} in {settings.region}", hint="check provider.settings.image")
    return image(found[0])


def image(told: Mapping[str, Any]) -> Image:
    """Return the image as DescribeImages tells it."""
    root = told.get("RootDeviceName", "")
    disks = [d.get("Ebs", {}) for d in told.get("BlockDeviceMappings", ()) if d.get("DeviceName") == root]
    return Image(
        id=told["ImageId"],
        root_device=root,
        architecture=told.get("Architecture", ""),
        size=max((disk.get("VolumeSize", 0) for disk in disks), default=0) * GIB,
    )


async def _placed(account: Account, ids: Iterable[str]) -> dict[str, str]:
    wanted = list(ids)
    told = (await account.ask("ec2", "describe_subnets", SubnetIds=wanted))["Subnets"]
    zones = {subnet["SubnetId"]: subnet["AvailabilityZone"] for subnet in told}
    # The first named of a zone wins, always: another choice would be another request under the same token.
    return {zones[each]: each for each in reversed(wanted) if each in zones}
