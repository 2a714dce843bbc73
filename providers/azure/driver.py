"""The Azure driver: makes, finds and removes machines with all their parts, by names that follow from the intent."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from atoll.clock import Clock
from atoll.instance import Shape
from providers.azure import limits, machines, request, shapes
from providers.azure.account import Account
from providers.azure.doctor import examined
from providers.azure.errors import classified, readable
from providers.azure.operations import Operation, Operations
from providers.azure.request import Body
from providers.azure.settings import Settings
from providers.blocking import Threads
from providers.errors import Absent, BadRequest, ProviderError, Throttled, Unknown
from providers.port import PRINT_TAG, Finding, Intent, Limit, Machine
from providers.prices.book import Book

P = ParamSpec("P")
R = TypeVar("R")

CONSOLE_CHARS = 64 * 1024
REMOVE_S = 25.0
"""Seconds a failed create waits for what it left behind to be deleted."""

_PARTS: dict[str, Callable[[str], str]] = {"card": request.card, "address": request.address, "disk": request.disk}
"""Kinds of parts in the order they can be deleted in, with the name of each of a machine."""


class Azure:
    """One resource group in one region; see `providers.port.Driver` for what each method promises.

    A machine's id here is its name. What Azure accepted but has not finished is noted in `operations`.
    """

    def __init__(
        self, name: str, settings: Settings, account: Account, operations: Operations, threads: Threads, clock: Clock
    ) -> None:
        self._name = name
        self._settings = settings
        self._account = account
        self._operations = operations
        self._threads = threads
        self._clock = clock

    async def doctor(self) -> list[Finding]:
        """Check credential, group, network, image, rights and clock by reading only."""
        return await self._run(examined, self._account, self._settings, self._clock.now)

    async def quota(self) -> list[Limit]:
        """Return the region's limits on cores and machines."""
        usages, skus = await asyncio.gather(self._run(self._account.usages), self._run(self._account.skus))
        return limits.told(usages, skus, self._settings)

    async def shapes(self, prices: Book) -> list[Shape]:
        """Return the VM sizes this subscription may use, in each zone, on demand and spot."""
        return shapes.offered(await self._run(self._account.skus), self._settings, self._name, prices)

    async def create(self, intent: Intent) -> Machine:
        """Make the machine of `intent` with its card and address, once; pending where it takes Azure long."""
        request.checked(intent)
        name = intent.name
        if vm := await self._run(self._account.machine, name):
            return await self._known(intent, vm)
        noted = self._operations.read(name)
        if noted and noted.code:
            return await self._failed(name, noted)
        if token := await self._ask(intent):
            return await self._followed(name, token)
        vm = await self._run(self._account.machine, name)  # another of us was faster
        if vm is None:
            raise Unknown(f"{name} was there and is gone")
        return await self._known(intent, vm)

    async def describe(self, owner: str) -> list[Machine]:
        """Return the owner's machines, and as stopped ones the parts that lost theirs: so nothing is left lying."""
        vms, cards, addresses, disks = await asyncio.gather(
            self._run(self._account.machines), *(self._run(self._account.parts, kind) for kind in _PARTS)
        )
        mine = [vm for vm in vms if machines.owned(vm, owner)]
        views = await asyncio.gather(*(self._view(vm) for vm in mine))
        shown = [machines.shown(vm, view) for vm, view in zip(mine, views, strict=True) if view is not None]
        names = {str(vm["name"]) for vm in vms}
        return shown + machines.left_behind(owner, self._clock.now(), names, cards, addresses, disks)

    async def start(self, provider_id: str) -> None:
        """Start a deallocated machine."""
        await self._ours(provider_id)
        await self._run(self._account.start, provider_id)

    async def stop(self, provider_id: str) -> None:
        """Deallocate a machine: a merely stopped one is billed on."""
        await self._ours(provider_id)
        await self._run(self._account.deallocate, provider_id)

    async def terminate(self, provider_id: str) -> None:
        """Delete a machine; then what is left of it, by name. Raises `Absent` once nothing is."""
        vm = await self._run(self._account.machine, provider_id)
        if vm and machines.owned(vm):
            if machines.provisioning(vm) != "Deleting":
                await self._run(self._account.unmake, provider_id)
            return
        self._operations.forget(provider_id)
        left = await self._left(provider_id)
        if vm or not left:
            raise Absent(f"there is no machine {provider_id!r} of ours")
        for kind in left:
            await self._run(self._account.remove, kind, _PARTS[kind](provider_id))

    async def console(self, provider_id: str) -> str:
        """Return the end of a machine's serial log, which Azure keeps for it."""
        return (await self._run(self._account.console, provider_id))[-CONSOLE_CHARS:]

    # -- create, step by step -------------------------------------------------------------------------

    async def _ask(self, intent: Intent) -> str:
        """Make the parts and ask for the machine; return the operation's token, "" where the name is taken."""
        name = intent.name
        labels = request.tags(intent, self._settings, self._clock.now())
        try:
            card_id = await self._parts(name, labels)
            body = request.machine(intent, self._settings, labels, card_id)
            token = await self._run(self._account.make, name, body)
        except (Unknown, Throttled):
            raise  # asked again soon, with these parts; the sweep finds them where it is not
        except Absent as error:
            raise Unknown(f"a part of {name} was removed meanwhile: {error.message}") from error
        except ProviderError:
            await self._tidy(name)
            raise
        if token:
            self._operations.write(name, Operation(token=token))
        return token

    async def _parts(self, name: str, labels: dict[str, str]) -> str:
        """Make a machine's address, where it has one, and its card; return the card's id."""
        address_id = ""
        if self._settings.public_ip:
            body = request.public_address(self._settings, labels)
            address_id = await self._run(self._account.put_address, request.address(name), body)
        body = request.network_card(self._settings, labels, address_id)
        return await self._run(self._account.put_card, request.card(name), body)

    async def _known(self, intent: Intent, vm: Body) -> Machine:
        """Go on with a machine that exists: created before, by us or by another process."""
        name = intent.name
        if (vm.get("tags") or {}).get(PRINT_TAG) != intent.fingerprint:
            raise BadRequest(f"intent {intent.id} was used before with other parameters")
        if machines.provisioning(vm) == "Deleting":
            raise Unknown(f"{name} is being deleted")
        noted = self._operations.read(name)
        if noted and noted.code:
            return await self._failed(name, noted)
        if noted:
            return await self._followed(name, noted.token)
        return await self._judged(name, vm)

    async def _followed(self, name: str, token: str) -> Machine:
        """See a create operation through, for as long as a call may take."""
        try:
            outcome = await self._run(self._account.follow, name, token, self._settings.create_wait)
        except Absent:  # Azure forgets operations; the machine itself still tells
            self._operations.forget(name)
            vm = await self._run(self._account.machine, name)
            if vm is None:
                raise Unknown(f"neither {name} nor its operation is there any more") from None
            return await self._judged(name, vm)
        except (Unknown, Throttled):
            raise
        except ProviderError as error:
            raise Unknown(f"{name} was accepted, and how it ended cannot be seen: {error.message}") from error
        if outcome.code:
            noted = Operation(token=token, code=outcome.code, message=readable(outcome.message))
            self._operations.write(name, noted)  # before the leftovers go: a crash must not lose the reason
            return await self._failed(name, noted)
        if outcome.done:
            self._operations.forget(name)
        return machines.shown(outcome.machine or {}, {})

    async def _judged(self, name: str, vm: Body) -> Machine:
        """Return a machine as it stands; one that failed without ever running is removed, and its reason raised."""
        view = await self._view(vm)
        if machines.provisioning(vm) == "Failed" and not machines.power(view or {}):
            reason = machines.failure(view or {}) or Unknown(f"{name} was not made, and Azure does not say why")
            await self._clear(name)
            raise reason
        return machines.shown(vm, view or {})

    async def _failed(self, name: str, noted: Operation) -> Machine:
        """Remove what a failed create left, then say why it failed."""
        await self._clear(name)
        self._operations.forget(name)
        raise classified(noted.code, noted.message)

    async def _clear(self, name: str) -> None:
        """Delete a failed machine and all its parts; raise `Unknown` unless surely no machine is left."""
        try:
            vm = await self._run(self._account.machine, name)
            if vm and not await self._run(self._account.unmake, name, REMOVE_S):
                raise Unknown(f"{name} failed and is still being deleted")
        except ProviderError as error:
            raise Unknown(f"{name} failed and cannot be removed yet: {error.message}") from error
        await self._tidy(name)

    async def _tidy(self, name: str) -> None:
        """Delete the parts of a machine that was not made; raise `Unknown` where it was, or a part stays.

        What Azure holds for some minutes more stays without that: `describe` finds it by its tag, and the sweep
        removes it.
        """
        try:
            if await self._run(self._account.machine, name):
                raise Unknown(f"{name} was made by another process")
            for kind, named in _PARTS.items():
                await self._run(self._account.remove, kind, named(name))
        except ProviderError as error:
            raise Unknown(f"{name} was not made; its parts cannot be removed yet: {error.message}") from error

    # -- looking --------------------------------------------------------------------------------------

    async def _view(self, vm: Body) -> Body | None:
        """Return a machine's instance view, empty where its state says all; None where it has just gone."""
        if machines.provisioning(vm) in ("Creating", "Deleting"):
            return {}
        return await self._run(self._account.view, str(vm["name"]))

    async def _ours(self, name: str) -> Body:
        vm = await self._run(self._account.machine, name)
        if vm is None or not machines.owned(vm) or machines.provisioning(vm) == "Deleting":
            raise Absent(f"there is no machine {name!r} of ours")
        return vm

    async def _left(self, name: str) -> list[str]:
        """Return the kinds of our parts that are there under a machine's name."""
        parts = await asyncio.gather(*(self._run(self._account.part, kind, of(name)) for kind, of in _PARTS.items()))
        return [kind for kind, part in zip(_PARTS, parts, strict=True) if part and machines.owned(part)]

    async def _run(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        return await self._threads.run(call, *args, **kwargs)
