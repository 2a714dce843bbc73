"""What `doctor` looks at in an OpenStack project: reads only, one finding a line."""

from collections.abc import Awaitable, Callable
from email.utils import parsedate_to_datetime

from atoll.clock import Clock
from providers.errors import Auth, ProviderError
from providers.openstack.account import Account
from providers.openstack.ground import flavors, image_is_there, network_id, zones
from providers.openstack.request import TAGS_AT_CREATE
from providers.openstack.rights import command
from providers.openstack.settings import Settings
from providers.openstack.shapes import Unclear, slots_of
from providers.port import Finding

SKEW_S = 60.0
CLOCK_HINT = "run NTP on this machine: expiry of tokens goes by the clock"


async def examine(account: Account, settings: Settings, clock: Clock) -> list[Finding]:
    """Return all findings; without a login there is but one."""
    try:
        findings = [_credential(await account.access())]
    except ProviderError as error:
        return [_failed("credential", error)]
    checks: dict[str, Callable[[], Awaitable[Finding]]] = {
        "compute": lambda: _compute(account),
        "clock": lambda: _clock(account, clock),
        "zones": lambda: _zones(account, settings),
        "image": lambda: _image(account, settings),
        "network": lambda: _network(account, settings),
        "security groups": lambda: _security_groups(account, settings),
        "flavors": lambda: _flavors(account, settings),
    }
    for name, check in checks.items():
        try:
            findings.append(await check())
        except ProviderError as error:
            findings.append(_failed(name, error))
    return findings


def _failed(check: str, error: ProviderError) -> Finding:
    details = command() if isinstance(error, Auth) else ""
    return Finding(check=check, ok=False, message=str(error), hint=error.hint, details=details)


def _credential(access: object) -> Finding:
    roles = sorted(getattr(access, "role_names", ()))
    project = getattr(access, "project_name", "") or "no project"
    whose = f"project {project}, roles {', '.join(roles) or 'none'}"
    if not {"member", "_member_", "admin"} & set(roles):
        return Finding(
            check="credential",
            ok=False,
            message=f"{whose}: it may make no servers",
            hint="the role is usually called member",
            details=command(),
        )
    if not getattr(access, "application_credential_id", None):
        return Finding(
            check="credential",
            ok=True,
            message=f"{whose}: a user's password",
            hint="an application credential can be limited to what is needed, and revoked by itself",
            details=command(),
        )
    if not getattr(access, "application_credential_access_rules", None):
        return Finding(
            check="credential",
            ok=True,
            message=f"{whose}: an application credential without access rules",
            hint="with rules it is good for these calls only",
            details=command(),
        )
    return Finding(check="credential", ok=True, message=f"{whose}: an application credential with access rules")


async def _compute(account: Account) -> Finding:
    version = await account.version()
    tags = int(version.partition(".")[2]) >= TAGS_AT_CREATE
    how = "by server tags" if tags else "by metadata: it is older than 2.52"
    return Finding(check="compute", ok=True, message=f"microversion {version}; machines are listed {how}")


async def _clock(account: Account, clock: Clock) -> Finding:
    stamp = await account.date()
    if not stamp:
        return Finding(check="clock", ok=True, message="not compared: the answers carry no time")
    skew = clock.now() - parsedate_to_datetime(stamp).timestamp()
    return Finding(
        check="clock",
        ok=abs(skew) <= SKEW_S,
        message=f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the cloud's",
        hint="" if abs(skew) <= SKEW_S else CLOCK_HINT,
    )


async def _zones(account: Account, settings: Settings) -> Finding:
    there = await zones(account, Settings(image=settings.image))
    absent = sorted(set(settings.zones) - set(there))
    return Finding(
        check="zones",
        ok=not absent and bool(there),
        message=f"not available: {', '.join(absent)}" if absent else ", ".join(settings.zones or there),
        hint=f"zones here: {', '.join(there)}" if absent else "",
    )


async def _image(account: Account, settings: Settings) -> Finding:
    well = await image_is_there(account, settings.image)
    return Finding(
        check="image",
        ok=well,
        message=settings.image if well else f"there is no active image {settings.image!r}",
        hint="" if well else "openstack image list --status active",
    )


async def _network(account: Account, settings: Settings) -> Finding:
    if not settings.network:
        return Finding(check="network", ok=True, message="none named: nova takes the project's only one")
    found = [await network_id(account, name) for name in settings.network]
    for network in found:
        await account.get("network", f"/networks/{network}")
    return Finding(check="network", ok=True, message=", ".join(settings.network))


async def _security_groups(account: Account, settings: Settings) -> Finding:
    there = await account.pages("network", "/security-groups", "security_groups")
    known = {group[key] for group in there for key in ("id", "name")}
    absent = sorted(set(settings.security_groups) - known)
    return Finding(
        check="security groups",
        ok=not absent,
        message=f"not there: {', '.join(absent)}" if absent else ", ".join(settings.security_groups) or "default",
        hint="agents need no way in, and out to the control plane's port only",
    )


async def _flavors(account: Account, settings: Settings) -> Finding:
    sold, unclear = [], []
    for flavor in await flavors(account):
        if settings.sells(flavor["name"]):
            try:
                slots_of(flavor, settings)
                sold.append(flavor["name"])
            except Unclear as why:
                unclear.append(f"{flavor['name']} is not offered: {why}")
    return Finding(
        check="flavors",
        ok=bool(sold),
        message=f"{len(sold)} offered" if sold else "none is offered",
        hint="" if sold else "look at the patterns in shapes",
        details="\n".join(unclear),
    )
