"""Hours as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.errors import Invalid
from atoll.hours import DAYS, Hours, parse


@pytest.mark.parametrize(
    ("text", "hours"),
    [
        ("mon-fri 08:00-19:00 Asia/Seoul", Hours(days=(0, 1, 2, 3, 4), start=480, end=1140, zone="Asia/Seoul")),
        ("8-19", Hours(start=480, end=1140)),
        ("fri-mon 22-6", Hours(days=(4, 5, 6, 0), start=1320, end=360)),
        ("sat 0-24 Etc/GMT+5", Hours(days=(5,), zone="Etc/GMT+5")),
        (" sun 00:30-01 ", Hours(days=(6,), start=30, end=60)),
    ],
)
def test_hours_are_read(text: str, hours: Hours) -> None:
    assert parse(text) == hours


@pytest.mark.parametrize("text", ["", "mon", "mon-xyz 8-9", "8-8", "24-8", "8:60-9", "8-25", "8-9 Asia/Seoul x", "0-0"])
def test_what_are_no_hours_is_said(text: str) -> None:
    with pytest.raises(Invalid):
        parse(text)


MINUTES = st.integers(0, 1440)
SPANS = st.tuples(st.integers(0, 6), st.integers(1, 7))


@given(SPANS, MINUTES, MINUTES, st.sampled_from(("UTC", "Asia/Seoul", "America/St_Johns", "Etc/GMT+5")))
def test_the_text_reads_back_equal(span: tuple[int, int], start: int, end: int, zone: str) -> None:
    if start == end or start == 1440:
        return
    first, count = span
    hours = Hours(days=tuple((first + n) % 7 for n in range(count)), start=start, end=end, zone=zone)
    assert parse(hours.text) == hours


@given(st.text("mon-fri 0123456789:UTC", max_size=24))
def test_whatever_is_written_is_read_or_refused(text: str) -> None:
    try:
        hours = parse(text)
    except Invalid:
        return
    assert parse(hours.text) == hours


@given(st.integers(0, 6), st.integers(0, 1439), st.integers(0, 1439))
def test_hours_and_the_rest_of_the_week_share_no_minute(weekday: int, start: int, end: int) -> None:
    if start == end:
        return
    day, night = Hours(start=start, end=end), Hours(start=end, end=start)
    for minute in (0, start, end, (start - 1) % 1440, (end - 1) % 1440, 1439):
        assert day.include(weekday, minute) is not night.include(weekday, minute), DAYS[weekday]
