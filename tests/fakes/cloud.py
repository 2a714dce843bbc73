"""A cloud in memory behind the provider port: machines are records; tests make them boot, refuse, or vanish."""

from collections.abc import Callable
from dataclasses import replace

from atoll.instance import Shape
from atoll.money import micros
from atoll.slots import GIB, Slots
from providers.errors import Absent, BadRequest, ProviderError
from providers.port import Finding, Intent, Limit, Machine, MachineState
from providers.prices.book import Book

SMALL = Shape(
    provider="cloud",
    name="small",
    zone="z1",
    slots=Slots(cpu=4000, memory=8 * GIB, disk=20 * GIB),
    price=micros(0.1),
    start_s=1.0,
    catalogue="test",
)


class MemoryCloud:
    """Obeys the port. `fail` are errors of the next creates, and whether the effect comes first; `stops`: it can."""

    def __init__(self, *shapes: Shape) -> None:
        self.offered = list(shapes) or [SMALL]
        self.machines: dict[str, Machine] = {}
        self.intents: dict[str, Intent] = {}
        self.fail: list[tuple[ProviderError, bool]] = []
        self.hidden: set[str] = set()
        self.limits: list[Limit] = []
        self.well = Finding(check="memory", ok=True, message="always well")
        self.booted: Callable[[Intent], None] = lambda intent: None
        self.creates = 0
        self.stops = True

    def live(self) -> list[Machine]:
        """Return what costs money now."""
        return [m for m in self.machines.values() if m.state is not MachineState.ENDED]

    def take(self, provider_id: str) -> None:
        """The cloud ends a machine by itself."""
        self.machines[provider_id] = replace(self.machines[provider_id], state=MachineState.ENDED, message="reclaimed")

    async def doctor(self) -> list[Finding]:
        return [self.well]

    async def quota(self) -> list[Limit]:
        return list(self.limits)

    async def shapes(self, prices: Book) -> list[Shape]:
        return [
            replace(
                shape,
                price=prices.price(shape.name, shape.zone, shape.spot, told=shape.price),
                catalogue=prices.label or shape.catalogue,
            )
            for shape in self.offered
        ]

    async def create(self, intent: Intent) -> Machine:
        error, after = self.fail.pop(0) if self.fail else (None, False)
        if error and not after:
            raise error
        key = f"m-{intent.id}"
        if key not in self.machines:
            self.creates += 1
            self.intents[key] = intent
            self.machines[key] = Machine(intent=intent.id, provider_id=key, state=MachineState.RUNNING)
            self.booted(intent)
        if error:
            raise error
        return self.machines[key]

    async def describe(self, owner: str) -> list[Machine]:
        return [
            m for key, m in self.machines.items() if self.intents[key].owner == owner and m.intent not in self.hidden
        ]

    async def start(self, provider_id: str) -> None:
        self._set(provider_id, MachineState.RUNNING)

    async def stop(self, provider_id: str) -> None:
        if not self.stops:
            raise BadRequest(f"{provider_id} cannot be stopped")
        self._set(provider_id, MachineState.STOPPED)

    async def terminate(self, provider_id: str) -> None:
        self._set(provider_id, MachineState.ENDED)

    async def console(self, provider_id: str) -> str:
        return "booted, no network"

    def _set(self, provider_id: str, state: MachineState) -> None:
        machine = self.machines.get(provider_id)
        if machine is None or machine.state is MachineState.ENDED:
            raise Absent(f"no machine {provider_id}")
        self.machines[provider_id] = replace(machine, state=state)
