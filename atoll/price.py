"""A price list: what shapes cost an hour, where it was read, and when. It is a value, like every noun."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What one shape costs.

    `amount` is micro-units of the list's currency an hour, for the whole machine with all its devices.
    `zone` is empty where a price holds for all zones of the list's region. The facts about the machine
    (`cpu` in thousandths of a core, `memory` in bytes, `gpus` devices of `gpu_model`) are what the source
    says, 0 and "" where it says nothing: they are for checking, and for reading offline.
    """

    shape: str
    amount: int
    zone: str = ""
    spot: bool = False
    cpu: int = 0
    memory: int = 0
    gpus: int = 0
    gpu_model: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceList:
    """The prices of one provider, as one source gave them at one time.

    `source` names it for people ("AWS price list API, us-east-1", "file prices-2026-11.json signed by …");
    `at` is when the source gave them, in Unix seconds: for an imported file its own date, not the import's.
    """

    provider: str
    source: str
    currency: str = "USD"
    at: float = 0.0
    prices: tuple[Price, ...] = field(default=())
    version: int = 0

    @property
    def label(self) -> str:
        """Name and date of the list, as launches record it (I16)."""
        return f"{self.source} @{int(self.at)}"
