"""A registered agent whose link is up."""

from dataclasses import dataclass, field

from tunnel import wire
from tunnel.link import Link


@dataclass(slots=True)
class LiveAgent:
    """An agent whose link is up and registered: facts of this moment, none of them stored.

    `told` are the commands (`start:<run>`, `stop:<run>`) already sent on this link, `heard` is when anything last came
    over it (monotonic), `notice` the cloud's word that the machine will be taken, `protocol` the one that the agent
    speaks, `grant_key` the one by which it checks grants, `relays` the URLs of those it is linked to, `direct` where
    users may reach it without one, `authorities` the CAs that it trusts (SHA-256 in hex). Once it has `ended` its word
    counts no more, even what came before. `exited` are the ended runs whose output it still owes, with its final
    sizes.
    """

    id: str
    link: Link
    epoch: int
    protocol: int = wire.PROTOCOL
    told: set[str] = field(default_factory=set)
    heard: float = 0.0
    notice: str = ""
    grant_key: bytes = b""
    relays: list[str] = field(default_factory=list)
    direct: str = ""
    authorities: frozenset[str] = frozenset()
    ended: bool = False
    owned: set[str] = field(default_factory=set)
    exited: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def connected(self) -> bool:
        """True while this object is the agent's current link."""
        return self.link.alive

    @property
    def rtt(self) -> float | None:
        """Round-trip time of the last answered ping in seconds."""
        return self.link.rtt
