"""What the composition root tells the control plane about its surroundings."""

from dataclasses import dataclass
from typing import Protocol

from tunnel.certificates import Bearer


class Authority(Protocol):
    """Who vouches for agents: `tunnel.identity.Authority`, or a plain one in simulation."""

    @property
    def pin(self) -> str:
        """SHA-256 of the certificate of the CA that signs, in hex: what join tokens carry."""
        ...

    @property
    def ca_pem(self) -> str:
        """The certificates of all CAs to trust: that one and, while it is rotated, the one before."""
        ...

    @property
    def rotating(self) -> bool:
        """Whether there are two CAs at this time."""
        ...

    def rotate(self, now: float) -> None:
        """Begin to sign with a new CA, and trust both; raise `Conflict` while there are two."""
        ...

    def keep(self, now: float) -> None:
        """Issue anew what ends soon of the control plane's own certificates."""
        ...

    def retire(self, now: float) -> None:
        """Trust the CA that signs alone; raise `Conflict` where there is no other."""
        ...

    def sign_agent(self, csr_pem: str, agent_id: str, *, generation: int, ttl_s: float, now: float) -> str:
        """Return a certificate for the key in `csr_pem` that names `agent_id`, whatever the CSR says."""
        ...

    def sign_relay(self, csr_pem: str, relay: str, *, now: float, ttl_s: float) -> str:
        """Return a certificate for the key in `csr_pem` that names a relay by its id."""
        ...

    def agent_of(self, certificate_pem: str, csr_pem: str) -> Bearer:
        """Return whom a certificate of ours, expired or not, names; the request must be of its key."""
        ...

    def key_of(self, csr_pem: str) -> str:
        """Return a name of the key that signed a request; raise `Invalid` when it cannot be read."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlConfig:
    """Addresses, keys and periods. All times in seconds.

    `agent_url` is what agents dial (https), `secret_key` the installation's secret for grants and derived
    join tokens. A session is `lost` after `lost_after_s` without its agent. After a start with agents on
    record, and after a mass loss, nothing is drained or ended for `settle_s` (I12): as long as agents
    need to be noticed missing and to come back (lost_after + the longest reconnect pause). What a cloud
    refused is left alone for a random time up to `backoff_s`, doubling up to `backoff_max_s`; of each class
    of calls `calls_burst` go out at once, then `calls_rate` a second. An account's limits are read again after
    `quota_s`, and one that was learned from a refusal is believed for `learned_s`. A machine that was made less
    than `appears_s` ago may be there although its cloud says that it is not (EC2 is eventually consistent). Sessions
    that could come home are looked for every `home_s`. `plan_s` is how long a plan may look for cheaper launches than
    the first it finds (0: not at all). Sites' prefixes in meshes are cut from `mesh_network` ("": an own IPv6 one) and
    `mesh_network4` ("": none); the keys of their gateways are changed every `mesh_rotate_s`. `public_apps` allows
    apps that let everyone in.
    """

    authority: Authority
    agent_url: str
    secret_key: bytes
    schedule_s: float = 2.0
    home_s: float = 15.0
    plan_s: float = 0.2
    launch_s: float = 2.0
    observe_s: float = 3.0
    sweep_s: float = 120.0
    sweep_first_s: float = 10.0
    watch_s: float = 2.0
    lost_after_s: float = 10.0
    settle_s: float = 45.0
    backoff_s: float = 20.0
    backoff_max_s: float = 300.0
    calls_rate: float = 5.0
    calls_burst: float = 20.0
    quota_s: float = 300.0
    learned_s: float = 900.0
    prices_s: float = 60.0
    absent_after_s: float = 60.0
    appears_s: float = 60.0
    certificate_s: float = 86400.0
    mesh_network: str = ""
    mesh_network4: str = "100.64.0.0/10"
    mesh_s: float = 5.0
    mesh_rotate_s: float = 86400.0
    plans_kept: int = 500
    public_apps: bool = False
