"""What `doctor` checks at Azure, by reading only, and the least roles the control plane needs."""

import fnmatch
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from providers.azure.account import Account
from providers.azure.settings import Settings
from providers.errors import Absent, Auth, ProviderError
from providers.port import Finding

ACTIONS = (
    "Microsoft.Authorization/permissions/read",
    "Microsoft.Compute/disks/delete",
    "Microsoft.Compute/disks/read",
    "Microsoft.Compute/disks/write",
    "Microsoft.Compute/virtualMachines/deallocate/action",
    "Microsoft.Compute/virtualMachines/delete",
    "Microsoft.Compute/virtualMachines/instanceView/read",
    "Microsoft.Compute/virtualMachines/read",
    "Microsoft.Compute/virtualMachines/retrieveBootDiagnosticsData/action",
    "Microsoft.Compute/virtualMachines/start/action",
    "Microsoft.Compute/virtualMachines/write",
    "Microsoft.Network/networkInterfaces/delete",
    "Microsoft.Network/networkInterfaces/join/action",
    "Microsoft.Network/networkInterfaces/read",
    "Microsoft.Network/networkInterfaces/write",
    "Microsoft.Network/networkSecurityGroups/join/action",
    "Microsoft.Network/networkSecurityGroups/read",
    "Microsoft.Network/publicIPAddresses/delete",
    "Microsoft.Network/publicIPAddresses/join/action",
    "Microsoft.Network/publicIPAddresses/read",
    "Microsoft.Network/publicIPAddresses/write",
    "Microsoft.Network/virtualNetworks/subnets/join/action",
    "Microsoft.Network/virtualNetworks/subnets/read",
    "Microsoft.Resources/subscriptions/resourceGroups/read",
)
"""What is done in the resource group."""
SUBSCRIPTION_ACTIONS = (
    "Microsoft.Compute/locations/operations/read",
    "Microsoft.Compute/locations/publishers/artifacttypes/offers/skus/versions/read",
    "Microsoft.Compute/locations/usages/read",
    "Microsoft.Compute/skus/read",
    "Microsoft.Network/locations/operations/read",
    "Microsoft.Resources/subscriptions/read",
)
"""What is read of the subscription: operations under way, sizes, quotas, images. Nothing is changed there."""
SKEW_S = 120.0
_SUBSCRIPTIONS, _GROUPS, _NETWORK, _RIGHTS = "2022-12-01", "2021-04-01", "2024-05-01", "2022-04-01"


def roles(settings: Settings) -> str:
    """Return the two least-privilege custom roles, as `az role definition create` takes each of them.

    The first is for the resource group, the second for the subscription, where there is nothing but reading.
    """
    subscription = f"/subscriptions/{settings.subscription}"
    group = f"{subscription}/resourceGroups/{settings.resource_group}"
    return json.dumps(
        [
            {
                "Name": f"Atoll machines in {settings.resource_group}",
                "IsCustom": True,
                "Description": "Make, stop, start and delete machines with their parts, in this group only",
                "Actions": list(ACTIONS),
                "AssignableScopes": [group],
            },
            {
                "Name": f"Atoll look for {settings.resource_group}",
                "IsCustom": True,
                "Description": "Read machine sizes, images, limits and the state of operations",
                "Actions": list(SUBSCRIPTION_ACTIONS),
                "AssignableScopes": [subscription],
            },
        ],
        indent=2,
    )


def missing(granted: Iterable[Mapping[str, Any]], needed: Iterable[str]) -> list[str]:
    """Return the actions that no entry of a permissions list grants; each entry takes away from itself only."""
    entries = list(granted)
    return [action for action in needed if not any(_grants(entry, action.lower()) for entry in entries)]


def _grants(entry: Mapping[str, Any], action: str) -> bool:
    def matches(key: str) -> bool:
        return any(fnmatch.fnmatchcase(action, str(pattern).lower()) for pattern in entry.get(key) or ())

    return matches("actions") and not matches("notActions")


def examined(account: Account, settings: Settings, now: Callable[[], float]) -> list[Finding]:
    """Check credential, group, subnet, image, rights and clock; create nothing. Stop where no credential is."""
    subscription = f"/subscriptions/{settings.subscription}"
    group = f"{subscription}/resourceGroups/{settings.resource_group}"
    try:
        found, at = account.read(subscription, _SUBSCRIPTIONS)
    except ProviderError as error:
        kind = "credential" if isinstance(error, Auth) else "subscription"
        return [_bad(kind, error, "check credentials, subscription and endpoint of the provider's settings")]
    return [
        Finding(check="credential", ok=True, message=f"opens the subscription {found.get('displayName', '')}".strip()),
        _clock(now() - at if at else 0.0),
        _there("resource group", lambda: account.read(group, _GROUPS), settings.resource_group),
        _there("subnet", lambda: account.read(settings.subnet, _NETWORK), settings.subnet.rpartition("/")[2]),
        *_guard(account, settings),
        _there("image", lambda: _image(account, settings), settings.image),
        _rights(account, group, settings),
    ]


def _clock(skew: float) -> Finding:
    well = abs(skew) <= SKEW_S
    hint = "" if well else "set the control plane's clock: tokens are refused when it is wrong"
    return Finding(check="clock", ok=well, message=f"{skew:+.0f} s from Azure's", hint=hint)


def _guard(account: Account, settings: Settings) -> list[Finding]:
    if not settings.security_group:
        return []
    name = settings.security_group.rpartition("/")[2]
    return [_there("security group", lambda: account.read(settings.security_group, _NETWORK), name)]


def _image(account: Account, settings: Settings) -> object:
    if settings.image.startswith("/"):
        return account.read(settings.image, "2024-03-03" if "/galleries/" in settings.image.lower() else "2024-07-01")
    publisher, offer, sku, _ = settings.image.split(":")
    if not account.image_versions(publisher, offer, sku):
        raise Absent(f"{settings.region} has no version of it")
    return None


def _rights(account: Account, group: str, settings: Settings) -> Finding:
    try:
        listed, _ = account.read(f"{group}/providers/Microsoft.Authorization/permissions", _RIGHTS)
    except ProviderError as error:
        return _bad(
            "rights", error, "grant the roles below, on the resource group and on the subscription", roles(settings)
        )
    lacking = missing(listed.get("value") or (), ACTIONS)
    if lacking:
        return Finding(
            check="rights",
            ok=False,
            message=f"lacks {len(lacking)}: {', '.join(lacking)}",
            hint="grant the roles below, on the resource group and on the subscription",
            details=roles(settings),
        )
    return Finding(check="rights", ok=True, message="all that is needed", details=roles(settings))


def _there(check: str, read: Callable[[], object], name: str) -> Finding:
    try:
        read()
    except ProviderError as error:
        return _bad(check, error, "it must exist in the subscription and be readable")
    return Finding(check=check, ok=True, message=name)


def _bad(check: str, error: ProviderError, hint: str, details: str = "") -> Finding:
    return Finding(check=check, ok=False, message=error.message, hint=error.hint or hint, details=details)
