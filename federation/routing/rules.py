"""Rules: what the installation's policy says about choosing among offers. Values and pure functions only."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from atoll.offer import WAIT_VALUE, Demand, OfferKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A place as a policy's expressions see it: agents of one bin, or a launchable shape.

    `price` is micro-units an hour for the member's share; `owned` says that the machine is there anyway (a fixed
    group's), `region` is the site's label of that name. `shape` is a machine type's name, empty for own machines.
    """

    kind: OfferKind
    site: str
    group: str
    provider: str = ""
    region: str = ""
    shape: str = ""
    price: int = 0
    spot: bool = False
    owned: bool = True
    start_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What a policy says of one candidate for one demand.

    `denied` is the reason in words when it must not be taken, else empty. The offer's cost is multiplied by `factor`
    and raised by `extra` (micro-units) for ranking; neither is money.
    """

    denied: str = ""
    factor: float = 1.0
    extra: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How offers are weighed.

    `wait_value` is the worth of a second's waiting (micro-units), `rework_s` the running time lost with an
    interruption by a session that takes no checkpoints, `spot_interruptions` how often an hour a spot machine is
    taken away where its shape does not say. A session that could start otherwise waits for cheaper slots only where
    it will then have waited at most `patience_s` in all. `scarcity` 0 ranks by cost alone, 1 adds in full what others
    would lose.
    `shares` are the projects' weights in fair share (1 where not given). `judge` is asked once for each kind of
    demand and place: it may depend only on the demand's fields named in `reads`. Rules of equal `version` are
    the same rules.
    """

    version: str = ""
    wait_value: int = WAIT_VALUE
    rework_s: float = 1800.0
    spot_interruptions: float = 0.05
    patience_s: float = 120.0
    scarcity: float = 1.0
    shares: Mapping[str, float] = field(default_factory=dict)
    reads: tuple[str, ...] = ()
    judge: Callable[[Demand, Candidate], Ruling] | None = None


PLAIN = Rules()
"""The rules where no policy is set."""
