"""An account's limits as a plan sees them: what may still be launched, going down with each launch of the plan."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from atoll.instance import Shape
from atoll.slots import MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """One limit of a provider's account, with what is committed of it: all that lives there, or is to.

    `counts` says what a machine takes of it: `cpu` cores, `gpu` devices, `memory` MiB, `instances` one. It
    concerns shapes whose name matches one of `shapes` (glob patterns, none: all) and the way of paying `spot`
    (None: both). `learned` ones follow from a refusal: the cloud did not tell them.
    """

    provider: str
    name: str
    limit: int
    committed: int
    counts: str = "instances"
    shapes: tuple[str, ...] = ()
    spot: bool | None = None
    learned: bool = False

    def concerns(self, shape: Shape) -> bool:
        """Say whether machines of this shape count."""
        return (self.spot is None or self.spot == shape.spot) and (
            not self.shapes or any(fnmatchcase(shape.name, pattern) for pattern in self.shapes)
        )

    def takes(self, shape: Shape) -> int:
        """Return what one machine of this shape takes; 0 when it does not count."""
        if not self.concerns(shape):
            return 0
        slots = shape.slots
        amounts = {"cpu": -(-slots.cpu // 1000), "gpu": -(-slots.gpu_milli // 1000), "memory": -(-slots.memory // MIB)}
        return amounts.get(self.counts, 1)

    def text(self, shape: Shape | None = None) -> str:
        """Return the limit in words, and what one machine of `shape` takes of it."""
        told = "learned from a refusal" if self.learned else "of the account"
        needs = f", one more takes {self.takes(shape)}" if shape else ""
        used = f"{self.committed} of {self.limit} {self.counts} are in use or on their way"
        return f"limit {self.name!r} {told}: {used}{needs}"


@dataclass(slots=True)
class Limits:
    """The ceilings of all providers, while a plan is made."""

    ceilings: Sequence[Ceiling] = ()
    _taken: dict[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, groups: Iterable[Sequence[Ceiling]]) -> "Limits":
        """Return the limits of several groups, each ceiling once: groups of one provider share its account's."""
        return cls(tuple(dict.fromkeys(ceiling for ceilings in groups for ceiling in ceilings)))

    def count(self, provider: str, shape: Shape) -> int:
        """Return how many machines of a shape may still be launched."""
        if not self.ceilings:  # asked for every offering and demand
            return 1 << 30
        return min(
            (max(0, self._left(n)) // takes for n, _, takes in self._matching(provider, shape) if takes),
            default=1 << 30,
        )

    def short(self, provider: str, shape: Shape, count: int = 1) -> Ceiling | None:
        """Return a ceiling that does not allow `count` more of this shape."""
        return next(
            (ceiling for n, ceiling, takes in self._matching(provider, shape) if takes * count > max(0, self._left(n))),
            None,
        )

    def take(self, provider: str, shape: Shape, count: int = 1) -> None:
        """Count launches."""
        for n, _, takes in self._matching(provider, shape):
            self._taken[n] = self._taken.get(n, 0) + takes * count

    def copy(self) -> "Limits":
        """Return limits to try something on."""
        return Limits(self.ceilings, dict(self._taken))

    def _left(self, n: int) -> int:
        ceiling = self.ceilings[n]
        return ceiling.limit - ceiling.committed - self._taken.get(n, 0)

    def _matching(self, provider: str, shape: Shape) -> list[tuple[int, Ceiling, int]]:
        return [(n, c, c.takes(shape)) for n, c in enumerate(self.ceilings) if c.provider == provider]
