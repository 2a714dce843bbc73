"""Weekly hours against the calendar: whether they hold now, when that changes, and the hot pool's size by them."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from atoll.errors import Invalid
from atoll.group import Group
from atoll.hours import Hours
from atoll.suggest import hint

_DAY_S = 86400.0
_DAYS = 16
"""How far ahead a change is looked for: two weeks, since a clock put forward may swallow one week's hours."""


def check_zone(name: str) -> ZoneInfo:
    """Return the IANA time zone of this name; raise `Invalid` where there is none."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a folder of zones, such as `America`
        advice = hint(name, sorted(available_timezones()), "names are those of the IANA database, such as Asia/Seoul")
        raise Invalid(f"there is no time zone {name!r}", hint=advice) from None


def open_now(hours: Sequence[Hours], now: float) -> bool:
    """Say whether any of `hours` holds at `now` (Unix seconds); none at all is always."""
    return not hours or any(_holds(each, now) for each in hours)


def next_change(hours: Sequence[Hours], now: float) -> float | None:
    """Return when (Unix seconds) `open_now` will next be other than it is now; None: never."""
    before = open_now(hours, now)
    moments = sorted({moment for each in hours for moment in _moments(each, now) if moment > now})
    return next((moment for moment in moments if open_now(hours, moment) is not before), None)


def hot_count(group: Group, now: float) -> int:
    """Return how large a group's hot pool is at `now`: as the first of its hot times that holds says."""
    pools = group.pools
    return next((time.count for time in pools.hot_times if _holds(time.hours, now)), pools.hot_count)


def _holds(hours: Hours, now: float) -> bool:
    local = datetime.fromtimestamp(now, check_zone(hours.zone))
    return hours.include(local.weekday(), local.hour * 60 + local.minute)


def _moments(hours: Hours, now: float) -> Iterator[float]:
    """Yield all moments at which `hours` may begin or end: too many do no harm.

    A time that the clock shows twice counts twice; one that it skips may make them begin when the clock is changed.
    """
    zone = check_zone(hours.zone)
    midnight = datetime.fromtimestamp(now, zone).replace(tzinfo=None, hour=0, minute=0, second=0, microsecond=0)
    for day in range(-1, _DAYS):
        for minutes in (hours.start, hours.end):
            local = midnight + timedelta(days=day, minutes=minutes)
            for fold in (0, 1):
                yield local.replace(tzinfo=zone, fold=fold).timestamp()
    for early, late in pairwise(now + day * _DAY_S for day in range(_DAYS + 1)):
        if _offset(zone, early) != _offset(zone, late):
            yield _clock_change(zone, early, late)


def _clock_change(zone: ZoneInfo, early: float, late: float) -> float:
    """Return the second from which `zone` is as far from UTC as at `late`."""
    low, high = int(early), int(late) + 1
    while high - low > 1:
        middle = (low + high) // 2
        if _offset(zone, middle) == _offset(zone, early):
            low = middle
        else:
            high = middle
    return float(high)


def _offset(zone: ZoneInfo, moment: float) -> timedelta | None:
    return datetime.fromtimestamp(moment, zone).utcoffset()
