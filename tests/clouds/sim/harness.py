"""The `sim` cloud with its real inventory file and real machine processes."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from atoll.group import Provider
from atoll.host.system import SystemClock
from providers.port import Driver, Intent
from providers.prices.book import Book
from providers.registry import DriverContext, make
from providers.sim.driver import Sim
from providers.sim.files import FileInventory, set_faults
from tests.clouds.harness import OWNER, Seen
from tests.fakes.launch import Launcher, processes_below


@dataclass
class SimHarness:
    """See `tests.clouds.harness.Harness`."""

    directory: Path
    name: str = "sim"
    can: frozenset[str] = frozenset(
        {"lost_reply", "no_capacity", "quota", "throttle", "slow_boot", "terminate", "list_lag"}
    )
    remembers: bool = True
    launcher: Launcher = field(default_factory=Launcher)

    def start(self) -> None:
        self.directory.mkdir(parents=True)

    def provider(self) -> Provider:
        return Provider(
            name="pretend", kind="sim", settings={"boot_s": 0.05, "zones": ["a", "b"], "limits": {"cpu": 1000}}
        )

    def driver(self, proxy: str = "") -> Driver:
        return self._sim()

    def book(self) -> Book:
        return Book()  # its products have prices of their own

    def inject(self, **faults: Any) -> None:
        set_faults(self.directory / "pretend", faults)

    def struck(self) -> dict[str, int]:
        with FileInventory(self.directory / "pretend").change() as cloud:
            return dict(cloud.struck)

    def inventory(self) -> list[Seen]:
        return [
            Seen(
                provider_id=record.provider_id,
                intent=record.intent,
                owner=record.owner,
                state=record.state,
                created=record.shape,
                zone=record.zone,
                spot=record.spot,
                tags=record.tags,
            )
            for record in self._sim().survey().values()
        ]

    def intent(self, name: str, *, owner: str = OWNER, script: str = "#!/bin/sh\nsleep 60\n", **more: Any) -> Intent:
        shape = next(s for s in self._sim()._shapes if s.name == "cpu-1" and not s.spot)
        return Intent(
            id=name, owner=owner, shape=replace(shape, **more), user_data=script, tags={"atoll-group": "burst"}
        )

    def remove(self, provider_id: str) -> None:
        self._sim().reclaim(provider_id, 0.0)

    def reclaim(self, provider_id: str) -> None:
        self._sim().reclaim(provider_id, 0.0)

    def intruder(self, like: Seen) -> str:
        made = self._sim()._accept(self.intent(like.intent, owner="somebody-else"))
        return made.provider_id

    def leftovers(self) -> list[int]:
        return processes_below(self.directory)

    def stop(self) -> None:
        """Kill every machine's process; the cloud then notices, and ends what is left of them."""
        self.launcher.close()
        self._sim().survey()

    def _sim(self) -> Sim:
        context = DriverContext(directory=self.directory, launch=self.launcher, clock=SystemClock())
        made = make(self.provider(), context)
        assert isinstance(made, Sim)
        return made
