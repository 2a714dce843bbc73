"""The `openstack` driver: Nova servers as machines."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from atoll.clock import Clock
from atoll.instance import Shape
from atoll.slots import MIB
from providers.errors import Absent, BadRequest, Unknown
from providers.openstack import doctor, errors
from providers.openstack.account import Account
from providers.openstack.ground import flavors, survey, zones
from providers.openstack.machines import elect, machine, owned, state_of
from providers.openstack.request import TAGS_AT_CREATE, Ground, create_server, owner_tag
from providers.openstack.settings import Settings
from providers.openstack.shapes import offers
from providers.openstack.turn import turn
from providers.port import PRINT_TAG, Finding, Intent, Limit, Machine, MachineState
from providers.prices.book import Book
from providers.reserve import usable

CONSOLE_BYTES = 64 * 1024
CONSOLE_LINES = 2000
GROUND_S = 3600.0
"""How long ids of image, networks and flavors are remembered before the cloud is asked again."""
SETTLE_S = 45.0
"""How long a create waits for nova to find a host; what comes later is seen by `describe`."""
POLL_S = 0.25
_LIMITS = {
    "instances": ("maxTotalInstances", "totalInstancesUsed", "instances"),
    "cores": ("maxTotalCores", "totalCoresUsed", "cpu"),
    "ram": ("maxTotalRAMSize", "totalRAMUsed", "memory"),
}


class OpenStack:
    """One project of one OpenStack; see `providers.port.Driver` for what each method promises.

    Nova knows no idempotency: a server is looked for by its name before it is made, one at a time on this
    machine, and of several that were made all the same all lookers keep the same one and delete the others.
    """

    def __init__(self, name: str, settings: Settings, account: Account, clock: Clock, directory: Path) -> None:
        self._name = name
        self._settings = settings
        self._account = account
        self._clock = clock
        self._directory = directory
        self._ground: tuple[float, Ground] | None = None

    async def doctor(self) -> list[Finding]:
        """Check credential, clock, compute's version, zones, image, network and flavors; makes nothing."""
        return await doctor.examine(self._account, self._settings, self._clock)

    async def quota(self) -> list[Limit]:
        """Return the project's limits on servers, cores and memory; unlimited ones are left out.

        Nova counts a flavor's whole memory: its figures are told in what shapes promise of it.
        """
        told = (await self._account.get("compute", "/limits"))["limits"]["absolute"]
        return [
            _limit(name, told[limit], told[used], counts)
            for name, (limit, used, counts) in _LIMITS.items()
            if told.get(limit, -1) >= 0
        ]

    async def shapes(self, prices: Book) -> list[Shape]:
        """Return the flavors in each zone, at the operator's prices (`atoll:price`) where the book has none."""
        found = await flavors(self._account)
        return offers(self._name, self._settings, found, await zones(self._account, self._settings), prices)

    async def create(self, intent: Intent) -> Machine:
        """Make the server of `intent`, once, and wait until nova has a host for it or none."""
        body = create_server(intent, self._settings, await self._stand())
        async with turn(self._directory / f"{intent.name}.lock", self._clock, 2 * SETTLE_S):
            made = ""
            if not await self._servers(intent):
                made = (await self._account.post("compute", "/servers", body))["server"]["id"]
            return await self._settle(intent, made)

    async def describe(self, owner: str) -> list[Machine]:
        """Return every server of `owner`; nova shows deleted ones no more."""
        query = {"tags": owner_tag(owner)} if await self._tagged() else {}
        listed = await self._account.pages("compute", "/servers/detail", "servers", **query)
        return [machine(server) for server in listed if owned(server, owner)]

    async def start(self, provider_id: str) -> None:
        """Start a stopped server; well if it runs."""
        await self._order(provider_id, "os-start", {MachineState.RUNNING, MachineState.PENDING})

    async def stop(self, provider_id: str) -> None:
        """Stop a server, keeping its disk; well if it is stopped."""
        await self._order(provider_id, "os-stop", {MachineState.STOPPED, MachineState.STOPPING})

    async def terminate(self, provider_id: str) -> None:
        """Delete a server, with the volume it boots from."""
        await self._account.delete("compute", _path(provider_id))

    async def console(self, provider_id: str) -> str:
        """Return the end of the console's log."""
        body = {"os-getConsoleOutput": {"length": CONSOLE_LINES}}
        try:
            told = await self._account.post("compute", f"{_path(provider_id)}/action", body)
        except BadRequest:
            return ""  # 409: there is no host for it yet
        return str(told.get("output") or "")[-CONSOLE_BYTES:]

    async def _settle(self, intent: Intent, made: str) -> Machine:
        """Wait until one server of the intent is left and has a host; delete the others."""
        deadline = self._clock.monotonic() + SETTLE_S
        while True:
            found = elect(await self._servers(intent, made))
            late = self._clock.monotonic() > deadline
            if found.undecided and not late:
                await asyncio.sleep(POLL_S)
                continue
            for loser in found.losers:
                await self._discard(loser["id"])
            if found.kept is None:
                break
            if not found.losers or late:
                return _same(intent, found.kept)
        if not found.failed:
            raise Unknown(f"{intent.name} was there and is gone: somebody deletes it")
        raise errors.fault((found.failed[0].get("fault") or {}).get("message", ""))

    async def _servers(self, intent: Intent, made: str = "") -> list[dict[str, Any]]:
        """Return the servers of an intent; `made` also where the listing does not show it yet."""
        query = {"name": f"^{intent.name}$"}
        listed = await self._account.pages("compute", "/servers/detail", "servers", **query)
        if made and made not in {server["id"] for server in listed}:
            with suppress(Absent):
                listed.append((await self._account.get("compute", _path(made)))["server"])
        return [server for server in listed if owned(server, intent.owner, intent.id)]

    async def _discard(self, server: str) -> None:
        with suppress(Absent):
            await self._account.delete("compute", _path(server))

    async def _order(self, provider_id: str, action: str, wanted: set[MachineState]) -> None:
        try:
            await self._account.post("compute", f"{_path(provider_id)}/action", {action: None})
        except BadRequest:
            if state_of((await self._account.get("compute", _path(provider_id)))["server"]) not in wanted:
                raise

    async def _tagged(self) -> bool:
        return int((await self._account.version()).partition(".")[2]) >= TAGS_AT_CREATE

    async def _stand(self) -> Ground:
        now = self._clock.monotonic()
        if self._ground is None or now - self._ground[0] > GROUND_S:
            self._ground = (now, await survey(self._account, self._settings))
        return self._ground[1]


def _limit(name: str, limit: int, used: int, counts: str) -> Limit:
    if counts == "memory":
        limit, used = (usable(figure * MIB) // MIB for figure in (limit, used))
    return Limit(name=name, limit=limit, counts=counts, used=used)


def _same(intent: Intent, server: Mapping[str, Any]) -> Machine:
    if server.get("metadata", {}).get(PRINT_TAG) != intent.fingerprint:
        raise BadRequest(f"intent {intent.id} was used before with other parameters")
    return machine(server)


def _path(provider_id: str) -> str:
    return f"/servers/{quote(provider_id, safe='')}"
