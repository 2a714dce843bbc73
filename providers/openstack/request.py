"""The request that makes a server of an intent. Pure."""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from atoll.slots import GIB
from providers.errors import BadRequest
from providers.openstack.machines import SHAPE_TAG
from providers.openstack.settings import Settings
from providers.port import INTENT_TAG, OWNER_TAG, PRINT_TAG, Intent

LONGEST_TAG = 60
LONGEST_VALUE = 255
USER_DATA_LIMIT = 65535
"""Characters of base64 that nova takes as user data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What the settings name, as ids of this cloud, and what its compute service can do.

    `version` is the microversion used. `flavors` are ids by name.
    """

    version: str
    image: str
    networks: tuple[str, ...]
    flavors: Mapping[str, str]

    def knows(self, minor: int) -> bool:
        """Say whether compute's microversion 2.`minor` may be used."""
        return int(self.version.partition(".")[2]) >= minor


TAGS_AT_CREATE, TAGS_IN_LISTS, NETWORK_NEEDED, NAMED_FLAVORS, SPECS_SHOWN = 52, 26, 37, 47, 61
"""Minor microversions: tags in the create call; lists by tag; `networks` required; extra specs with flavors."""


def owner_tag(owner: str) -> str:
    """Return the server tag that lists go by. It narrows them; the metadata decides."""
    return re.sub(r"[,/]", "-", f"{OWNER_TAG}={owner}")[:LONGEST_TAG]


def create_server(intent: Intent, settings: Settings, ground: Ground) -> dict[str, Any]:
    """Return the body of the create call; raise `BadRequest` for what this cloud does not have."""
    shape = intent.shape
    if shape.spot:
        raise BadRequest("OpenStack sells nothing as spot")
    if shape.name not in ground.flavors:
        raise BadRequest(f"there is no flavor {shape.name!r}")
    data = base64.b64encode(intent.user_data.encode()).decode()
    if len(data) > USER_DATA_LIMIT:
        raise BadRequest(f"user data is longer than {USER_DATA_LIMIT * 3 // 4} bytes")
    server: dict[str, Any] = {
        "name": intent.name,
        "flavorRef": ground.flavors[shape.name],
        "user_data": data,
        "metadata": metadata(intent, settings),
        "availability_zone": shape.zone,
    }
    server |= _disk(settings, ground)
    if ground.networks:
        server["networks"] = [{"uuid": network} for network in ground.networks]
    elif ground.knows(NETWORK_NEEDED):
        server["networks"] = "auto"
    if ground.knows(TAGS_AT_CREATE):
        server["tags"] = [owner_tag(intent.owner)]
    if settings.security_groups:
        server["security_groups"] = [{"name": group} for group in settings.security_groups]
    if settings.key_name:
        server["key_name"] = settings.key_name
    if settings.config_drive:
        server["config_drive"] = True
    return {"server": server}


def metadata(intent: Intent, settings: Settings) -> dict[str, str]:
    """Return the metadata: the user's labels in the letters that nova takes, then our own."""
    labels = {_key(key): value[:LONGEST_VALUE] for key, value in {**settings.tags, **intent.tags}.items()}
    return labels | {
        OWNER_TAG: intent.owner,
        INTENT_TAG: intent.id,
        PRINT_TAG: intent.fingerprint,
        SHAPE_TAG: intent.shape.name,
    }


def _disk(settings: Settings, ground: Ground) -> dict[str, Any]:
    if not settings.disk:
        return {"imageRef": ground.image}
    volume: dict[str, Any] = {
        "boot_index": 0,
        "uuid": ground.image,
        "source_type": "image",
        "destination_type": "volume",
        "volume_size": -(-settings.disk // GIB),
        "delete_on_termination": True,
    }
    if settings.volume_type and ground.knows(67):
        volume["volume_type"] = settings.volume_type
    mapping: Sequence[dict[str, Any]] = [volume]
    return {"block_device_mapping_v2": mapping}


def _key(label: str) -> str:
    return re.sub(r"[^a-zA-Z0-9\-_:. ]", "-", label)[:LONGEST_VALUE]
