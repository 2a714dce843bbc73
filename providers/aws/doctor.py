"""What `doctor` looks at in an AWS account: reads and dry runs only."""

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeAlias

from atoll.clock import Clock
from atoll.instance import Shape
from providers.aws import errors
from providers.aws.account import Account
from providers.aws.ground import SSM, Ground, Image, find_image, survey
from providers.aws.policy import policy
from providers.aws.prices import wanted
from providers.aws.quotas import limits
from providers.aws.request import run_instances
from providers.aws.settings import Settings
from providers.errors import Auth, ProviderError
from providers.port import OWNER_TAG, Finding, Intent

MAX_SKEW_S = 120.0
"""AWS refuses requests whose clock is five minutes off."""
GRANT = "grant what the policy below allows"

Check: TypeAlias = Callable[[], Awaitable[Finding]]
Offered: TypeAlias = Callable[[], Awaitable[list[Shape]]]


async def examine(account: Account, settings: Settings, clock: Clock, offered: Offered) -> list[Finding]:
    """Return all findings; after a refused credential only that and the policy, for nothing else can be asked."""
    try:
        told = await account.ask("sts", "get_caller_identity")
    except ProviderError as error:
        return [Finding(check="credential", ok=False, message=str(error), hint=error.hint), rights(settings, "", "")]
    findings = [
        Finding(check="credential", ok=True, message=f"{told['Arn']} of account {told['Account']}"),
        clock_finding(told["ResponseMetadata"].get("HTTPHeaders", {}).get("date", ""), clock.now()),
    ]
    now = clock.now()
    checks: dict[str, Check] = {
        "zones": lambda: _zones(account, settings),
        "image": lambda: _image(account, settings),
        "network": lambda: _network(account, settings),
        "launch": lambda: _launch(account, settings, offered),
        "terminate": lambda: _own(account),
        "prices": lambda: _prices(account, settings, now),
        "quotas": lambda: _quotas(account),
    }
    for name, check in checks.items():
        findings.append(await _held(name, check))
    return [*findings, rights(settings, told["Account"], told["Arn"])]


async def _held(name: str, check: Check) -> Finding:
    try:
        return await check()
    except ProviderError as error:
        hint = error.hint or (GRANT if isinstance(error, Auth) else "")
        return Finding(check=name, ok=False, message=str(error), hint=hint)


def clock_finding(date: str, now: float) -> Finding:
    """Return how far this machine's clock is from the one in AWS's `Date` header."""
    try:
        skew = abs(parsedate_to_datetime(date).timestamp() - now)
    except ValueError:
        return Finding(check="clock", ok=True, message="AWS told no time to compare with")
    return Finding(
        check="clock",
        ok=skew <= MAX_SKEW_S,
        message=f"{skew:.0f} s off AWS's",
        hint="" if skew <= MAX_SKEW_S else "synchronise this machine's clock: AWS refuses requests of another time",
    )


def rights(settings: Settings, account: str, arn: str) -> Finding:
    """Return the finding that carries the least-privilege policy for these settings."""
    parameter = settings.image.removeprefix(SSM) if settings.image.startswith(SSM) else "/aws/service/*"
    document = policy(
        settings.region,
        account or "ACCOUNT",
        partition=arn.split(":")[1] if arn else "aws",
        parameter=parameter,
        instance_profile=settings.instance_profile,
        spot=settings.spot,
    )
    return Finding(
        check="policy",
        ok=True,
        message="the least a credential needs; `Null` on the tag lets it end machines of any Atoll in the account",
        hint=f'to this one only: "StringEquals" with "{OWNER_TAG}" and the installation\'s id',
        details=json.dumps(document, indent=2),
    )


async def _zones(account: Account, settings: Settings) -> Finding:
    told = (await account.ask("ec2", "describe_availability_zones"))["AvailabilityZones"]
    there = sorted(zone["ZoneName"] for zone in told if zone.get("State") == "available")
    missing = [zone for zone in (*settings.zones, *settings.subnets) if zone not in there]
    return Finding(
        check="zones",
        ok=not missing and bool(there),
        message=f"no zone {missing[0]} in {settings.region}" if missing else f"{settings.region}: {', '.join(there)}",
        hint=f"zones there: {', '.join(there)}" if missing else "",
    )


async def _image(account: Account, settings: Settings) -> Finding:
    found = await find_image(account, settings)
    if found is None:
        return Finding(check="image", ok=True, message="the launch template's")
    return image_finding(found, settings)


def image_finding(found: Image, settings: Settings) -> Finding:
    """Return whether machines of these settings can boot from an image."""
    wrong, hint = "", ""
    if found.architecture != settings.architecture:
        wrong = f"is for {found.architecture}, machines are {settings.architecture}"
        hint = "set provider.settings.architecture, or name another image"
    elif settings.disk and found.size > settings.disk:
        wrong, hint = "is larger than the disk", "raise provider.settings.disk"
    message = f"{found.id} {wrong}" if wrong else f"{found.id} for {found.architecture}, root {found.root_device}"
    return Finding(check="image", ok=not wrong, message=message, hint=hint)


async def _network(account: Account, settings: Settings) -> Finding:
    """Subnets and security groups are there, and each subnet has a way out: agents dial the control plane."""
    ground = await survey(account, settings)
    if settings.security_groups:
        await account.ask("ec2", "describe_security_groups", GroupIds=list(settings.security_groups))
    asked: dict[str, Any] = {"Filters": [{"Name": "default-for-az", "Values": ["true"]}]}
    if ground.subnets:
        asked = {"SubnetIds": list(ground.subnets.values())}
    elif settings.launch_template:
        return Finding(check="network", ok=True, message="the launch template's")
    subnets = (await account.ask("ec2", "describe_subnets", **asked))["Subnets"]
    if not subnets:
        return Finding(
            check="network", ok=False, message="there is no default VPC", hint="name provider.settings.subnets"
        )
    tables = await account.pages("ec2", "describe_route_tables", "RouteTables", 100)
    closed = [subnet["SubnetId"] for subnet in subnets if not leads_out(subnet, tables, settings.public_ip)]
    return Finding(
        check="network",
        ok=not closed,
        message=f"{closed[0]} has no route out" if closed else f"{len(subnets)} subnets with a route out",
        hint="machines must reach the control plane: add a NAT gateway, or public_ip with an internet gateway"
        if closed
        else "",
    )


def leads_out(subnet: dict[str, Any], tables: list[dict[str, Any]], public_ip: bool) -> bool:
    """Say whether a subnet's default route leads anywhere; an internet gateway serves public addresses only."""
    mine = [t for t in tables if any(a.get("SubnetId") == subnet["SubnetId"] for a in t.get("Associations", ()))]
    main = [
        t for t in tables if t.get("VpcId") == subnet["VpcId"] and any(a.get("Main") for a in t.get("Associations", ()))
    ]
    routes = [route for table in (mine or main) for route in table.get("Routes", ())]
    out = [route for route in routes if route.get("DestinationCidrBlock") == "0.0.0.0/0"]
    return any(public_ip or not route.get("GatewayId", "").startswith("igw-") for route in out)


async def _launch(account: Account, settings: Settings, offered: Offered) -> Finding:
    """A dry run of the very request that `create` sends, for the smallest offer."""
    shapes = await offered()
    if not shapes:
        return Finding(
            check="launch",
            ok=False,
            message=f"no machine type of {settings.region} fits the settings",
            hint="check shapes, zones and architecture",
        )
    shape = min(shapes, key=lambda each: (each.slots.memory, each.slots.cpu, each.spot, each.key))
    ground = await survey(account, settings)
    return await _dry("launch", f"{len(shapes)} offers; may launch {shape.key}", _try(account, settings, ground, shape))


async def _try(account: Account, settings: Settings, ground: Ground, shape: Shape) -> object:
    intent = Intent(id="doctor", owner="doctor", shape=shape, user_data="#!/bin/sh\n")
    return await account.order("run_instances", **run_instances(intent, settings, ground), DryRun=True)


async def _own(account: Account) -> Finding:
    """A dry run on a machine of ours; rights by tag cannot be tried on machines that are not there."""
    marked = [{"Name": "tag-key", "Values": [OWNER_TAG]}]
    told = await account.pages("ec2", "describe_instances", "Reservations", 500, Filters=marked)
    ids = [
        each["InstanceId"]
        for reservation in told
        for each in reservation["Instances"]
        if each["State"]["Name"] in ("running", "stopped")
    ]
    if not ids:
        return Finding(check="terminate", ok=True, message="cannot be tried before the first machine is there")
    return await _dry(
        "terminate",
        f"may end {ids[0]}",
        account.order("terminate_instances", InstanceIds=ids[:1], DryRun=True),
    )


async def _dry(check: str, well: str, call: Awaitable[object]) -> Finding:
    try:
        await call
    except errors.Refused as error:
        if error.aws_code != errors.DRY_RUN:
            raise
        return Finding(check=check, ok=True, message=well)
    return Finding(check=check, ok=False, message="AWS carried out a dry run", hint="look for what it made")


async def _prices(account: Account, settings: Settings, now: float) -> Finding:
    listed = await account.ask(
        "pricing", "get_products", ServiceCode="AmazonEC2", Filters=wanted(settings.region), MaxResults=1
    )
    if settings.spot:
        await account.ask(
            "ec2", "describe_spot_price_history", MaxResults=5, StartTime=datetime.fromtimestamp(now, UTC)
        )
    there = bool(listed.get("PriceList"))
    return Finding(
        check="prices",
        ok=there,
        message=f"can be read for {settings.region}" if there else f"AWS lists none for {settings.region}",
        hint="" if there else "import a price file: atoll prices import",
    )


async def _quotas(account: Account) -> Finding:
    told = await account.pages("service-quotas", "list_service_quotas", "Quotas", 100, ServiceCode="ec2")
    found = limits(told)
    none = [limit.name for limit in found if limit.limit == 0]
    return Finding(
        check="quotas",
        ok=True,
        message=f"{len(found)} limits told" + (f"; 0 for {', '.join(none)}" if none else ""),
        hint="raise those you need in the Service Quotas console" if none else "",
    )
