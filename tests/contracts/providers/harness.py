"""What the contract suite needs of a cloud under test: a server, drivers, faults, and the server's own inventory."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from atoll.group import Provider
from atoll.host.system import SystemClock
from atoll.instance import Shape
from providers.port import Driver, Intent, MachineState
from providers.registry import DriverContext, make
from providers.sim.driver import Sim
from providers.sim.files import FileInventory, set_faults
from tests.fakes.launch import Launcher, processes_below

OWNER = "inst-under-test"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One machine in the server's own inventory."""

    provider_id: str
    intent: str
    owner: str
    state: MachineState
    created: str


class Harness(Protocol):
    """A cloud under test. `inventory` is read from the server's side, never through the driver under test."""

    name: str

    def start(self) -> None: ...

    def driver(self) -> Driver: ...

    def inject(self, **faults: Any) -> None: ...

    def inventory(self) -> list[Seen]: ...

    def struck(self) -> dict[str, int]: ...

    def intent(self, name: str, *, owner: str = OWNER, script: str = "sleep 60\n") -> Intent: ...

    def leftovers(self) -> list[int]: ...

    def stop(self) -> None: ...


@dataclass
class SimHarness:
    """The `sim` cloud with its real inventory file and real machine processes."""

    directory: Path
    name: str = "sim"
    launcher: Launcher = field(default_factory=Launcher)

    def start(self) -> None:
        self.directory.mkdir(parents=True)

    def driver(self) -> Driver:
        return self._sim()

    def inject(self, **faults: Any) -> None:
        set_faults(self.directory / "pretend", faults)

    def inventory(self) -> list[Seen]:
        return [
            Seen(
                provider_id=record.provider_id,
                intent=record.intent,
                owner=record.owner,
                state=record.state,
                created=record.shape,
            )
            for record in self._sim().survey().values()
        ]

    def struck(self) -> dict[str, int]:
        with FileInventory(self.directory / "pretend").change() as cloud:
            return dict(cloud.struck)

    def intent(self, name: str, *, owner: str = OWNER, script: str = "sleep 60\n") -> Intent:
        shape = next(s for s in self._shapes() if s.name == "cpu-1" and not s.spot)
        return Intent(id=name, owner=owner, shape=shape, user_data=script, tags={"group": "g"})

    def leftovers(self) -> list[int]:
        return processes_below(self.directory)

    def stop(self) -> None:
        """Kill every machine's process; the cloud then notices, and ends what is left of them."""
        self.launcher.close()
        self._sim().survey()

    def _sim(self) -> Sim:
        context = DriverContext(directory=self.directory, launch=self.launcher, clock=SystemClock())
        made = make(Provider(name="pretend", kind="sim", settings={"boot_s": 0.05, "zones": ["a", "b"]}), context)
        assert isinstance(made, Sim)
        return made

    def _shapes(self) -> list[Shape]:
        return list(self._sim()._shapes)
