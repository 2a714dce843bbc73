"""Join tokens: round trip, and one clear refusal for whatever is not one."""

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.errors import Invalid
from tunnel.jointoken import JoinToken, token_hash

PIN = hashlib.sha256(b"ca").hexdigest()
TOKEN = JoinToken("https://atoll.example.org:8700", PIN, "s3cret-part_of")


@given(st.text(min_size=1, max_size=40), st.binary(min_size=32, max_size=32), st.text(max_size=50))
def test_round_trip(url: str, pin: bytes, secret: str) -> None:
    token = JoinToken(url, pin.hex(), secret)
    assert JoinToken.parse(f" {token.text()}\n") == token
    assert re.fullmatch(r"atj_[A-Za-z0-9_-]+", token.text())


@given(st.data())
def test_a_damaged_token_is_refused(data: st.DataObject) -> None:
    text = TOKEN.text()
    at = data.draw(st.integers(4, len(text) - 1))
    kind = data.draw(st.sampled_from(["cut", "drop", "change"]))
    if kind == "cut":
        damaged = text[:at]
    elif kind == "drop":
        damaged = text[:at] + text[at + 1 :]
    else:
        damaged = text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]
    try:
        # The last character carries unused bits: another spelling of the same bytes is no damage.
        assert JoinToken.parse(damaged) == TOKEN
    except Invalid as error:
        assert error.hint  # noqa: PT017
        assert "s3cret" not in error.message  # noqa: PT017


@pytest.mark.parametrize("text", ["", "atk_abc", "atj_", "atj_!!!", "atj_é", "atj_QUJD", "https://x"])
def test_what_is_no_token(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        JoinToken.parse(text)
    assert caught.value.hint


def test_the_secret_is_not_shown() -> None:
    assert "s3cret" not in repr(TOKEN)
    assert token_hash("abc") == hashlib.sha256(b"abc").hexdigest()
