"""Files, logs, clock and chance of this machine."""

import logging
from pathlib import Path

import pytest

from atoll.errors import Refused
from atoll.host.files import write_private
from atoll.host.logging import mask_secrets
from atoll.host.system import SystemChance, SystemClock


def test_a_private_file_is_whole_and_private(tmp_path: Path) -> None:
    place = tmp_path / "new" / "secret.json"
    for text in ("one", "two"):
        write_private(place, text)
        assert place.read_text() == text
    assert place.stat().st_mode & 0o777 == 0o600
    assert place.parent.stat().st_mode & 0o777 == 0o700
    assert list(place.parent.iterdir()) == [place]


def test_what_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Refused, match="cannot write") as caught:
        write_private(tmp_path / "file" / "x", "y")
    assert "ATOLL_HOME" in caught.value.hint


def test_secrets_are_masked_in_logs() -> None:
    entry = mask_secrets(logging.getLogger(), "info", {"event": "token made", "join_token": "atj_x", "name": "n"})
    assert entry == {"event": "token made", "join_token": "***", "name": "n"}


def test_clock_and_chance() -> None:
    clock, chance = SystemClock(), SystemChance()
    assert clock.now() > 1.7e9
    assert clock.monotonic() <= clock.monotonic()
    assert len({chance.token_bytes(16) for _ in range(50)}) == 50
    assert all(2 <= chance.uniform(2, 3) <= 3 for _ in range(50))
