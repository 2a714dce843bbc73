"""A group: agents of one kind at one site, fixed (registered machines) or elastic (a provider makes them)."""

from dataclasses import dataclass, field
from enum import StrEnum

from atoll.hours import Hours
from atoll.price import PriceRules
from atoll.slots import Request


class GroupKind(StrEnum):
    """How a group gets its agents."""

    FIXED = "fixed"
    ELASTIC = "elastic"


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Bounds on the number of live instances of an elastic group."""

    min: int = 0
    max: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class HotTime:
    """That a hot pool has another size at some hours of the week."""

    hours: Hours
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pools:
    """Spare capacity kept ready.

    `hot` asks that a session of this size could start at once, `hot_count` times over (0: no hot
    pool), or as often as the first of `hot_times` says that holds; `predict` adds what the group's own history
    expects for the time a launch takes. `cold` is a number of stopped instances, where the provider can stop and
    start. Only on-demand instances become cold: a cloud takes spot ones back also while they are stopped, and EC2
    stops none.
    """

    hot: Request = Request()
    hot_count: int = 0
    hot_times: tuple[HotTime, ...] = ()
    predict: bool = False
    cold: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleDown:
    """When an empty agent may be ended: idle this many seconds, and none within `cooldown_s` of growth.

    `consolidate` lets sessions that can take a checkpoint be moved off agents that few of them use, so that these
    can be ended.
    """

    idle_s: float = 60.0
    cooldown_s: float = 30.0
    consolidate: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A set of agents of one kind at one site.

    `shapes` limits an elastic group to these machine types (empty: any of its provider) and `spot` to
    spot (True) or on-demand (False) offers (None: both). `boot_s` is how long a launch may take before
    it counts as failed, `lease_s` how long an idle instance outlives a control plane it cannot reach,
    `max_life_s` the hard cap after which an instance ends itself. `hours` are when its agents take new sessions
    (empty: always), `driver` is the GPU driver its machines come with, as numbers.
    """

    name: str
    site: str
    kind: GroupKind = GroupKind.FIXED
    provider: str = ""
    shapes: tuple[str, ...] = ()
    spot: bool | None = None
    size: Size = Size()
    pools: Pools = Pools()
    scale_down: ScaleDown = ScaleDown()
    boot_s: float = 900.0
    lease_s: float = 900.0
    max_life_s: float = 7 * 86400.0
    hours: tuple[Hours, ...] = ()
    driver: tuple[int, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    created_at: float = 0.0
    version: int = 0


class Orphans(StrEnum):
    """What becomes of a machine that is ours by its tag, but in no record."""

    REPORT = "report"
    QUARANTINE = "quarantine"  # stopped, its disk kept
    TERMINATE = "terminate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A cloud account that can make instances: its `kind` names the driver, `settings` belong to it.

    `prices` is what the account pays other than its cloud's list says, `orphans` what the sweep does to machines
    that carry our tag and that nobody knows. `credentials_at` is since when the credentials are these.
    """

    name: str
    kind: str
    settings: dict[str, object] = field(default_factory=dict)
    prices: PriceRules = field(default_factory=PriceRules)
    orphans: Orphans = Orphans.TERMINATE
    credentials_at: float | None = None
    created_at: float = 0.0
    version: int = 0
