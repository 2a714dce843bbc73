"""What each account may have: told by its cloud, or learned from its refusals; and how much of it is committed."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import structlog

from atoll.clock import Clock
from atoll.errors import AtollError
from atoll.group import Provider
from atoll.instance import Instance, Shape
from atoll.states import InstanceState
from autoscaler.limits import Ceiling
from federation.control.catalog import Catalog
from federation.control.config import ControlConfig
from federation.control.guard import Paused
from providers.errors import Quota
from providers.port import Limit

log = structlog.get_logger("control")
_I = InstanceState


@dataclass(frozen=True, slots=True)
class _Told:
    """What a cloud said at `at`, and how much of each limit is used by others than us."""

    at: float
    limits: tuple[tuple[Limit, int], ...]


@dataclass(frozen=True, slots=True)
class _Learned:
    """A limit that refused `shapes` when `limit` machines of them were live; believed until `until`."""

    name: str
    limit: int
    shapes: tuple[str, ...]
    spot: bool
    until: float


class Quotas:
    """Reads limits, learns them, and counts. What was learned is of this process: a new one learns it again."""

    def __init__(self, catalog: Catalog, config: ControlConfig, clock: Clock) -> None:
        self._catalog = catalog
        self._config = config
        self._clock = clock
        self._told: dict[str, _Told] = {}
        self._learned: dict[str, dict[tuple[str, bool], _Learned]] = {}

    def ceilings(self, row: Provider, instances: Iterable[Instance]) -> tuple[Ceiling, ...]:
        """Return the provider's limits as last told, and the learned ones.

        `instances` are all of ours that are not gone: live and pending both count.
        """
        mine = [instance for instance in instances if instance.provider == row.name]
        told = self._told.get(row.name)
        found = [_ceiling(row.name, limit, others, mine) for limit, others in told.limits] if told else []
        return (*found, *self._believed(row.name, mine))

    def learn(self, provider: str, shape: Shape, error: Quota, instances: Iterable[Instance]) -> None:
        """Take in a refusal: for a while, no more of this shape than are live now.

        Several shapes that one named limit refused count together.
        """
        if told := self._told.get(provider):  # it was not true any more: ask again soon, and go by it until then
            self._told[provider] = replace(told, at=-math.inf)
        known = self._learned.setdefault(provider, {})
        key = (error.name or shape.name, shape.spot)
        before = known.get(key)
        shapes = tuple(sorted({shape.name, *(before.shapes if before and error.name else ())}))
        live = [i for i in instances if i.provider == provider and i.booted_at is not None]
        limit = sum(i.shape.name in shapes and i.shape.spot == shape.spot for i in live)
        known[key] = _Learned(key[0], limit, shapes, shape.spot, self._clock.monotonic() + self._config.learned_s)
        log.warning("account limit learned", provider=provider, limit=key[0], shapes=shapes, instances=limit)

    def left(self, ceiling: Ceiling) -> float:
        """Return for how many seconds a learned limit is believed yet; 0 for one that the cloud told."""
        kept = self._learned.get(ceiling.provider, {}).get((ceiling.name, bool(ceiling.spot)))
        return max(0.0, kept.until - self._clock.monotonic()) if ceiling.learned and kept else 0.0

    async def refresh(self, row: Provider, instances: Iterable[Instance]) -> None:
        """Read the provider's limits anew when they are older than `quota_s`; keep what is known when it cannot say."""
        mine = [instance for instance in instances if instance.provider == row.name]
        now = self._clock.monotonic()
        kept = self._told.get(row.name)
        if kept and now - kept.at < self._config.quota_s:
            return
        try:
            told = await self._catalog.driver(row).quota()
        except Paused:
            return
        except AtollError as error:
            log.warning("limits not to be had", provider=row.name, reason=error.reason, error=error.message)
            soon = now - self._config.quota_s + self._config.backoff_s
            fresh = _Told(soon, kept.limits if kept else ())
        else:
            there = [i for i in mine if i.booted_at is not None and i.state is not _I.STOPPED]
            fresh = _Told(now, tuple((limit, _used_by_others(row.name, limit, there)) for limit in told))
        self._told[row.name] = fresh

    def _believed(self, provider: str, mine: Sequence[Instance]) -> list[Ceiling]:
        now = self._clock.monotonic()
        known = {key: kept for key, kept in self._learned.get(provider, {}).items() if kept.until > now}
        self._learned[provider] = known
        limits = [
            Limit(name=kept.name, limit=kept.limit, counts="instances", shapes=kept.shapes, spot=kept.spot)
            for kept in known.values()
        ]
        return [_ceiling(provider, limit, 0, mine, learned=True) for limit in limits]


def _used_by_others(provider: str, limit: Limit, there: Sequence[Instance]) -> int:
    """Return what the account uses beside our machines that run: those count by our own records, which are newer."""
    return max(0, (limit.used or 0) - _ceiling(provider, limit, 0, there).committed)


def _ceiling(provider: str, limit: Limit, others: int, mine: Sequence[Instance], *, learned: bool = False) -> Ceiling:
    bare = Ceiling(
        provider=provider,
        name=limit.name,
        limit=limit.limit,
        committed=0,
        counts=limit.counts,
        shapes=limit.shapes,
        spot=limit.spot,
        learned=learned,
    )
    committed = others + sum(bare.takes(instance.shape) for instance in mine)
    return replace(bare, committed=committed)
