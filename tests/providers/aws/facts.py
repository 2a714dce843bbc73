"""Things that several tests of the `aws` driver are about."""

from dataclasses import replace
from typing import Any

from atoll.instance import Shape
from atoll.slots import GIB, Slots
from providers.aws.ground import Ground, Image
from providers.aws.settings import Settings
from providers.port import Intent

SETTINGS = Settings(region="eu-central-1", disk=20 * GIB)
IMAGE = Image(id="ami-1", root_device="/dev/xvda", size=8 * GIB)
GROUND = Ground(image=IMAGE)
SHAPE = Shape(provider="ec2", name="t3.small", zone="eu-central-1a", slots=Slots(2000, 2 * GIB), price=20800)


def intent(*, tags: dict[str, str] | None = None, script: str = "#!/bin/sh\n", **shape: Any) -> Intent:
    return Intent(id="i-1", owner="inst-1", shape=replace(SHAPE, **shape), user_data=script, tags=tags or {})


def kind(name: str, **more: Any) -> dict[str, Any]:
    """Return a plain instance type as DescribeInstanceTypes tells it."""
    return {
        "InstanceType": name,
        "SupportedUsageClasses": ["on-demand", "spot"],
        "SupportedRootDeviceTypes": ["ebs"],
        "SupportedVirtualizationTypes": ["hvm"],
        "BareMetal": False,
        "ProcessorInfo": {"SupportedArchitectures": ["x86_64"]},
        "VCpuInfo": {"DefaultVCpus": 2},
        "MemoryInfo": {"SizeInMiB": 2048},
        **more,
    }
