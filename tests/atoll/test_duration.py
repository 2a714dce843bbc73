"""Durations: reading what people write, and writing what is read back equal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll import duration
from atoll.errors import Invalid


@given(st.one_of(st.integers(0, 10**9).map(float), st.floats(0, 1e9)))
def test_text_reads_back_equal(seconds: float) -> None:
    assert duration.parse(duration.text(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("1h30m", 5400), ("250ms", 0.25), ("45", 45), ("1.5d", 129600)]
)
def test_people_write(text: str, seconds: float) -> None:
    assert duration.parse(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1s", "1y", "10 m x", "nan", "inf", "1h-30m"])
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="not a duration"):
        duration.parse(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.44, "0.4s"), (12, "12s"), (200, "3m20s"), (7200, "2h"), (187200, "2d4h")]
)
def test_rough(seconds: float, text: str) -> None:
    assert duration.rough(seconds) == text
