"""Prices: what shapes cost an hour and where that was read, an account's own rules, and what own machines cost.

All are values, like every noun.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from atoll.money import PER_UNIT

HOURS_A_YEAR = 8766.0
"""365.25 days."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What one shape costs.

    `amount` is micro-units of the list's currency an hour, for the whole machine with all its devices.
    `zone` is empty where a price holds for all zones of the list's region. The facts about the machine
    (`cpu` in thousandths of a core, `memory` in bytes, `gpus` devices of `gpu_model` with `gpu_memory` bytes
    each) are what the source says, 0 and "" where it says nothing: they are for checking, and for reading
    offline.
    """

    shape: str
    amount: int
    zone: str = ""
    spot: bool = False
    cpu: int = 0
    memory: int = 0
    gpus: int = 0
    gpu_model: str = ""
    gpu_memory: int = 0

    @property
    def key(self) -> tuple[str, str, bool]:
        """Shape, zone and way of paying: a list has at most one price of each."""
        return (self.shape, self.zone, self.spot)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """What a check had to say about one row of a list.

    With `dropped` the row counts as unpriced; else it is used, and a person should look. `before` is the
    amount that the row had in the list before, where that is why.
    """

    price: Price
    reason: str
    dropped: bool = True
    before: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceList:
    """The prices of one provider, as one source gave them at one time.

    `source` names it for people ("AWS price list API, us-east-1", "file prices-2026-11.json signed by …");
    `at` is when the source gave them, in Unix seconds: for an imported file its own date, not the import's.
    `remarks` are what the checks said: dropped rows are in there, and not among `prices`.
    """

    provider: str
    source: str
    currency: str = "USD"
    at: float = 0.0
    prices: tuple[Price, ...] = field(default=())
    remarks: tuple[Remark, ...] = ()
    version: int = 0

    @property
    def label(self) -> str:
        """Name and date of the list, as launches record it (I16)."""
        return f"{self.source} @{int(self.at)}"


class Stale(StrEnum):
    """What happens when a list has become too old."""

    WARN = "warn"  # it is shown as stale
    BLOCK = "block"  # and nothing is launched at its prices


@dataclass(frozen=True, slots=True, kw_only=True)
class Commitment:
    """Machines that are paid for anyway: the first `count` live ones of `shape`, on demand, cost `price` an hour.

    `price` is micro-units, above 0: what running one more of them adds.
    """

    shape: str
    count: int
    price: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceRules:
    """What an account pays other than the list says, and how old a list may be.

    `overrides` are amounts an hour (micro-units) by shape name and win over the list; `discount` is the
    part taken off the list's on-demand prices, 0..1. `rate` is what one unit of the list's currency is in the
    installation's (0: only lists in the installation's own are taken). A list is stale `stale_after_s` after
    its date; live sources are read every `update_s`.
    """

    discount: float = 0.0
    overrides: Mapping[str, int] = field(default_factory=dict)
    commitments: tuple[Commitment, ...] = ()
    stale_after_s: float = 7 * 86400.0
    stale: Stale = Stale.WARN
    update_s: float = 86400.0
    rate: float = 0.0

    def is_stale(self, listed_at: float, now: float) -> bool:
        """Say whether a list of `listed_at` is too old at `now`, both in Unix seconds.

        The source's clock may differ from ours by minutes; the limit is days (I11 is about leases).
        """
        return now - listed_at > self.stale_after_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Upkeep:
    """What an own machine costs: `watts` at `tariff` a kWh, and `purchase` over `years`; money in micro-units."""

    watts: int
    tariff: int
    purchase: int = 0
    years: float = 4.0

    @property
    def per_hour(self) -> int:
        """Micro-units an hour: watts / 1000 x tariff + purchase / (years x 8766 h), running or idle."""
        return round(self.watts / 1000 * self.tariff + self.purchase / (self.years * HOURS_A_YEAR))

    @property
    def formula(self) -> str:
        """The same for people: `400 W x 0.25/kWh + 12000 over 4 years`."""
        power = f"{self.watts} W x {self.tariff / PER_UNIT:g}/kWh"
        return f"{power} + {self.purchase / PER_UNIT:g} over {self.years:g} years" if self.purchase else power
