"""The `gcp` cloud: the fake of Compute Engine with real guests, and drivers that know nothing of it."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from atoll.group import Provider
from atoll.host.system import SystemClock
from atoll.instance import Shape
from atoll.price import Price, PriceList
from atoll.slots import GIB, Slots
from providers.gcp.machines import STATES, Place
from providers.gcp.setup import feed, make
from providers.port import INTENT_TAG, OWNER_TAG, Driver, Intent
from providers.prices.book import Book
from providers.prices.feed import Feed
from providers.registry import DriverContext
from tests.clouds.gcp import catalogue
from tests.clouds.gcp.faults import Faults
from tests.clouds.gcp.server import Control, Server
from tests.clouds.gcp.world import World
from tests.clouds.guests import Guests
from tests.clouds.harness import FAULTS, OWNER, Seen

KIND, ZONE = "e2-medium", catalogue.ZONES[0]


@dataclass
class GcpHarness:
    """See `tests.clouds.harness.Harness`."""

    directory: Path
    name: str = "gcp"
    can: frozenset[str] = frozenset(FAULTS)
    remembers: bool = True  # by the request id, for an hour
    prefix: Sequence[str] = ()
    port: int = 0
    faults: Faults = field(default_factory=Faults)

    def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.guests = Guests(self.directory / "guests", prefix=self.prefix)
        self.server = Server(World(self.guests, self.faults), self._control(), self.port)
        self.server.open()

    def provider(self, **settings: object) -> Provider:
        url = self.server.url
        return Provider(
            name="google",
            kind="gcp",
            settings={
                "project": catalogue.PROJECT,
                "zones": list(catalogue.ZONES[:2]),
                "disk": "10GiB",
                "endpoint": url,
                "prices_endpoint": url,
                "rights_endpoint": url,
                "credentials": {"anonymous": True},
                **settings,
            },
        )

    def driver(self, proxy: str = "") -> Driver:
        return make(self.provider(), replace(self.context(), proxy=proxy))

    def feed(self) -> Feed:
        return feed(self.provider(), self.context())

    def context(self) -> DriverContext:
        return DriverContext(directory=self.directory, launch=lambda *_: os.getpid(), clock=SystemClock())

    def book(self) -> Book:
        prices = [Price(shape=KIND, amount=33_500, spot=False), Price(shape=KIND, amount=10_000, spot=True)]
        return Book(PriceList(provider="google", source="test", prices=tuple(prices)))

    def inject(self, **faults: Any) -> None:
        self.faults.replace(faults)

    def struck(self) -> dict[str, int]:
        return dict(self.faults.struck)

    def inventory(self) -> list[Seen]:
        world = self.server.world
        with world.lock:
            world.advance()
            return [_seen(zone, name, each.document) for (zone, name), each in world.instances.items()]

    def made(self) -> list[str]:
        world = self.server.world
        with world.lock:
            seen = [_seen(*key, document) for key, document in world.made]
        return [each.intent for each in seen if each.owner]

    def intent(self, name: str, *, owner: str = OWNER, script: str = "#!/bin/sh\nsleep 60\n", **more: Any) -> Intent:
        slots = Slots(cpu=1000, memory=4 * GIB, disk=10 * GIB)
        shape = Shape(provider="google", name=KIND, zone=ZONE, slots=slots, price=33_500)
        return Intent(
            id=name, owner=owner, shape=replace(shape, **more), user_data=script, tags={"atoll-group": "burst"}
        )

    def remove(self, provider_id: str) -> None:
        with self.server.world.lock:
            self.server.world.delete(*provider_id.split("/")[1:])

    def reclaim(self, provider_id: str) -> None:
        with self.server.world.lock:
            self.server.world.reclaim(*provider_id.split("/")[1:])

    def intruder(self, like: Seen) -> str:
        _, zone, name = like.provider_id.split("/")
        world = self.server.world
        with world.lock:
            document = world.instance(zone, name)
            theirs = {key: value for key, value in document.items() if key not in _SHOWN_ONLY}
            theirs["name"] = f"{name[:50]}-look-alike"
            theirs["labels"] = {key: value for key, value in document["labels"].items() if key != OWNER_TAG}
            world.insert(zone, theirs, "")
        return Place(catalogue.PROJECT, zone, theirs["name"]).id

    def leftovers(self) -> list[int]:
        return self.guests.processes()

    def stop(self) -> None:
        self.server.stop()

    def _control(self) -> dict[str, Control]:
        return {
            "/_atoll/faults": self.faults.replace,
            "/_atoll/struck": lambda body: self.struck(),
            "/_atoll/inventory": lambda body: {"machines": [_plain(seen) for seen in self.inventory()]},
            "/_atoll/remove": lambda body: self.remove(body["provider_id"]),
            "/_atoll/reclaim": lambda body: self.reclaim(body["provider_id"]),
        }


_SHOWN_ONLY = frozenset({"kind", "id", "creationTimestamp", "zone", "selfLink", "status"})


def _seen(zone: str, name: str, document: Mapping[str, Any]) -> Seen:
    said = {item["key"]: item["value"] for item in document.get("metadata", {}).get("items", [])}
    labels = document.get("labels", {})
    return Seen(
        provider_id=Place(catalogue.PROJECT, zone, name).id,
        intent=said.get(INTENT_TAG, ""),
        owner=said.get(OWNER_TAG, "") if OWNER_TAG in labels else "",
        state=STATES[document["status"]],
        created=document["machineType"].rpartition("/")[2],
        zone=zone,
        spot=document["scheduling"].get("provisioningModel") == "SPOT",
        user_data=said.get("startup-script", ""),
        tags=dict(labels),
    )


def _plain(seen: Seen) -> dict[str, Any]:
    return {**{name: getattr(seen, name) for name in Seen.__dataclass_fields__}, "state": seen.state.value}
