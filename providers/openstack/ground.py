"""What a provider stands on at its cloud: ids of image, networks and flavors, and the zones there are."""

import re
from typing import Any

from providers.errors import Absent, BadRequest
from providers.openstack.account import Account
from providers.openstack.request import SPECS_SHOWN, Ground
from providers.openstack.settings import Settings

_ID = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE)


async def survey(account: Account, settings: Settings) -> Ground:
    """Ask the cloud for what the settings name; raise `BadRequest` for what it does not have."""
    return Ground(
        version=await account.version(),
        image=await image_id(account, settings.image),
        networks=tuple([await network_id(account, name) for name in settings.network]),
        flavors={flavor["name"]: flavor["id"] for flavor in await flavors(account)},
    )


async def flavors(account: Account) -> list[dict[str, Any]]:
    """Return the flavors that the project may use, with their extra specs."""
    found = await account.pages("compute", "/flavors/detail", "flavors")
    if int((await account.version()).partition(".")[2]) < SPECS_SHOWN:
        for flavor in found:
            told = await account.get("compute", f"/flavors/{flavor['id']}/os-extra_specs")
            flavor["extra_specs"] = told["extra_specs"]
    return found


async def zones(account: Account, settings: Settings) -> list[str]:
    """Return the zones of the settings, or all that are available."""
    if settings.zones:
        return list(settings.zones)
    told = (await account.get("compute", "/os-availability-zone"))["availabilityZoneInfo"]
    return sorted(zone["zoneName"] for zone in told if zone["zoneState"]["available"])


async def image_id(account: Account, wanted: str) -> str:
    """Return an image's id; of several of a name the newest active one."""
    if _ID.fullmatch(wanted):
        return wanted
    named = await account.get("image", "/images", name=wanted, status="active", sort="created_at:desc")
    if not named["images"]:
        raise BadRequest(f"there is no image {wanted!r}", hint="openstack image list names them")
    return str(named["images"][0]["id"])


async def network_id(account: Account, wanted: str) -> str:
    """Return a network's id; two of a name must be told apart by id."""
    if _ID.fullmatch(wanted):
        return wanted
    found = (await account.get("network", "/networks", name=wanted))["networks"]
    if len(found) != 1:
        what = "there is no network" if not found else f"there are {len(found)} networks called"
        raise BadRequest(f"{what} {wanted!r}", hint="openstack network list names them; an id is always clear")
    return str(found[0]["id"])


async def image_is_there(account: Account, wanted: str) -> bool:
    """Say whether an image can be read and is active."""
    try:
        told = await account.get("image", f"/images/{await image_id(account, wanted)}")
    except (Absent, BadRequest):
        return False
    return told.get("status") == "active"
