"""A relay: a process on a machine of its own that carries users' streams to agents."""

from dataclasses import dataclass
from enum import StrEnum


class RelayState(StrEnum):
    """What the control plane has decided about a relay; whether it is connected is a fact apart."""

    INVITED = "invited"  # its machine has not enrolled yet
    SERVING = "serving"
    DRAINING = "draining"  # takes nothing new, lets go of what it has, then ends
    DRAINED = "drained"  # has ended; it serves again once it is started again


@dataclass(frozen=True, slots=True, kw_only=True)
class Relay:
    """What the control plane knows of a relay.

    `url` (`https://host[:port]`) is where agents and users find it. `key` is the SHA-256 of its public key, in hex,
    empty before it enrolled; `issued_by` the CA that signed its newest certificate (SHA-256 in hex). `seen_at` (Unix
    seconds) is when it was last connected, None before the first time; `boot` names its process of then.
    """

    id: str
    name: str
    url: str
    state: RelayState = RelayState.INVITED
    message: str = ""
    key: str = ""
    issued_by: str = ""
    boot: str = ""
    seen_at: float | None = None
    created_at: float = 0.0
    version: int = 0
