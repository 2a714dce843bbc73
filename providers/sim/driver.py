"""The `sim` driver: a cloud's manners (idempotency, ownership, faults) over any inventory and machine hall."""

import asyncio
import hashlib
import json
from dataclasses import replace

from atoll.clock import Clock
from atoll.instance import Shape
from atoll.slots import Slots
from providers.errors import Absent, BadRequest, Capacity, ProviderError, Quota, Throttled, Unknown
from providers.port import Finding, Intent, Limit, Machine, MachineState
from providers.prices.book import Book
from providers.sim.catalogue import CATALOGUE, offered
from providers.sim.cloud import Boot, Cloud, Inventory, Machines, Record
from providers.sim.faults import Fault, FaultKind
from providers.sim.settings import Settings

USER_DATA_LIMIT = 16 * 1024
"""Bytes of user data that are taken, as at the large clouds."""
SHOWN_S = 3600.0
"""Ended machines stay in listings for this long."""
LAUNCH_S = 15.0
"""A machine that was switched on and shows no sign for this long never will."""

_M = MachineState
_OVER = frozenset({_M.ENDED})


class Sim:
    """One pretend cloud account; see `providers.port.Driver` for what each method promises.

    Several drivers, in several processes, may stand on one inventory.
    """

    def __init__(self, name: str, settings: Settings, inventory: Inventory, machines: Machines, clock: Clock) -> None:
        self._settings = settings
        self._inventory = inventory
        self._machines = machines
        self._clock = clock
        self._shapes = offered(list(settings.products), settings.zones, name, settings.boot_s + 1.0)

    async def doctor(self) -> list[Finding]:
        """Check that the inventory can be written, and say which faults are set."""
        with self._inventory.change() as cloud:
            self._refresh(cloud)
            live = sum(record.state is not _M.ENDED for record in cloud.machines.values())
        faults = ", ".join(sorted({fault.kind.value for fault in self._faults()})) or "none"
        return [
            Finding(check="inventory", ok=True, message=f"can be written; {live} machines are live"),
            Finding(check="catalogue", ok=True, message=f"{len(self._shapes)} offers of {CATALOGUE}"),
            Finding(check="faults", ok=True, message=f"faults set: {faults}"),
        ]

    async def quota(self) -> list[Limit]:
        """Return the limits of the settings, with what is used of them."""
        await self._arrive("quota")
        with self._inventory.change() as cloud:
            self._refresh(cloud)
            used = self._used(cloud)
        return [
            Limit(name=name, limit=limit, counts=name, used=used[name]) for name, limit in self._settings.limits.items()
        ]

    async def shapes(self, prices: Book) -> list[Shape]:
        """Return what the settings offer, at their own prices where the book has none."""
        return [
            replace(
                shape,
                price=prices.price(shape.name, shape.zone, shape.spot, told=shape.price),
                catalogue=prices.label or shape.catalogue,
            )
            for shape in self._shapes
        ]

    async def create(self, intent: Intent) -> Machine:
        """Make the machine of `intent`, once; errors as the faults say."""
        await self._arrive("create", intent.shape)
        lost = self._strike(FaultKind.LOST_REPLY, intent.shape)
        if lost and not lost.after_effect:
            raise Unknown("the pretend cloud did not answer the create call")
        record = self._accept(intent)
        with self._inventory.change() as cloud:
            record = self._switch_on(cloud, cloud.machines[record.provider_id])
        if lost:
            raise Unknown("the pretend cloud did not answer the create call")
        await self._travel()
        return record.shown()

    async def describe(self, owner: str) -> list[Machine]:
        """Return the machines of `owner`, in order of creation; late where `list_lag` strikes."""
        await self._arrive("describe")
        now = self._clock.now()
        with self._inventory.change() as cloud:
            self._refresh(cloud)
            late = cloud.strike(self._faults(), FaultKind.LIST_LAG, now, call="describe")
            mine = [record for record in cloud.machines.values() if record.owner == owner]
        horizon = now - late.lag_s if late else now
        shown = [
            record.shown(record.before if record.changed_at > horizon else None)
            for record in mine
            if record.created_at <= horizon and not (record.state in _OVER and record.changed_at < now - SHOWN_S)
        ]
        await self._travel()
        return shown

    async def start(self, provider_id: str) -> None:
        """Boot a stopped machine again, from its own disk."""
        await self._arrive("start")
        with self._inventory.change() as cloud:
            record = self._live(cloud, provider_id)
            if record.state is _M.STOPPED:
                fresh = record.entered(_M.PENDING, self._clock.now(), "starting")
                cloud.put(replace(fresh, launched_at=None))
                self._switch_on(cloud, cloud.machines[provider_id])
            elif record.state in (_M.STOPPING, _M.ENDING):
                raise BadRequest(f"{provider_id} is {record.state}: it can be started once it is stopped")
        await self._travel()

    async def stop(self, provider_id: str) -> None:
        """End what runs on a machine and keep its disk."""
        await self._arrive("stop")
        with self._inventory.change() as cloud:
            record = self._live(cloud, provider_id)
            if record.state in (_M.PENDING, _M.RUNNING):
                self._machines.stop(provider_id)
                cloud.put(record.entered(_M.STOPPING, self._clock.now(), "stopping"))
        await self._travel()

    async def terminate(self, provider_id: str) -> None:
        """End a machine for good. A `terminate` fault refuses, or accepts and does nothing."""
        await self._arrive("terminate")
        with self._inventory.change() as cloud:
            record = self._live(cloud, provider_id)
            shape = next(
                (s for s in self._shapes if (s.name, s.zone, s.spot) == (record.shape, record.zone, record.spot)), None
            )
            fault = cloud.strike(self._faults(), FaultKind.TERMINATE, self._clock.now(), shape=shape, call="terminate")
            if fault and not fault.silent:
                raise ProviderError(f"the pretend cloud failed to terminate {provider_id}")
            if fault is None and record.state is not _M.ENDING:
                self._machines.terminate(provider_id)
                cloud.put(record.entered(_M.ENDING, self._clock.now(), "terminating"))
        await self._travel()

    async def console(self, provider_id: str) -> str:
        """Return the end of what a machine printed."""
        await self._arrive("console")
        with self._inventory.change() as cloud:
            if provider_id not in cloud.machines:
                raise Absent(f"there is no machine {provider_id!r}")
        return self._machines.console(provider_id)

    def reclaim(self, provider_id: str, notice_s: float) -> None:
        """Act as the cloud's operator: take a machine back in `notice_s` seconds. Raises `Absent`."""
        with self._inventory.change() as cloud:
            self._live(cloud, provider_id)
            self._machines.reclaim(provider_id, notice_s)
            cloud.struck[FaultKind.RECLAIM.value] = cloud.struck.get(FaultKind.RECLAIM.value, 0) + 1

    def survey(self) -> dict[str, Record]:
        """Return every record, of every owner, as true as looking can make it: the cloud's own view."""
        with self._inventory.change() as cloud:
            self._refresh(cloud)
            return dict(cloud.machines)

    def _faults(self) -> tuple[Fault, ...]:
        set_later = self._inventory.faults()
        return self._settings.faults if set_later is None else set_later

    def _strike(self, kind: FaultKind, shape: Shape | None = None, call: str = "") -> Fault | None:
        faults = self._faults()
        if not any(fault.kind is kind for fault in faults):
            return None
        with self._inventory.change() as cloud:
            return cloud.strike(faults, kind, self._clock.now(), shape=shape, call=call)

    async def _travel(self) -> None:
        await asyncio.sleep(self._settings.latency_s)

    async def _arrive(self, call: str, shape: Shape | None = None) -> None:
        await self._travel()
        if fault := self._strike(FaultKind.THROTTLE, shape, call):
            raise Throttled("the pretend cloud takes no more calls for now", retry_after=fault.retry_after)

    def _accept(self, intent: Intent) -> Record:
        """Write the machine down, or find it; raise when surely nothing was made."""
        self._check(intent)
        now, faults, key = self._clock.now(), self._faults(), _provider_id(intent)
        with self._inventory.change() as cloud:
            self._refresh(cloud)
            if known := cloud.machines.get(key):
                if known.fingerprint != _fingerprint(intent):
                    raise BadRequest(f"intent {intent.id} was used before with other parameters")
                return known
            if cloud.strike(faults, FaultKind.NO_CAPACITY, now, shape=intent.shape, call="create"):
                raise Capacity(f"no capacity for {intent.shape.key}", hint="another shape or zone may have some")
            if cloud.strike(faults, FaultKind.QUOTA, now, shape=intent.shape, call="create"):
                raise Quota(
                    f"this account may have no more of {intent.shape.name}", name=f"machines of {intent.shape.name}"
                )
            self._allow(cloud, intent.shape)
            self._machines.prepare(self._boot(cloud, key, intent))
            record = Record(
                provider_id=key,
                intent=intent.id,
                owner=intent.owner,
                shape=intent.shape.name,
                zone=intent.shape.zone,
                spot=intent.shape.spot,
                fingerprint=_fingerprint(intent),
                tags=dict(intent.tags),
                created_at=now,
                changed_at=now,
            )
            cloud.creates += 1
            cloud.put(record)
            return record

    def _used(self, cloud: Cloud) -> dict[str, int]:
        slots = {(s.name, s.zone, s.spot): s.slots for s in self._shapes}
        there = [record for record in cloud.machines.values() if record.state is not _M.ENDED]
        sizes = [_size(slots[(r.shape, r.zone, r.spot)]) for r in there if (r.shape, r.zone, r.spot) in slots]
        return {name: sum(size[name] for size in sizes) for name in ("cpu", "gpu", "instances")}

    def _allow(self, cloud: Cloud, shape: Shape) -> None:
        """Raise `Quota` for what would be more than the settings' limits."""
        used, wanted = self._used(cloud), _size(shape.slots)
        for name, limit in self._settings.limits.items():
            if wanted[name] and used[name] + wanted[name] > limit:
                cloud.struck["over limit"] = cloud.struck.get("over limit", 0) + 1
                raise Quota(f"{used[name]} of {limit} {name} are used, {wanted[name]} more are too many", name=name)

    def _check(self, intent: Intent) -> None:
        if intent.shape.key not in {shape.key for shape in self._shapes}:
            raise BadRequest(f"there is no offer {intent.shape.key}")
        if len(intent.user_data.encode()) > USER_DATA_LIMIT:
            raise BadRequest(f"user data is longer than {USER_DATA_LIMIT} bytes")

    def _boot(self, cloud: Cloud, provider_id: str, intent: Intent) -> Boot:
        now, faults, shape = self._clock.now(), self._faults(), intent.shape
        slow = cloud.strike(faults, FaultKind.SLOW_BOOT, now, shape=shape, call="create")
        never = cloud.strike(faults, FaultKind.NEVER_JOINS, now, shape=shape, call="create")
        taken = cloud.strike(faults, FaultKind.RECLAIM, now, shape=shape, call="create") if shape.spot else None
        return Boot(
            provider_id=provider_id,
            user_data=intent.user_data,
            slots=next(s for s in self._shapes if s.key == shape.key).slots,
            boot_s=self._settings.boot_s + (slow.extra_s if slow else 0.0),
            joins=never is None,
            reclaim_after_s=taken.after_s if taken else None,
            notice_s=taken.notice_s if taken else 0.0,
            max_life_s=intent.max_life_s,
        )

    def _switch_on(self, cloud: Cloud, record: Record) -> Record:
        """Switch a machine on that is written down as pending: also one whose creator died before it could."""
        if record.launched_at is None and record.state is _M.PENDING:
            self._machines.switch_on(record.provider_id)
            record = replace(record, launched_at=self._clock.now())
            cloud.put(record)
        return record

    def _live(self, cloud: Cloud, provider_id: str) -> Record:
        self._refresh(cloud)
        record = cloud.machines.get(provider_id)
        if record is None or record.state is _M.ENDED:
            raise Absent(f"there is no machine {provider_id!r} any more")
        return record

    def _refresh(self, cloud: Cloud) -> None:
        """Bring every record in line with what is seen of its machine."""
        now = self._clock.now()
        for record in list(cloud.machines.values()):
            if record.state in _OVER:
                continue
            record = self._switch_on(cloud, record)
            state, message = self._seen(record, now)
            cloud.put(record.entered(state, now, message))
            if state is _M.ENDED:
                self._machines.discard(record.provider_id)

    def _seen(self, record: Record, now: float) -> tuple[MachineState, str]:
        seen = self._machines.look(record.provider_id)
        if seen is None:
            if now - (record.launched_at or now) < LAUNCH_S:
                return record.state, record.message
            return _M.ENDED, "its process never came up"
        state, message = seen
        if state in (_M.PENDING, _M.RUNNING, _M.STOPPING) and record.state in (_M.ENDING, _M.STOPPING):
            return record.state, record.message  # the order has not been carried out yet
        if state is _M.STOPPED and record.state is _M.ENDING:
            return _M.ENDED, message
        return state, message


def _size(slots: Slots) -> dict[str, int]:
    return {"cpu": -(-slots.cpu // 1000), "gpu": -(-slots.gpu_milli // 1000), "instances": 1}


def _provider_id(intent: Intent) -> str:
    return "m-" + hashlib.sha256(f"{intent.owner}/{intent.id}".encode()).hexdigest()[:12]


def _fingerprint(intent: Intent) -> str:
    said = [intent.shape.key, hashlib.sha256(intent.user_data.encode()).hexdigest(), sorted(intent.tags.items())]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()
