"""A site: a place where agents are, such as a hall, a cloud region or one workstation."""

from dataclasses import dataclass, field

from atoll.price import Upkeep


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A place with a price.

    `price` is what an hour of a whole agent of a fixed group costs here in micro-units (power,
    depreciation); machines made by a provider bring their own price. `upkeep` is what it was computed from,
    None where it was given as it is. `egress` is what a GiB that leaves the site costs. Sites with the same label
    `region` are near each other. All sessions of a `blind` site are blind.
    """

    name: str
    labels: dict[str, str] = field(default_factory=dict)
    price: int = 0
    upkeep: Upkeep | None = None
    egress: int = 0
    blind: bool = False
    created_at: float = 0.0
    version: int = 0
