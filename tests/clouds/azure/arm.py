"""What ARM says when it refuses, and the ids and rules all its resources share."""

import re
from collections.abc import Mapping
from typing import Any

SUBSCRIPTION = "11111111-2222-4333-8444-555555555555"
GROUP = "atoll-test"
REGION = "westeurope"
SCOPE = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}"
SUBNET = f"{SCOPE}/providers/Microsoft.Network/virtualNetworks/net/subnets/machines"
SECURITY_GROUP = f"{SCOPE}/providers/Microsoft.Network/networkSecurityGroups/egress"
TAGS_MOST = 50

Resource = dict[str, Any]
_BAD_KEY = re.compile(r"[<>%&\\?/]")


class ArmError(Exception):
    """A refusal: HTTP status, ARM's code and words; `retry_after` in seconds becomes a header."""

    def __init__(self, status: int, code: str, message: str, *, retry_after: int = 0) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.retry_after = status, code, message, retry_after

    def body(self) -> Resource:
        return {"error": {"code": self.code, "message": self.message}}


class HungUp(Exception):
    """The connection ends without an answer."""


def not_found(kind: str, name: str) -> ArmError:
    return ArmError(
        404, "ResourceNotFound", f"The Resource '{kind}/{name}' under resource group '{GROUP}' was not found."
    )


def resource_id(kind: str, name: str) -> str:
    return f"{SCOPE}/providers/{kind}/{name}"


def checked_tags(tags: Mapping[str, str]) -> None:
    if len(tags) > TAGS_MOST:
        raise ArmError(400, "InvalidTags", f"The number of tags ({len(tags)}) exceeds {TAGS_MOST}.")
    for key, value in tags.items():
        if not 0 < len(key) <= 512:
            raise ArmError(400, "InvalidTagNameLength", "The tag name is empty or longer than 512 characters.")
        if _BAD_KEY.search(key):
            raise ArmError(400, "InvalidTagNameCharacters", f"The tag names '{key}' have reserved characters.")
        if len(value) > 256:
            raise ArmError(400, "InvalidTagValueLength", "The tag value is longer than 256 characters.")


def checked_place(body: Mapping[str, Any]) -> None:
    if str(body.get("location", "")).lower() != REGION:
        raise ArmError(
            400, "LocationNotAvailableForResourceType", f"The provided location '{body.get('location')}' is not here."
        )


def checked_name(name: str, longest: int) -> None:
    if not re.fullmatch(r"[A-Za-z0-9]([\w.-]*\w)?", name) or len(name) > longest:
        raise ArmError(400, "InvalidResourceName", f"Resource name {name[:100]} is invalid.")
