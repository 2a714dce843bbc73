"""The pretend Azure as a cloud under test: a server of its own for each test, on a free port of loopback."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from atoll.clock import Clock
from atoll.group import Provider
from atoll.host.system import SystemClock
from atoll.instance import Shape
from atoll.money import micros
from atoll.price import Price, PriceList
from atoll.slots import GIB, Slots
from providers.azure import request
from providers.azure.settings import parse
from providers.port import INTENT_TAG, OWNER_TAG, Driver, Intent
from providers.prices.book import Book
from providers.registry import DriverContext, make
from tests.clouds.azure.arm import GROUP, REGION, SECURITY_GROUP, SUBNET, SUBSCRIPTION
from tests.clouds.azure.server import CLIENT, SECRET, TENANT, Azure
from tests.clouds.guests import Guests
from tests.clouds.harness import FAULTS, OWNER, Seen
from tests.fakes.launch import Launcher


@dataclass
class AzureHarness:
    """See `tests.clouds.harness.Harness`."""

    directory: Path
    name: str = "azure"
    can: frozenset[str] = frozenset(FAULTS)
    remembers: bool = False
    clock: Clock = field(default_factory=SystemClock)

    def start(self) -> None:
        self.guests = Guests(self.directory / "guests")
        self.service = Azure(self.directory / "tls", self.guests)

    def provider(self) -> Provider:
        return Provider(
            name="azure-eu",
            kind="azure",
            settings={
                "subscription": SUBSCRIPTION,
                "resource_group": GROUP,
                "region": REGION,
                "zones": ["1", "2"],
                "shapes": ["Standard_B*", "Standard_D*", "Standard_N*"],
                "subnet": SUBNET,
                "security_group": SECURITY_GROUP,
                "tags": {"cost centre": "42"},
                "endpoint": self.service.url,
                "ca": str(self.service.ca),
                "create_wait": 2,
                "credentials": {
                    "tenant_id": TENANT,
                    "client_id": CLIENT,
                    "client_secret": SECRET,
                    "authority": self.service.url,
                },
            },
        )

    def context(self) -> DriverContext:
        return DriverContext(directory=self.directory / "plane", launch=Launcher(), clock=self.clock)

    def driver(self, proxy: str = "") -> Driver:
        return make(self.provider(), replace(self.context(), proxy=proxy))

    def book(self) -> Book:
        prices = (
            Price(shape="Standard_B2s", amount=micros(0.048)),
            Price(shape="Standard_D2s_v5", amount=micros(0.115)),
            Price(shape="Standard_D2s_v5", amount=micros(0.0216), spot=True),
            Price(shape="Standard_NC4as_T4_v3", amount=micros(0.658)),
        )
        return Book(PriceList(provider="azure-eu", source="a test", prices=prices))

    def inject(self, **faults: Any) -> None:
        with self.service.cloud.lock:
            self.service.cloud.faults.inject(faults)

    def struck(self) -> dict[str, int]:
        return dict(self.service.cloud.faults.struck)

    def inventory(self) -> list[Seen]:
        return self.service.cloud.inventory()

    def made(self) -> list[str]:
        with self.service.cloud.lock:
            tags = [each.body.get("tags") or {} for each in self.service.cloud.made if not each.failure]
        return [each[INTENT_TAG] for each in tags if OWNER_TAG in each]

    def intent(self, name: str, *, owner: str = OWNER, script: str = "#!/bin/sh\nsleep 60\n", **more: Any) -> Intent:
        shape = Shape(
            provider="azure-eu",
            name="Standard_D2s_v5",
            zone=f"{REGION}-1",
            slots=Slots(2000, 8 * GIB, 32 * GIB),
            price=micros(0.115),
        )
        return Intent(
            id=name, owner=owner, shape=replace(shape, **more), user_data=script, tags={"atoll-group": "burst"}
        )

    def remove(self, provider_id: str) -> None:
        self.service.cloud.vanish(provider_id)

    def reclaim(self, provider_id: str) -> None:
        self.service.cloud.vanish(provider_id)  # its eviction policy is Delete

    def intruder(self, like: Seen) -> str:
        intent = self.intent(like.intent, owner="somebody-else")
        settings = parse(self.provider().settings)
        labels = {**like.tags, OWNER_TAG: "somebody-else", INTENT_TAG: like.intent}
        with self.service.cloud.lock:
            cloud = self.service.cloud
            card, _ = cloud.put_card(f"{intent.name}-nic", request.network_card(settings, labels, ""))
            made = request.machine(intent, settings, labels, card["id"])
            cloud.put_machine(intent.name, made, only_new=True)
        return intent.name

    def leftovers(self) -> list[int]:
        return self.guests.processes()

    def stop(self) -> None:
        self.service.close()
        assert not self.service.defects, "\n".join(self.service.defects)
