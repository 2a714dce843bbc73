"""An agent: the daemon on one machine, and that machine's slots."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from atoll.slots import Slots
from atoll.states import AgentState, Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """What the control plane knows of an agent. Whether it is connected is not stored: it is observed.

    `epoch` counts registrations and cordon decisions, and only rises. `cordon_epoch` is the epoch of
    the last decision to drain (0: none) and `acknowledged_epoch` the newest one the agent confirmed
    together with its session list: it may be ended only when acknowledged >= cordon > 0 (I4).
    `price` is micro-units an hour for the whole machine; `instance` is empty for registered machines.
    `drain_until` (Unix seconds) is when a drain's time is over: from then on sessions that can take a checkpoint and
    are not protected are moved off it (None: whatever runs there goes on to its end). `key` is the SHA-256 of the
    public key that it joined with, in hex: a revoked agent's never joins again. Certificates of an agent are counted:
    `generation` is the newest that was issued, by the CA `issued_by`, and `generation_used` the newest that it has
    registered with or kept for good; `trusts` is the newest CA that it knows. CAs are named by their SHA-256 in hex.
    """

    id: str
    name: str
    site: str
    group: str
    state: AgentState = AgentState.READY
    reason: Reason = Reason.JOINED
    message: str = ""
    capacity: Slots = Slots()
    facts: dict[str, str] = field(default_factory=dict)
    price: int = 0
    spot: bool = False
    instance: str = ""
    key: str = ""
    generation: int = 0
    generation_used: int = 0
    issued_by: str = ""
    trusts: str = ""
    epoch: int = 0
    cordon_epoch: int = 0
    acknowledged_epoch: int = 0
    drain_until: float | None = None
    joined_at: float = 0.0
    ended_at: float | None = None
    version: int = 0


def driver(facts: Mapping[str, str]) -> tuple[int, ...]:
    """Return the version of an agent's GPU driver as numbers, empty where it has told none."""
    parts = facts.get("nvidia_driver", "").split(".")
    return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else ()
