"""The port every cloud driver implements: nine methods whose docstrings are the contract.

Contract tests (`tests/contracts/providers/`) hold each driver to it, on the server's own inventory.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from atoll.instance import Shape


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
    """One line of `doctor`: what was checked, whether it is well, and what to do if not."""

    check: str
    ok: bool
    message: str
    hint: str = ""


class Driver(Protocol):
    """A cloud account. All errors are `providers.errors`; anything else that leaves a driver is a defect."""

    async def doctor(self) -> list[Finding]:
        """Check credential, rights, region and clock without creating anything."""
        ...

    async def quota(self) -> dict[str, int]:
        """Return limits the account tells, by name; empty where it tells none."""
        ...

    async def shapes(self) -> list[Shape]:
        """Return what could be made, with prices. Unpriced shapes have `price=None`."""
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
