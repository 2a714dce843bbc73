"""Hours: weekly times in a time zone, such as `mon-fri 08:00-19:00 Asia/Seoul`."""

import re
from dataclasses import dataclass

from atoll.errors import Invalid

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY = 24 * 60
_TEXT = re.compile(
    r"(?:(?P<first>[a-z]{3})(?:-(?P<last>[a-z]{3}))?\s+)?"
    r"(?P<from>\d{1,2}(?::\d\d)?)-(?P<to>\d{1,2}(?::\d\d)?)(?:\s+(?P<zone>[A-Za-z_+/0-9-]+))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hours:
    """From `start` to `end` (minutes after midnight) on `days` (0: Monday), by the clock of `zone`.

    Where `end` is not after `start` the time ends on the next day. `zone` is a name of the IANA time zone database.
    """

    days: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6)
    start: int = 0
    end: int = _DAY
    zone: str = "UTC"

    def include(self, weekday: int, minute: int) -> bool:
        """Say whether a moment, told by the zone's own calendar, is within."""
        if self.start < self.end:
            return weekday in self.days and self.start <= minute < self.end
        late = weekday in self.days and minute >= self.start
        return late or ((weekday - 1) % 7 in self.days and minute < self.end)

    @property
    def text(self) -> str:
        """The hours as `parse` reads them."""
        first, last = DAYS[self.days[0]], DAYS[self.days[-1]]
        days = first if first == last else f"{first}-{last}"
        return f"{days} {_clock(self.start)}-{_clock(self.end)} {self.zone}"


def parse(text: str) -> Hours:
    """Return the hours of `mon-fri 08-19 Asia/Seoul`; days and zone may be left out (all week, UTC)."""
    found = _TEXT.fullmatch(text.strip())
    if not found:
        raise _wrong(text, "write them like: mon-fri 08:00-19:00 Asia/Seoul")
    first = found["first"] or ("mon" if not found["last"] else "")
    last = found["last"] or found["first"] or "sun"
    if first not in DAYS or last not in DAYS:
        raise _wrong(text, f"days are {' '.join(DAYS)}")
    begin, span = DAYS.index(first), (DAYS.index(last) - DAYS.index(first)) % 7
    days = tuple((begin + n) % 7 for n in range(span + 1))
    start, end = _minutes(found["from"], text), _minutes(found["to"], text)
    if start == end or start >= _DAY:
        raise _wrong(text, "they must begin before midnight and end at another time than they begin")
    return Hours(days=days, start=start, end=end, zone=found["zone"] or "UTC")


def _minutes(clock: str, text: str) -> int:
    hours, _, minutes = clock.partition(":")
    value = int(hours) * 60 + int(minutes or 0)
    if int(minutes or 0) > 59 or value > _DAY:
        raise _wrong(text, "a day has 24 hours of 60 minutes")
    return value


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"


def _wrong(text: str, advice: str) -> Invalid:
    return Invalid(f"{text!r} are not weekly hours", hint=advice)
