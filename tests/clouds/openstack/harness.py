"""Real keystone, placement, glance, neutron and nova, with real machine processes behind them."""

import atexit
import os
import shutil
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from atoll.group import Provider
from atoll.host.system import SystemClock
from atoll.instance import Shape
from atoll.money import micros
from atoll.slots import GIB, Slots
from providers.openstack.rights import RULES
from providers.port import INTENT_TAG, OWNER_TAG, Driver, Intent
from providers.prices.book import Book
from providers.registry import DriverContext, make
from tests.clouds.guests import Guests
from tests.clouds.harness import FAULTS, OWNER, Seen
from tests.clouds.openstack.faults import Faults
from tests.clouds.openstack.front import Front
from tests.clouds.openstack.operator import Operator
from tests.fakes.launch import Launcher
from tests.openstack.prepare import prepared
from tests.openstack.stack import REGION, Stack, missing, own_folder

REQUIRED = "ATOLL_TEST_OPENSTACK"
"""Set to `required`, a stack that cannot be started fails the tests instead of skipping them."""


class Cloud:
    """A stack with its operator and its faults: one a test process, since it takes ten seconds to start."""

    def __init__(self) -> None:
        self._folder = own_folder()
        self.stack = Stack(self._folder)
        atexit.register(self.close)
        self._fronts = {name: Front(lambda passing, forward: forward(passing)) for name in ("identity", "compute")}
        catalogue = {
            "identity": f"http://127.0.0.1:{self._fronts['identity'].port}/v3",
            "compute": f"http://127.0.0.1:{self._fronts['compute'].port}/v2.1",
        }
        for name, front in self._fronts.items():
            front.target = self.stack.url(name)
        self.auth_url = catalogue["identity"]
        self.stack.start(prepared(), catalogue)
        self.operator = Operator(self.stack)
        self.faults = Faults(self.operator)
        self._fronts["identity"].judge = self.faults.identity
        self._fronts["compute"].judge = self.faults.compute
        self.credential = self.operator.credential([dict(rule) for rule in RULES])

    def close(self) -> None:
        self.stack.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


@cache
def shared() -> Cloud:
    """Return this process's cloud, started when it is first asked for; skip where it is not installed."""
    if why := missing():
        if os.environ.get(REQUIRED) == "required":
            raise RuntimeError(why)
        pytest.skip(why)
    return Cloud()


@dataclass
class OpenStackHarness:
    """See `tests.clouds.harness.Harness`."""

    directory: Path
    name: str = "openstack"
    can: frozenset[str] = frozenset(FAULTS)
    remembers: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    launcher: Launcher = field(default_factory=Launcher)

    @property
    def cloud(self) -> Cloud:
        return shared()

    def start(self) -> None:
        self.cloud.operator.clean()
        self.cloud.faults.clear()

    @property
    def guests(self) -> Guests:
        return self.cloud.operator.guests

    def made(self) -> list[str]:
        return self.cloud.operator.made()

    def provider(self) -> Provider:
        key, secret = self.cloud.credential
        settings = {
            "region": REGION,
            "image": self.cloud.operator.image,
            "network": self.cloud.operator.network,
            "shapes": ["m1.*", "g1.*"],
            "credentials": {
                "auth_url": self.cloud.auth_url,
                "application_credential_id": key,
                "application_credential_secret": secret,
            },
        }
        return Provider(name="stack", kind="openstack", settings=settings | self.settings)

    def driver(self, proxy: str = "") -> Driver:
        context = DriverContext(directory=self.directory, launch=self.launcher, clock=SystemClock(), proxy=proxy)
        return make(self.provider(), context)

    def book(self) -> Book:
        return Book()  # flavors carry prices of their own

    def inject(self, **faults: Any) -> None:
        self.cloud.faults.inject(faults)

    def struck(self) -> dict[str, int]:
        return dict(self.cloud.faults.struck)

    def inventory(self) -> list[Seen]:
        return self.cloud.operator.inventory()

    def intent(self, name: str, *, owner: str = OWNER, script: str = "#!/bin/sh\nsleep 60\n", **more: Any) -> Intent:
        shape: dict[str, Any] = {
            "provider": "stack", "name": "m1.small", "zone": "a", "price": micros(0.02),
            "slots": Slots(1000, 2 * GIB, 20 * GIB),
        }  # fmt: skip
        return Intent(
            id=name, owner=owner, shape=Shape(**shape | more), user_data=script, tags={"atoll-group": "burst"}
        )

    def remove(self, provider_id: str) -> None:
        self.cloud.operator.delete(provider_id)

    def reclaim(self, provider_id: str) -> None:
        self.cloud.operator.delete(provider_id)

    def intruder(self, like: Seen) -> str:
        return self._copy(like, {**like.tags, OWNER_TAG: "somebody-else", INTENT_TAG: like.intent})

    def twin(self, like: Seen) -> str:
        """Make a second machine of the same intent, as a lost reply or a second control plane can."""
        return self._copy(like, like.tags)

    def _copy(self, like: Seen, metadata: dict[str, str]) -> str:
        operator = self.cloud.operator
        twin = next(server for server in operator.servers() if server["id"] == like.provider_id)
        flavor = next(flavor for flavor in operator.flavors() if flavor["name"] == like.created)
        body = {"name": twin["name"], "imageRef": twin["image"]["id"], "flavorRef": flavor["id"], "metadata": metadata}
        return operator.create({"server": {**body, "networks": "auto", "tags": twin["tags"]}})

    def leftovers(self) -> list[int]:
        return self.cloud.operator.leftovers()

    def stop(self) -> None:
        self.cloud.operator.clean()
