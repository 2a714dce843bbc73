"""Weekly hours against the calendar, with clocks that are put forward and back."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.errors import Invalid
from atoll.group import Group, HotTime, Pools
from atoll.hours import Hours, parse
from federation.control.hours import check_zone, hot_count, next_change, open_now
from tests.federation.control.ring import ring

VIRTUAL_TIME = True

OFFICE = (parse("mon-fri 08-19 Asia/Seoul"),)
NIGHT = (parse("22:00-06:00 Europe/Berlin"),)


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def told(moment: float | None) -> str:
    assert moment is not None
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M")


@pytest.mark.parametrize(
    ("now", "open_"),
    [
        ("2026-03-01 22:59", False),  # Monday 07:59 in Seoul
        ("2026-03-01 23:00", True),
        ("2026-03-02 09:59", True),
        ("2026-03-02 10:00", False),
        ("2026-03-06 23:30", False),  # Saturday morning there, still Friday in UTC
    ],
)
def test_the_zone_decides_on_day_and_hour(now: str, open_: bool) -> None:
    assert open_now(OFFICE, at(now)) is open_


def test_the_next_change_skips_the_weekend() -> None:
    assert told(next_change(OFFICE, at("2026-03-02 00:00"))) == "2026-03-02 10:00"
    assert told(next_change(OFFICE, at("2026-03-06 10:00"))) == "2026-03-08 23:00"


def test_no_hours_and_all_hours_never_change() -> None:
    assert open_now((), 0.0)
    assert next_change((), 0.0) is None
    assert next_change((parse("0-24"),), at("2026-03-02 00:00")) is None
    both = (parse("00:00-12:00"), parse("12:00-24:00"))
    assert next_change(both, at("2026-03-02 00:00")) is None, "one takes over from the other"


def test_a_night_ends_on_the_next_day_also_when_the_clock_is_changed() -> None:
    assert told(next_change(NIGHT, at("2026-01-10 21:00"))) == "2026-01-11 05:00"
    assert told(next_change(NIGHT, at("2026-03-28 21:00"))) == "2026-03-29 04:00", "7 hours: put forward at 01:00 UTC"
    assert told(next_change(NIGHT, at("2026-10-24 20:00"))) == "2026-10-25 05:00", "9 hours: put back at 01:00 UTC"
    monday = (parse("mon 22-06 Europe/Berlin"),)
    assert open_now(monday, at("2026-03-03 04:59"))
    assert not open_now(monday, at("2026-03-03 05:00"))
    assert not open_now(monday, at("2026-03-03 21:30"))


def test_hours_that_the_clock_skips_begin_or_are_left_out() -> None:
    skipped = (parse("02:15-02:45 Europe/Berlin"),)
    assert told(next_change(skipped, at("2026-03-28 02:00"))) == "2026-03-30 00:15", "29 March has no such time"
    partly = (parse("02:15-05:00 Europe/Berlin"),)
    assert told(next_change(partly, at("2026-03-28 12:00"))) == "2026-03-29 01:00", "the clock goes to 03:00"
    sundays = (parse("sun 02:15-02:45 Europe/Berlin"),)
    assert told(next_change(sundays, at("2026-03-22 02:00"))) == "2026-04-05 00:15"


def test_hours_that_the_clock_shows_twice_hold_twice() -> None:
    twice, changes = (parse("02:15-02:45 Europe/Berlin"),), []
    moment = at("2026-10-24 12:00")
    for _ in range(4):
        found = next_change(twice, moment)
        changes.append(told(found))
        moment = found or 0.0
    assert changes == ["2026-10-25 00:15", "2026-10-25 00:45", "2026-10-25 01:15", "2026-10-25 01:45"]


HOURS = st.builds(
    lambda first, span, start, length, zone: Hours(
        days=tuple((first + n) % 7 for n in range(span)),
        start=start,
        end=(start + length) % 1440 or 1440,
        zone=zone,
    ),
    st.integers(0, 6),
    st.integers(1, 7),
    st.integers(0, 1438),
    st.integers(1, 1439),
    st.sampled_from(("UTC", "Asia/Seoul", "Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe")),
)


@settings(max_examples=60)
@given(st.lists(HOURS, min_size=1, max_size=2), st.integers(0, 365 * 24 * 60))
def test_the_next_change_is_the_first_minute_that_differs(hours: list[Hours], minutes: int) -> None:
    now = at("2026-01-01 00:00") + minutes * 60.0
    before = open_now(hours, now)
    scanned = (now + n * 60.0 for n in range(1, 3 * 1440))
    first = next((moment for moment in scanned if open_now(hours, moment) is not before), None)
    found = next_change(hours, now)
    if first is not None:
        assert found == first
    else:
        assert found is None or found >= now + 3 * 86400.0


@pytest.mark.parametrize("name", ["Asia/Soul", "America", "../../etc/passwd", "", "/etc/localtime", "Mars/Base"])
def test_an_unknown_zone_is_invalid(name: str) -> None:
    with pytest.raises(Invalid):
        check_zone(name)


def test_a_misspelt_zone_has_a_hint() -> None:
    with pytest.raises(Invalid) as caught:
        check_zone("Asia/Soul")
    assert "Asia/Seoul" in caught.value.hint


def test_the_hot_pool_follows_the_first_hot_time_that_holds() -> None:
    times = (HotTime(hours=OFFICE[0], count=4), HotTime(hours=parse("sat-sun 0-24 Asia/Seoul"), count=0))
    group = Group(name="g", site="s", pools=Pools(hot_count=1, hot_times=times))
    assert hot_count(group, at("2026-03-02 01:00")) == 4
    assert hot_count(group, at("2026-03-02 12:00")) == 1
    assert hot_count(group, at("2026-03-07 01:00")) == 0


@pytest.mark.parametrize(
    "group",
    [
        Group(name="g", site="s", hours=(parse("08-19 Asia/Soul"),)),
        Group(name="g", site="s", pools=Pools(hot_times=(HotTime(hours=parse("08-19 Asia/Soul"), count=1),))),
    ],
)
async def test_a_group_with_an_unknown_zone_is_refused(group: Group) -> None:
    async with ring() as r:
        with pytest.raises(Invalid, match="no time zone 'Asia/Soul'") as caught:
            await r.control.groups.create(group)
        assert "Asia/Seoul" in caught.value.hint
        assert await r.control.groups.list() == []
        known = replace(group, hours=(parse("08-19 Asia/Seoul"),), pools=Pools())
        assert (await r.control.groups.create(known)).hours == known.hours
        with pytest.raises(Invalid):
            await r.control.groups.apply(group)
