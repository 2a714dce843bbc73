"""EC2 as moto and the overlay show it, with real machine processes."""

from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import boto3
from moto.ec2.models.instance_types import INSTANCE_TYPES

from atoll.group import Provider
from atoll.host.system import SystemClock
from atoll.instance import Shape
from atoll.money import micros
from atoll.price import Price, PriceList
from atoll.slots import GIB, Slots
from providers.port import OWNER_TAG, Driver, Intent
from providers.prices.book import Book
from providers.registry import DriverContext, make
from tests.clouds.aws import facts
from tests.clouds.aws.server import AwsServer, shared
from tests.clouds.guests import Guests
from tests.clouds.harness import FAULTS, OWNER, Seen
from tests.fakes.launch import Launcher

REGION = "eu-central-1"
PATTERNS = ["t2.micro", "t3.*", "g4dn.*", "g5.xlarge", "p4d.*"]


@dataclass
class AwsHarness:
    """See `tests.clouds.harness.Harness`."""

    directory: Path
    name: str = "aws"
    can: frozenset[str] = frozenset(FAULTS)
    remembers: bool = True
    settings: dict[str, Any] = field(default_factory=dict)
    launcher: Launcher = field(default_factory=Launcher)

    @property
    def server(self) -> AwsServer:
        return shared()

    @property
    def guests(self) -> Guests:
        return self.server.hall.guests

    def start(self) -> None:
        self.server.open(self.directory / "guests", REGION)

    def provider(self) -> Provider:
        keys = {"access_key_id": facts.ACCESS_KEY, "secret_access_key": facts.SECRET_KEY}
        settings = {
            "region": REGION,
            "shapes": PATTERNS,
            "disk": "20GiB",
            "endpoint": self.server.url,
            "credentials": keys,
        }
        return Provider(name="ec2", kind="aws", settings=settings | self.settings)

    def context(self) -> DriverContext:
        return DriverContext(directory=self.directory, launch=self.launcher, clock=SystemClock())

    def driver(self, proxy: str = "") -> Driver:
        return make(self.provider(), replace(self.context(), proxy=proxy))

    def book(self) -> Book:
        listed = [Price(shape=name, amount=micros(float(price))) for name, price in facts.ON_DEMAND.items()]
        spot = [
            Price(shape=name, zone=f"{REGION}{zone}", spot=True, amount=micros(float(price)))
            for name in facts.ON_DEMAND
            for zone in "abc"
            if (price := facts.spot_price(name, f"{REGION}{zone}"))
        ]
        return Book(PriceList(provider="ec2", source="facts", at=1.0, prices=(*listed, *spot)))

    def inject(self, **faults: Any) -> None:
        with self.server.overlay.lock:
            self.server.overlay.faults.put(**faults)

    def struck(self) -> dict[str, int]:
        return dict(self.server.overlay.faults.struck)

    def inventory(self) -> list[Seen]:
        return self.server.inventory()

    def made(self) -> list[str]:
        return [seen.intent for seen in self.inventory() if seen.owner]  # it keeps ended ones

    def intent(self, name: str, *, owner: str = OWNER, script: str = "#!/bin/sh\nsleep 60\n", **more: Any) -> Intent:
        kind = INSTANCE_TYPES["t3.nano"]
        slots = Slots(kind["VCpuInfo"]["DefaultVCpus"] * 1000, kind["MemoryInfo"]["SizeInMiB"] * 1024**2, 20 * GIB)
        shape = Shape(provider="ec2", name="t3.nano", zone=f"{REGION}a", slots=slots, price=5200)
        return Intent(
            id=name, owner=owner, shape=replace(shape, **more), user_data=script, tags={"atoll-group": "burst"}
        )

    def remove(self, provider_id: str) -> None:
        self.server.end(provider_id, "Client.UserInitiatedShutdown", "User initiated shutdown")

    def reclaim(self, provider_id: str) -> None:
        self.server.reclaim(provider_id)

    def intruder(self, like: Seen) -> str:
        tags = [{"Key": key, "Value": value} for key, value in like.tags.items() if key != OWNER_TAG]
        made = self.client("ec2").run_instances(
            ImageId=facts.DEBIAN_AMI,
            InstanceType=like.created,
            MinCount=1,
            MaxCount=1,
            UserData=like.user_data,
            TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
        )
        return str(made["Instances"][0]["InstanceId"])

    def client(self, service: str) -> Any:
        """Return an SDK client of another person of the account."""
        return _client(service, self.server.url)

    def leftovers(self) -> list[int]:
        return self.server.hall.guests.processes()

    def stop(self) -> None:
        self.server.close()


@cache
def _client(service: str, url: str) -> Any:
    session: Any = boto3.Session(facts.ACCESS_KEY, facts.SECRET_KEY, region_name=REGION)
    return session.client(service, endpoint_url=url)
