"""The `gcp` driver: the port's nine methods over Compute Engine's calls, without any memory of its own."""

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

from atoll.clock import Clock
from atoll.instance import Shape
from providers.errors import Absent, BadRequest, ProviderError, Unknown
from providers.gcp import doctor, offers, rights
from providers.gcp.access import Reply
from providers.gcp.errors import Taken, failed
from providers.gcp.labels import owned
from providers.gcp.limits import limits
from providers.gcp.machines import UNPLACED, Place, fingerprint, is_owned, leaf, machine, place
from providers.gcp.request import instance, request_id
from providers.gcp.settings import Settings
from providers.port import Finding, Intent, Limit, Machine, MachineState
from providers.prices.book import Book

PLACED_S = 20.0
"""How long `create` waits for a place: Google tells a stock-out after it has accepted the call."""
ATTEMPTS = 20
"""How often a repeated create passes over operations that failed before; Google remembers them for an hour."""
_PAUSES = (0.05, 0.2, 0.5, 1.0, 2.0)

Document = dict[str, Any]


class Calls(Protocol):
    """The calls of `providers.gcp.compute.Compute`, each run on a thread: errors are `providers.errors`."""

    async def __call__(self, name: str, *arguments: Any) -> Any:
        """Make the call of this name."""
        ...


class Web(Protocol):
    """Plain HTTP to Google's smaller services, as `providers.gcp.access.ask` does it, on a thread."""

    async def __call__(
        self, url: str, parameters: Mapping[str, str] | None = None, body: Mapping[str, Any] | None = None
    ) -> Reply:
        """Get a document, or post one."""
        ...


class Gcp:
    """One project and region; see `providers.port.Driver` for what each method promises.

    A machine's id is `project/zone/name`.
    """

    def __init__(self, name: str, settings: Settings, call: Calls, web: Web, clock: Clock) -> None:
        self._name = name
        self._settings = settings
        self._call = call
        self._web = web
        self._clock = clock

    async def doctor(self) -> list[Finding]:
        """Check credential and project, zones, image, network, rights and clock."""
        settings, wanted = self._settings, rights.permissions(self._settings)
        findings = [await doctor.found("project", self._call("project"), lambda got: f"{got['name']} can be read")]
        if not findings[0].ok:
            return findings
        try:
            findings.append(doctor.zones(await self._call("region"), settings.zones))
        except ProviderError as error:
            findings.append(Finding(check="zones", ok=False, message=error.message, hint="check the region's name"))
        network = settings.subnetwork or settings.network
        findings.append(await doctor.found("image", self._call("image", settings.image), lambda got: str(got["name"])))
        findings.append(await doctor.found("network", self._call("network", network), lambda got: str(got["name"])))
        try:
            answer = await self._web(rights.url(settings), body={"permissions": list(wanted)})
        except ProviderError as error:
            hint = error.hint or "gcloud services enable cloudresourcemanager.googleapis.com"
            return [*findings, Finding(check="rights", ok=False, message=error.message, hint=hint)]
        return [*findings, doctor.rights(answer, wanted), doctor.clock(answer, self._clock.now())]

    async def quota(self) -> list[Limit]:
        """Return the region's and the project's quotas of cores, devices, instances and addresses."""
        region, project = await asyncio.gather(self._call("region"), self._call("project"))
        return limits(region.get("quotas", []), project.get("quotas", []), public_ip=self._settings.public_ip)

    async def shapes(self, prices: Book) -> list[Shape]:
        """Return the machine types of each zone, N1 also with accelerators attached, on demand and spot."""
        found = await listed(self._call, self._settings)
        return offers.shapes(self._name, found, self._settings.disk, prices, spot=self._settings.spot)

    async def create(self, intent: Intent) -> Machine:
        """Make the machine of `intent`, once: its name is the guard, the request id keeps a repeat from acting.

        A stock-out told within `PLACED_S` is raised; one told later shows as the machine's absence, and a
        repeated create then tries again under the same name.
        """
        body, zone = instance(intent, self._settings), intent.shape.zone
        for attempt in range(ATTEMPTS):
            try:
                operation = await self._call("insert", zone, body, request_id(intent, attempt))
            except Taken:
                return await self._holder(intent)
            if operation.get("status") != "DONE" or not failed(operation):
                return await self._made(intent, operation)
        raise failed(operation) or Unknown("the machine could not be made")

    async def describe(self, owner: str) -> list[Machine]:
        """Return the owner's machines in all zones, also such as are no longer in the settings."""
        seen = await self._call("instances", owned(owner))
        return [machine(each, self._settings.project) for each in seen if is_owned(each, owner)]

    async def start(self, provider_id: str) -> None:
        """Start a stopped machine; its boot script runs again."""
        await self._call("start", place(provider_id))

    async def stop(self, provider_id: str) -> None:
        """Stop a machine."""
        await self._call("stop", place(provider_id))

    async def terminate(self, provider_id: str) -> None:
        """Delete a machine and its disk."""
        await self._call("delete", place(provider_id))

    async def console(self, provider_id: str) -> str:
        """Return the end of the serial console."""
        said: str = await self._call("console", place(provider_id))
        return said[-64 * 1024 :]

    async def _made(self, intent: Intent, operation: Document) -> Machine:
        """Follow an accepted insert until there is a place for the machine, or surely none."""
        give_up, pauses = self._clock.monotonic() + PLACED_S, iter(_PAUSES)
        try:
            while operation.get("status") != "DONE":
                seen = await self._read("instance", self._place(intent))
                if seen and seen.get("status", "") not in UNPLACED:
                    return self._checked(intent, seen)
                if self._clock.monotonic() >= give_up:
                    return self._as(intent, MachineState.PENDING, "accepted; it has no place yet")
                await asyncio.sleep(next(pauses, _PAUSES[-1]))
                operation = await self._read("operation", intent.shape.zone, operation["name"]) or {}
            seen = None if failed(operation) else await self._read("instance", self._place(intent))
        except Unknown:
            return self._as(intent, MachineState.PENDING, "accepted; how it went cannot be read")
        if seen:
            return self._checked(intent, seen)
        error = failed(operation)
        if isinstance(error, Taken):
            return await self._holder(intent)
        if error:
            raise error
        return self._as(intent, MachineState.ENDED, "it was made, and is gone")

    async def _holder(self, intent: Intent) -> Machine:
        """Return the machine that has the intent's name, if it is this intent's."""
        if seen := await self._read("instance", self._place(intent)):
            return self._checked(intent, seen)
        raise Unknown(f"the name {intent.name} was in use a moment ago")

    async def _read(self, name: str, *arguments: Any) -> Document | None:
        """Read while a create is under way: None for what is not there, `Unknown` for every other error.

        Any other error class would say that nothing was made, which is not known here.
        """
        try:
            found: Document = await self._call(name, *arguments)
        except Absent:
            return None
        except ProviderError as error:
            raise Unknown(error.message) from None
        return found

    def _place(self, intent: Intent) -> Place:
        return Place(self._settings.project, intent.shape.zone, intent.name)

    def _checked(self, intent: Intent, seen: Mapping[str, Any]) -> Machine:
        if fingerprint(seen) != intent.fingerprint:
            raise BadRequest(f"there is another machine of the name {intent.name}, made with other parameters")
        return machine(seen, self._settings.project)

    def _as(self, intent: Intent, state: MachineState, message: str) -> Machine:
        shape = intent.shape
        return Machine(
            intent=intent.id,
            provider_id=self._place(intent).id,
            state=state,
            shape=shape.name,
            zone=shape.zone,
            spot=shape.spot,
            message=message,
        )


async def listed(call: Calls, settings: Settings) -> list[offers.Offer]:
    """Return what each zone of the settings sells, of the names allowed."""
    zones = settings.zones or tuple(sorted(leaf(url) for url in (await call("region")).get("zones", [])))
    kinds = await asyncio.gather(*(call("machine_types", zone) for zone in zones))
    cards = await asyncio.gather(*(call("accelerator_types", zone) for zone in zones))
    return [
        offer
        for zone, types, accelerators in zip(zones, kinds, cards, strict=True)
        for offer in offers.offers(
            zone, types, accelerators, architecture=settings.architecture, patterns=settings.shapes
        )
    ]
