"""The `aws` driver: EC2 instances as machines."""

from collections import defaultdict
from typing import Any

from atoll.clock import Clock
from atoll.instance import Shape
from providers.aws import doctor, errors
from providers.aws.account import Account
from providers.aws.ground import Ground, survey
from providers.aws.machines import machine, tags
from providers.aws.quotas import limit_of, limits
from providers.aws.request import run_instances
from providers.aws.settings import Settings
from providers.aws.shapes import filters, offers
from providers.errors import Absent, Auth, BadRequest, Quota, Unknown
from providers.port import OWNER_TAG, PRINT_TAG, Finding, Intent, Limit, Machine, MachineState
from providers.prices.book import Book

CONSOLE_BYTES = 64 * 1024
GROUND_S = 3600.0
"""How long image and subnets are remembered before the cloud is asked again."""


class Aws:
    """One account and region of EC2; see `providers.port.Driver` for what each method promises.

    EC2 remembers a client token until a day after its machine's end at least: until then a repeated create
    makes no second one.
    """

    def __init__(self, name: str, settings: Settings, account: Account, clock: Clock) -> None:
        self._name = name
        self._settings = settings
        self._account = account
        self._clock = clock
        self._ground: tuple[float, Ground] | None = None

    async def doctor(self) -> list[Finding]:
        """Check credential, clock, zones, image, network, rights, prices and quotas; makes nothing."""
        return await doctor.examine(self._account, self._settings, self._clock, lambda: self.shapes(Book()))

    async def quota(self) -> list[Limit]:
        """Return the limits on vCPUs; none where the credential may not read quotas."""
        try:
            told = await self._account.pages("service-quotas", "list_service_quotas", "Quotas", 100, ServiceCode="ec2")
        except Auth:
            return []  # launching needs no such right; doctor says that it is missing
        return limits(told)

    async def shapes(self, prices: Book) -> list[Shape]:
        """Return the types that our image boots on, in the zones where they are and we have a subnet."""
        ask, account = filters(self._settings.patterns), self._account
        types = await account.pages("ec2", "describe_instance_types", "InstanceTypes", 100, Filters=ask)
        offered = await account.pages(
            "ec2",
            "describe_instance_type_offerings",
            "InstanceTypeOfferings",
            1000,
            LocationType="availability-zone",
            Filters=ask,
        )
        allowed = frozenset(self._settings.zones or (await self._stand()).subnets)
        zones: defaultdict[str, set[str]] = defaultdict(set)
        for row in offered:
            if not allowed or row["Location"] in allowed:
                zones[row["InstanceType"]].add(row["Location"])
        places = {name: frozenset(found) for name, found in zones.items()}
        return offers(self._name, self._settings, types, places, prices)

    async def create(self, intent: Intent) -> Machine:
        """Make the machine of `intent`, once, by EC2's client token."""
        request = run_instances(intent, self._settings, await self._stand())
        try:
            made = await self._account.order("run_instances", **request)
        except errors.Refused as error:
            if error.aws_code in (errors.MISMATCH, errors.TERMINATED):
                return await self._earlier(intent, error)
            self._ground = None  # the image or subnet may have been replaced since it was looked up
            raise
        except Quota as error:
            error.name = limit_of(intent.shape.name, intent.shape.spot)
            raise
        return machine(made["Instances"][0])

    async def describe(self, owner: str) -> list[Machine]:
        """Return the machines tagged with `owner`; EC2 shows ended ones for about an hour."""
        return [machine(told) for told in await self._listed({f"tag:{OWNER_TAG}": owner})]

    async def start(self, provider_id: str) -> None:
        """Start a stopped machine. Raises `Capacity` where its zone has none left."""
        try:
            await self._account.order("start_instances", InstanceIds=[provider_id])
        except errors.Refused as error:
            await self._absent_if_ended(provider_id, error)
            raise

    async def stop(self, provider_id: str) -> None:
        """Stop a machine. Raises `BadRequest` for spot ones: EC2 stops no one-time spot request."""
        try:
            await self._account.order("stop_instances", InstanceIds=[provider_id])
        except errors.Refused as error:
            await self._absent_if_ended(provider_id, error)
            raise

    async def terminate(self, provider_id: str) -> None:
        """End a machine and its disk."""
        told = await self._account.order("terminate_instances", InstanceIds=[provider_id])
        if told["TerminatingInstances"][0]["PreviousState"]["Name"] == "terminated":
            raise Absent(f"{provider_id} is terminated")

    async def console(self, provider_id: str) -> str:
        """Return the serial console's end: the newest on Nitro machines, else what EC2 kept at boot."""
        try:
            told = await self._account.ask("ec2", "get_console_output", InstanceId=provider_id, Latest=True)
        except errors.Refused as error:
            if error.aws_code != errors.UNSUPPORTED:
                raise
            told = await self._account.ask("ec2", "get_console_output", InstanceId=provider_id)
        text: str = told.get("Output", "")
        return text.encode()[-CONSOLE_BYTES:].decode(errors="ignore")

    async def _stand(self) -> Ground:
        now = self._clock.monotonic()
        if self._ground is None or now - self._ground[0] > GROUND_S:
            self._ground = now, await survey(self._account, self._settings)
        return self._ground[1]

    async def _listed(self, marks: dict[str, str]) -> list[dict[str, Any]]:
        asked = [{"Name": name, "Values": [value]} for name, value in marks.items()]
        reservations = await self._account.pages("ec2", "describe_instances", "Reservations", 500, Filters=asked)
        return [told for reservation in reservations for told in reservation["Instances"]]

    async def _earlier(self, intent: Intent, error: errors.Refused) -> Machine:
        """Return the machine that an earlier create with this token made.

        The token's request may differ from ours though the intent does not: a newer image of the same name.
        """
        found = await self._listed({f"tag:{OWNER_TAG}": intent.owner, "client-token": intent.token})
        if error.aws_code == errors.TERMINATED:
            return (
                machine(found[0])
                if found
                else Machine(intent=intent.id, provider_id="", state=MachineState.ENDED, message=str(error))
            )
        if not found:
            raise Unknown(f"intent {intent.id} was used before, and EC2 does not list its machine yet") from error
        if tags(found[0]).get(PRINT_TAG) != intent.fingerprint:
            raise BadRequest(f"intent {intent.id} was used before with other parameters") from error
        return machine(found[0])

    async def _absent_if_ended(self, provider_id: str, error: errors.Refused) -> None:
        if error.aws_code != errors.WRONG_STATE:
            return
        told = await self._account.ask("ec2", "describe_instances", InstanceIds=[provider_id])
        seen = [machine(each) for reservation in told["Reservations"] for each in reservation["Instances"]]
        if all(each.state in (MachineState.ENDING, MachineState.ENDED) for each in seen):
            raise Absent(f"{provider_id} is terminated") from error
