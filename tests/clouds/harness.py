"""What the suites need of a cloud under test: a server, drivers, faults, and the server's own inventory.

Every cloud's folder beside this file has a `harness.py` with one class that keeps this protocol.
"""

from dataclasses import dataclass, field
from typing import Any, Protocol

from atoll.group import Provider
from providers.port import Driver, Intent, MachineState
from providers.prices.book import Book
from tests.clouds.guests import Guests

OWNER = "inst-under-test"

FAULTS = (
    "lost_reply",
    "no_capacity",
    "quota",
    "throttle",
    "auth",
    "slow_boot",
    "terminate",
    "list_lag",
)
"""Kinds of faults, as `inject` takes them; each is a mapping or a list of mappings.

`times`: how often it strikes (1) · lost_reply `after_effect` (True): the create call is carried out, its
answer is lost; False: it never arrived · no_capacity `zones`, `spot`: only there · quota: the create is
refused for a limit of the account · throttle `calls` (["create"]), `retry_after` in seconds · auth `calls`:
the credential is refused · slow_boot `extra_s` · terminate `silent` (False): refused; True: accepted and
not done · list_lag `lag_s`: listings show the world of so long ago.
"""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One machine in the server's own inventory. `owner` is "" for machines without our tag."""

    provider_id: str
    intent: str
    owner: str
    state: MachineState
    created: str = ""
    zone: str = ""
    spot: bool = False
    user_data: str = ""
    tags: dict[str, str] = field(default_factory=dict)


class Harness(Protocol):
    """A cloud under test. `inventory` is read from the server's side, never through the driver under test.

    `can` are the kinds of faults this server can be made to have; `remembers` says whether the cloud knows
    an ended machine's intent (a repeated create then shows it as ended). Machines really run their user data
    (`tests.clouds.guests`).
    """

    name: str
    can: frozenset[str]
    remembers: bool

    @property
    def guests(self) -> Guests:
        """Return the machines' processes; setting `prefix` and `environment` says where the next ones run."""
        ...

    def start(self) -> None: ...

    def provider(self) -> Provider:
        """Return the provider's document as a user would write it, with endpoint and credentials of this server."""
        ...

    def driver(self, proxy: str = "") -> Driver:
        """Return a driver as `registry.make` gives it; `proxy` is the context's, which clouds of no network ignore."""
        ...

    def book(self) -> Book:
        """Return prices of some of this cloud's shapes."""
        ...

    def inject(self, **faults: Any) -> None: ...

    def struck(self) -> dict[str, int]:
        """Return how often each kind of fault struck."""
        ...

    def inventory(self) -> list[Seen]: ...

    def intent(self, name: str, *, owner: str = OWNER, script: str = "#!/bin/sh\nsleep 60\n", **more: Any) -> Intent:
        """Return an intent for the cheapest ordinary shape in the first zone; `more` are fields of `Shape`."""
        ...

    def remove(self, provider_id: str) -> None:
        """Act as another person of the account: delete a machine behind our back."""
        ...

    def reclaim(self, provider_id: str) -> None:
        """Act as the cloud: take a spot machine away."""
        ...

    def intruder(self, like: Seen) -> str:
        """Make a machine of somebody else's that looks like `like` but for the owner tag; return its id."""
        ...

    def leftovers(self) -> list[int]:
        """Return processes of machines that still run."""
        ...

    def stop(self) -> None: ...


class Chronicle(Harness, Protocol):
    """A cloud whose server remembers every machine it ever made, whatever became of it."""

    def made(self) -> list[str]:
        """Return the intent of each machine that was ever made here with an owner's tag: twice if there were two."""
        ...
