"""Launches that a cloud refuses for want of capacity, and for how long what was refused is then left alone."""

import random

from atoll import duration
from atoll.instance import Shape
from federation.control.breaker import Breaker, Pauses
from federation.control.hours import open_now
from federation.simulate.model import Lack, Options, Setup

_NEVER = Lack()
_WHY = "NO_CAPACITY: the setup says that there is none"


class Refusals:
    """What the setup says of capacity, drawn from the seed, and the control plane's memory of it: its own breaker."""

    def __init__(self, setup: Setup, options: Options) -> None:
        self.count = 0
        self._lacks = setup.lacks
        self._seed = options.seed
        self._pauses = Pauses(after=1, first_s=options.backoff_s, longest_s=options.backoff_max_s)
        self._offers: dict[tuple[str, str], Breaker] = {}

    def refuses(self, shape: Shape, launch: str, now: float) -> bool:
        """Say whether a launch is refused: `launch` is its instance's id, so that others do not change its luck."""
        lack = self._lacks.get(_key(shape), _NEVER)
        if lack.hours and open_now(lack.hours, now):
            return True
        return lack.part > 0 and self._luck(f"{launch}/capacity") < lack.part

    def failed(self, shape: Shape, now: float) -> float:
        """Note a refusal; return when the shape is asked for again."""
        key = _key(shape)
        self.count += 1
        jitter = self._luck(f"{'/'.join(key)}/{self.count}")
        found = self._offers.get(key, Breaker()).failed(now, _WHY, self._pauses, jitter=jitter)
        self._offers[key] = found
        return now + found.wait(now)

    def made(self, shape: Shape) -> None:
        """Note a launch that went well."""
        self._offers.pop(_key(shape), None)

    def blocked(self, shapes: tuple[Shape, ...], now: float) -> dict[str, str]:
        """Return, by their keys, why some of a provider's shapes are not asked for now."""
        if not self._offers:
            return {}
        waits = ((shape.key, self._offers[key].wait(now)) for shape in shapes if (key := _key(shape)) in self._offers)
        return {key: f"{_WHY} (tried again in {duration.rough(left)})" for key, left in waits if left > 0}

    def _luck(self, of: str) -> float:
        return random.Random(f"{self._seed}/{of}").random()  # noqa: S311 - not for secrets


def _key(shape: Shape) -> tuple[str, str]:
    return shape.provider, shape.key
