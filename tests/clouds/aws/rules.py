"""What EC2 refuses of a RunInstances request and moto does not. Parameters come as the query API has them."""

import base64
import re
from collections.abc import Mapping
from typing import Any

from tests.clouds.aws.facts import IMAGE_GIB

USER_DATA_LIMIT = 16384
_TAGGABLE = {"instance", "volume", "network-interface", "spot-instances-request"}
_TAG_TEXT = re.compile(r"[\w .:/=+\-@]*")


class Refusal(Exception):
    """An error answer in EC2's form."""

    def __init__(self, code: str, message: str, status: str = "400 Bad Request", **headers: str) -> None:
        super().__init__(code)
        self.code, self.message, self.status, self.headers = code, message, status, headers


def check(query: Mapping[str, str], image: Any, kind: Mapping[str, Any] | None, zones: set[str], offered: bool) -> None:
    """Raise `Refusal` for a request EC2 would refuse. `image` and `kind` are moto's, None where it has none such."""
    _user_data(query.get("UserData", ""))
    _counts(query)
    _tags(query)
    _market(query, kind)
    _network(query)
    _options(query)
    if kind is None:
        raise Refusal("InvalidParameterValue", f"Invalid value '{query['InstanceType']}' for InstanceType.")
    if image is None and ("ImageId" in query or not any(name.startswith("LaunchTemplate.") for name in query)):
        raise Refusal("InvalidAMIID.NotFound", f"The image id '[{query.get('ImageId', '')}]' does not exist")
    zone = query.get("Placement.AvailabilityZone", "")
    if zone and zone not in zones:
        raise Refusal("InvalidParameterValue", f"Invalid availability zone: [{zone}]")
    if not offered:
        raise Refusal(
            "Unsupported",
            f"Your requested instance type ({query.get('InstanceType')}) is not supported in your requested "
            f"Availability Zone ({zone}).",
        )
    if image is not None:
        known = kind["ProcessorInfo"]["SupportedArchitectures"]
        if image.architecture not in known:
            raise Refusal(
                "InvalidParameterValue",
                f"The architecture '{','.join(known)}' of the specified instance type does not match the architecture "
                f"'{image.architecture}' of the specified AMI.",
            )


def user_data(query: Mapping[str, str]) -> str:
    """Return the decoded user data of a request that passed."""
    return base64.b64decode(query.get("UserData", "")).decode()


def _user_data(encoded: str) -> None:
    try:
        raw = base64.b64decode(encoded, validate=True)
    except ValueError:
        raise Refusal("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data.") from None
    if len(raw) > USER_DATA_LIMIT:
        raise Refusal("InvalidParameterValue", f"User data is limited to {USER_DATA_LIMIT} bytes")


def _counts(query: Mapping[str, str]) -> None:
    for name in ("MinCount", "MaxCount", "InstanceType"):
        if name not in query:
            raise Refusal("MissingParameter", f"The request must contain the parameter {name}")
    if not 1 <= int(query["MinCount"]) <= int(query["MaxCount"]):
        raise Refusal("InvalidParameterValue", f"Invalid value '{query['MaxCount']}' for maxCount.")
    if int(query["MaxCount"]) > 1:
        raise Refusal("InvalidParameterValue", "this test server makes one instance a call")
    token = query.get("ClientToken", "")
    if len(token) > 64 or not token.isascii():
        raise Refusal("InvalidParameterValue", "Client token must be at most 64 ASCII characters")


def _tags(query: Mapping[str, str]) -> None:
    tags: dict[str, dict[str, str]] = {}
    for name, value in query.items():
        if match := re.fullmatch(r"TagSpecification\.(\d+)\.Tag\.(\d+)\.Key", name):
            text = query.get(f"TagSpecification.{match[1]}.Tag.{match[2]}.Value", "")
            tags.setdefault(match[1], {})[value] = text
        if re.fullmatch(r"TagSpecification\.\d+\.ResourceType", name) and value not in _TAGGABLE:
            raise Refusal("InvalidParameterValue", f"'{value}' is not a valid taggable resource type")
    for pairs in tags.values():
        if len(pairs) > 50:
            raise Refusal("TagLimitExceeded", "The maximum number of Tags for a resource has been reached.")
        for key, text in pairs.items():
            if not 1 <= len(key) <= 128 or len(text) > 256 or key.lower().startswith("aws:"):
                raise Refusal("InvalidParameterValue", f"Tag key or value of {key[:40]!r} is not allowed")
            if not _TAG_TEXT.fullmatch(key) or not _TAG_TEXT.fullmatch(text):
                raise Refusal("InvalidParameterValue", f"Tag {key[:40]!r} has characters that are not allowed")


def _market(query: Mapping[str, str], kind: Mapping[str, Any] | None) -> None:
    market = query.get("InstanceMarketOptions.MarketType")
    if market is None:
        return
    if market != "spot":
        raise Refusal("InvalidParameterValue", f"Invalid MarketType '{market}'")
    if kind is not None and "spot" not in kind["SupportedUsageClasses"]:
        raise Refusal("UnsupportedOperation", "The instance type does not support the spot usage class")
    options = "InstanceMarketOptions.SpotOptions."
    if (
        query.get(f"{options}SpotInstanceType", "one-time") == "one-time"
        and query.get(f"{options}InstanceInterruptionBehavior", "terminate") != "terminate"
    ):
        raise Refusal("InvalidParameterCombination", "one-time requests can only be terminated on interruption")


def _network(query: Mapping[str, str]) -> None:
    cards = any(name.startswith("NetworkInterface.") for name in query)
    if cards and any(name.startswith(("SecurityGroup", "SubnetId")) for name in query):
        raise Refusal(
            "InvalidParameterCombination",
            "Network interfaces and an instance-level subnet ID or security groups may not be specified on the same "
            "request",
        )


def _options(query: Mapping[str, str]) -> None:
    if query.get("MetadataOptions.HttpTokens", "optional") not in ("optional", "required"):
        raise Refusal("InvalidParameterValue", "Invalid HttpTokens")
    if not 1 <= int(query.get("MetadataOptions.HttpPutResponseHopLimit", "1")) <= 64:
        raise Refusal("InvalidParameterValue", "Invalid HttpPutResponseHopLimit")
    if query.get("InstanceInitiatedShutdownBehavior", "stop") not in ("stop", "terminate"):
        raise Refusal("InvalidParameterValue", "Invalid InstanceInitiatedShutdownBehavior")
    for name, value in query.items():
        if re.fullmatch(r"BlockDeviceMapping\.\d+\.Ebs\.VolumeSize", name) and int(value) < IMAGE_GIB:
            raise Refusal(
                "InvalidBlockDeviceMapping",
                f"Volume of size {value}GB is smaller than snapshot, expect size >= {IMAGE_GIB}GB",
            )
