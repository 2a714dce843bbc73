"""What the pretend cloud knows: its machines' records and how often each fault struck; and the ports it stands on."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Protocol

from atoll.instance import Shape
from atoll.slots import Slots
from providers.port import Machine, MachineState
from providers.sim.faults import Fault, FaultKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One machine as the cloud remembers it. `fingerprint` is of everything its create call said.

    `launched_at` is when it was last switched on (None: not yet), `changed_at` when `state` was entered.
    """

    provider_id: str
    intent: str
    owner: str
    shape: str
    zone: str
    spot: bool
    fingerprint: str
    tags: dict[str, str] = field(default_factory=dict)
    state: MachineState = MachineState.PENDING
    before: MachineState = MachineState.PENDING
    message: str = ""
    created_at: float = 0.0
    launched_at: float | None = None
    changed_at: float = 0.0

    def entered(self, state: MachineState, now: float, message: str = "") -> "Record":
        """Return the record in `state`; unchanged when it is there already."""
        if state is self.state:
            return self
        return replace(self, state=state, before=self.state, message=message or self.message, changed_at=now)

    def shown(self, state: MachineState | None = None) -> Machine:
        """Return it as the port shows machines, in `state` when given."""
        return Machine(
            intent=self.intent,
            provider_id=self.provider_id,
            state=state or self.state,
            shape=self.shape,
            zone=self.zone,
            spot=self.spot,
            created_at=self.created_at,
            message=self.message,
        )


@dataclass(slots=True, kw_only=True)
class Cloud:
    """The whole inventory. `used` counts strikes by fault id, `struck` by kind, `creates` machines ever made."""

    began_at: float = 0.0
    machines: dict[str, Record] = field(default_factory=dict)
    used: dict[str, int] = field(default_factory=dict)
    struck: dict[str, int] = field(default_factory=dict)
    creates: int = 0

    def put(self, record: Record) -> None:
        """Add or replace a machine's record."""
        self.machines[record.provider_id] = record

    def strike(
        self, faults: Sequence[Fault], kind: FaultKind, now: float, *, shape: Shape | None = None, call: str = ""
    ) -> Fault | None:
        """Return the first fault of `kind` that strikes now, counted; None when all goes well."""
        if not self.began_at:
            self.began_at = now
        key = (shape.name, shape.zone, shape.spot) if shape else None
        for fault in faults:
            used = self.used.get(fault.id, 0)
            if fault.kind is kind and fault.matches(key, call) and not fault.over(used, now, self.began_at):
                self.used[fault.id] = used + 1
                self.struck[kind.value] = self.struck.get(kind.value, 0) + 1
                return fault
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """Everything a machine needs to know to boot, now and after each stop.

    It is `boot_s` seconds away from running `user_data`, which is run at each boot; `joins` False means
    never. `reclaim_after_s` seconds later (None: never) the cloud takes it back, `notice_s` after saying so.
    It ends itself `max_life_s` after its first boot (0: no such cap).
    """

    provider_id: str
    user_data: str
    slots: Slots
    boot_s: float
    joins: bool = True
    reclaim_after_s: float | None = None
    notice_s: float = 0.0
    max_life_s: float = 0.0


class Inventory(Protocol):
    """Where a cloud keeps its memory; it outlives every driver."""

    def change(self) -> AbstractContextManager[Cloud]:
        """Give the cloud to one caller at a time; what it changed is kept, also when its block raises."""
        ...

    def faults(self) -> tuple[Fault, ...] | None:
        """Return the faults set at run time; None when none were ever set, and the settings' hold."""
        ...


class Machines(Protocol):
    """The cloud's machine hall: what can be done to one machine. No call waits for an outcome."""

    def prepare(self, boot: Boot) -> None:
        """Give a machine its disk. Not switched on."""
        ...

    def switch_on(self, provider_id: str) -> None:
        """Boot a prepared or stopped machine; nothing happens when it runs."""
        ...

    def look(self, provider_id: str) -> tuple[MachineState, str] | None:
        """Return a machine's state and what there is to say about it; None when it was never seen running."""
        ...

    def stop(self, provider_id: str) -> None:
        """Have all that runs on it end, and keep its disk."""
        ...

    def terminate(self, provider_id: str) -> None:
        """Have all that runs on it end, for good."""
        ...

    def reclaim(self, provider_id: str, notice_s: float) -> None:
        """Tell the machine that it ends in `notice_s` seconds, and end it then."""
        ...

    def discard(self, provider_id: str) -> None:
        """End whatever is left of an ended machine and delete its disk; its console stays."""
        ...

    def console(self, provider_id: str) -> str:
        """Return the end of what it printed, 64 KiB at most; empty where there is none."""
        ...
