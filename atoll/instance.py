"""An instance: the provider-side machine behind an agent of an elastic group."""

from dataclasses import dataclass, field

from atoll.slots import Slots
from atoll.states import InstanceState, Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Something a provider can make now: a machine type in a zone at a price.

    `price` is micro-units an hour; `None` means the catalogue has no price: such a shape is never
    chosen, and 0 never wins either. `start_s` is the usual time from create to joined.
    `catalogue` names the price list and its date (I16). The cloud charges by `billing_s` begun. `interruptions`
    is how often an hour a machine is taken away, as far as known (None: unknown; on-demand 0).
    """

    provider: str
    name: str
    zone: str
    slots: Slots
    price: int | None
    spot: bool = False
    start_s: float = 60.0
    catalogue: str = ""
    billing_s: float = 1.0
    interruptions: float | None = None

    @property
    def key(self) -> str:
        """`name/zone/spot|on-demand`: identifies an offer of this provider, for backoff and records."""
        return f"{self.name}/{self.zone}/{'spot' if self.spot else 'on-demand'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One launch, from intent to its observed end. Written before the cloud is asked for anything.

    `id` names the machine at the provider (deterministic name and idempotency token come from it);
    `provider_id` is the cloud's own id once known. `since` is when `state` was entered, `deadline`
    when a launch counts as failed. `tags` are what the machine is tagged with at its cloud beside our own: the
    group's labels at launch, kept so that a repeated create says the same. `cost` is settled when it has ended.
    """

    id: str
    provider: str
    group: str
    site: str
    shape: Shape
    state: InstanceState = InstanceState.INTENDED
    reason: Reason = Reason.INTENDED
    message: str = ""
    provider_id: str = ""
    agent: str = ""
    plan: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    console: str = ""
    created_at: float = 0.0
    booted_at: float | None = None
    joined_at: float | None = None
    ended_at: float | None = None
    since: float = 0.0
    cost: int = 0
    version: int = 0
