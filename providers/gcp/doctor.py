"""What `doctor` looks at: each check is one call that makes nothing, and one finding."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from providers.errors import ProviderError
from providers.gcp.access import Reply
from providers.gcp.machines import leaf
from providers.gcp.rights import role
from providers.port import Finding

SKEW_S = 30.0
"""How far this machine's clock may be from Google's: signed tokens are refused beyond minutes."""


async def found(check: str, call: Awaitable[Mapping[str, Any]], say: Callable[[Mapping[str, Any]], str]) -> Finding:
    """Return one finding: what `say` makes of the answer, or the error and its hint."""
    try:
        return Finding(check=check, ok=True, message=say(await call))
    except ProviderError as error:
        return Finding(check=check, ok=False, message=error.message, hint=error.hint or f"check the {check}")


def zones(region: Mapping[str, Any], wanted: tuple[str, ...]) -> Finding:
    """Return whether the zones wanted are the region's."""
    there = sorted(leaf(url) for url in region.get("zones", []))
    if missing := [zone for zone in wanted if zone not in there]:
        said = f"the region has no {', '.join(missing)}"
        return Finding(check="zones", ok=False, message=said, hint=f"its zones: {', '.join(there)}")
    return Finding(check="zones", ok=True, message=", ".join(wanted or there))


def rights(reply: Reply, wanted: tuple[str, ...]) -> Finding:
    """Return whether all permissions are there, with the role that grants them."""
    granted = frozenset(reply.document.get("permissions", []))
    missing = [permission for permission in wanted if permission not in granted]
    return Finding(
        check="rights",
        ok=not missing,
        message=f"missing: {', '.join(missing)}" if missing else f"all {len(wanted)} permissions are granted",
        hint="gcloud iam roles create atoll --project PROJECT --file role.yaml, and grant it" if missing else "",
        details=role(wanted),
    )


def clock(reply: Reply, now: float) -> Finding:
    """Return whether this machine's clock agrees with Google's."""
    skew = now - reply.at if reply.at else 0.0
    return Finding(
        check="clock",
        ok=abs(skew) <= SKEW_S,
        message=f"{abs(skew):.0f} s from Google's" if reply.at else "Google did not tell the time",
        hint="" if abs(skew) <= SKEW_S else "set the clock: signed calls are refused otherwise",
    )
