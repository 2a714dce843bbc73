"""The port every cloud driver implements: nine methods whose docstrings are the contract.

Contract tests (`tests/contracts/providers/`) hold each driver to it, on the server's own inventory.
"""

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from atoll.instance import Shape
from providers.prices.book import Book

OWNER_TAG = "atoll-owner"
"""Holds the installation's id: what carries it is ours, what does not is never touched."""
INTENT_TAG = "atoll-intent"
"""Holds the intent's id."""
PRINT_TAG = "atoll-fingerprint"
"""Holds `Intent.fingerprint`: tells a repeated create from another one of the same name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """A launch that is already written down.

    `id` gives the machine its deterministic name and the call its idempotency token; `owner` is the
    installation's id and goes into a tag of the create call itself. `user_data` is the boot script: it
    holds the URL, the CA pin and a single-use join token, and nothing else that is secret.
    """

    id: str
    owner: str
    shape: Shape
    user_data: str
    tags: dict[str, str] = field(default_factory=dict)
    max_life_s: float = 0.0

    @property
    def name(self) -> str:
        """The machine's deterministic name: at most 63 of `a-z0-9-`, a letter first, other for each owner."""
        plain = "".join(c if c.isalnum() and c.isascii() else "-" for c in self.id.lower())
        return f"atoll-{_digest(self.owner, self.id)[:8]}-{plain}"[:63].rstrip("-")

    @property
    def token(self) -> str:
        """The call's idempotency token: 64 hex digits of intent, shape, zone and way of paying.

        With the shape in it, because clouds refuse a token that comes with another request.
        """
        return _digest(self.owner, self.id, self.shape.key)

    @property
    def fingerprint(self) -> str:
        """16 hex digits over all that is asked for: equal intents, and only they, have equal ones."""
        return _digest(self.token, self.user_data, *(f"{k}={v}" for k, v in sorted(self.tags.items())))[:16]


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


class MachineState(StrEnum):
    """A machine's state as the cloud reports it, in words common to all clouds."""

    PENDING = "pending"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    ENDING = "ending"
    ENDED = "ended"  # seen by the cloud as terminated or deleted: terminal


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine in the cloud's inventory that carries our owner tag."""

    intent: str
    provider_id: str
    state: MachineState
    shape: str = ""
    zone: str = ""
    spot: bool = False
    created_at: float = 0.0
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of `doctor`: what was checked, whether it is well, and what to do if not.

    `details` is longer text to print below, such as the policy that grants the missing rights.
    """

    check: str
    ok: bool
    message: str
    hint: str = ""
    details: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What the account may have at most of something, as its cloud tells it.

    `counts` says what one machine takes of it: `cpu` its cores, `gpu` its devices, `memory` its MiB,
    `instances` one. It concerns shapes whose name matches one of `shapes` (glob patterns, none: all) and
    the way of paying `spot` (None: both). `used` is None where the cloud does not tell.
    """

    name: str
    limit: int
    counts: str
    used: int | None = None
    shapes: tuple[str, ...] = ()
    spot: bool | None = None


class Driver(Protocol):
    """A cloud account. All errors are `providers.errors`; anything else that leaves a driver is a defect."""

    async def doctor(self) -> list[Finding]:
        """Check credential, rights, region and clock without creating anything."""
        ...

    async def quota(self) -> list[Limit]:
        """Return the limits the account tells; empty where it tells none."""
        ...

    async def shapes(self, prices: Book) -> list[Shape]:
        """Return what could be made in each zone, on demand and spot, at the prices of the book.

        Unpriced shapes have `price=None`; `catalogue` is the book's label.
        """
        ...

    async def create(self, intent: Intent) -> Machine:
        """Make the machine of `intent`, once.

        Calling again with an equal intent returns the machine that exists, also after a lost reply and
        from another process. Tagged with the owner in the same call. Raises `Capacity`, `Quota`,
        `Throttled`, `Auth`, `BadRequest` when surely nothing was made, `Unknown` when that is not sure.
        """
        ...

    async def describe(self, owner: str) -> list[Machine]:
        """Return every machine tagged with `owner`, ended ones while the cloud still shows them.

        A listing may lag: absence from one is never proof (I6).
        """
        ...

    async def start(self, provider_id: str) -> None:
        """Start a stopped machine; well if it runs. Raises `Absent`."""
        ...

    async def stop(self, provider_id: str) -> None:
        """Stop a machine, keeping its disk; well if it is stopped. Raises `Absent`."""
        ...

    async def terminate(self, provider_id: str) -> None:
        """Ask for the end of a machine; well if it is ending.

        Raises `Absent` once it is gone: callers repeat until then or until `describe` shows `ended`.
        """
        ...

    async def console(self, provider_id: str) -> str:
        """Return what the machine printed at boot, the last 64 KiB at most; empty where there is none."""
        ...
