"""An intent as a RunInstances request. Pure: equal intents on equal ground give equal requests."""

import re
from collections.abc import Mapping
from typing import Any

from atoll.slots import GIB
from providers.aws.ground import Ground
from providers.aws.settings import Settings
from providers.errors import BadRequest
from providers.port import INTENT_TAG, OWNER_TAG, PRINT_TAG, Intent

USER_DATA_LIMIT = 16 * 1024
"""Bytes of user data EC2 takes, before its encoding."""
MAX_TAGS = 50
_UNFIT = re.compile(r"[^\w .:/=+\-@]")


def run_instances(intent: Intent, settings: Settings, ground: Ground) -> dict[str, Any]:
    """Return the request. Raises `BadRequest` for an intent that EC2 would not take."""
    if len(intent.user_data.encode()) > USER_DATA_LIMIT:
        raise BadRequest(f"user data is longer than {USER_DATA_LIMIT} bytes")
    request: dict[str, Any] = {
        "ClientToken": intent.token,
        "InstanceType": intent.shape.name,
        "MinCount": 1,
        "MaxCount": 1,
        "UserData": intent.user_data,
        "Placement": {"AvailabilityZone": intent.shape.zone},
        "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 1, "HttpEndpoint": "enabled"},
        # A machine whose lease ran out powers itself off and must then cost nothing; our own stops are API calls.
        "InstanceInitiatedShutdownBehavior": "terminate",
        "TagSpecifications": _tagged(intent, settings),
    }
    if ground.image:
        request["ImageId"] = ground.image.id
        request["BlockDeviceMappings"] = [_root(settings.disk, ground.image.root_device, ground.image.size)]
    request |= _network(intent.shape.zone, settings, ground)
    request |= _options(settings)
    if intent.shape.spot:
        request["InstanceMarketOptions"] = {
            "MarketType": "spot",
            "SpotOptions": {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"},
        }
    return request


def _root(disk: int, device: str, least: int) -> dict[str, Any]:
    ebs: dict[str, Any] = {"VolumeType": "gp3", "Encrypted": True, "DeleteOnTermination": True}
    if disk:
        ebs["VolumeSize"] = -(-max(disk, least) // GIB)
    return {"DeviceName": device, "Ebs": ebs}


def _network(zone: str, settings: Settings, ground: Ground) -> dict[str, Any]:
    """Return the network part; nothing where a launch template is left to say it."""
    if ground.subnets and zone not in ground.subnets:
        raise BadRequest(f"there is no subnet for zone {zone}", hint="add one to provider.settings.subnets")
    if settings.launch_template and not (ground.subnets or settings.security_groups):
        return {}
    card: dict[str, Any] = {
        "DeviceIndex": 0,
        "AssociatePublicIpAddress": settings.public_ip,
        "DeleteOnTermination": True,
    }
    if ground.subnets:
        card["SubnetId"] = ground.subnets[zone]
    if settings.security_groups:
        card["Groups"] = list(settings.security_groups)
    return {"NetworkInterfaces": [card]}


def _options(settings: Settings) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if profile := settings.instance_profile:
        options["IamInstanceProfile"] = {"Arn" if profile.startswith("arn:") else "Name": profile}
    if template := settings.launch_template:
        named = {"LaunchTemplateId": template.id} if template.id else {"LaunchTemplateName": template.name}
        options["LaunchTemplate"] = named | {"Version": template.version}
    if settings.key_name:
        options["KeyName"] = settings.key_name
    return options


def _tagged(intent: Intent, settings: Settings) -> list[dict[str, Any]]:
    marks = [{"Key": key, "Value": value} for key, value in tags(intent, settings.tags).items()]
    kinds = ["instance", "volume", "network-interface"] + (["spot-instances-request"] if intent.shape.spot else [])
    return [{"ResourceType": kind, "Tags": marks} for kind in kinds]


def tags(intent: Intent, common: Mapping[str, str]) -> dict[str, str]:
    """Return all tags of a machine, in EC2's alphabet and number: ours are never crowded out."""
    ours = {
        OWNER_TAG: intent.owner,
        INTENT_TAG: intent.id,
        PRINT_TAG: intent.fingerprint,
        "Name": intent.name,
    }
    users = {_fit(key, 128): _fit(value, 256) for key, value in {**common, **intent.tags}.items()}
    room = MAX_TAGS - len(ours)
    kept = {
        key: value for key, value in users.items() if key and not key.lower().startswith("aws:") and key not in ours
    }
    return dict(list(kept.items())[:room]) | ours


def _fit(text: str, chars: int) -> str:
    return _UNFIT.sub("-", text)[:chars]
