"""A request names its key only when that key signed it."""

import base64
from pathlib import Path

import pytest

from atoll.errors import Invalid
from tunnel.certificates import key_of
from tunnel.identity import make_key_and_csr


def test_one_key_has_one_name_over_all_its_requests(tmp_path: Path) -> None:
    first, again, other = (make_key_and_csr(tmp_path / name) for name in ("a", "a", "b"))
    assert key_of(first) == key_of(again) != key_of(other)
    assert len(key_of(first)) == 64


@pytest.mark.parametrize(
    "text", ["", "x", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"]
)
def test_what_is_no_request_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match="cannot be read"):
        key_of(text)


def test_a_request_that_another_key_signed_is_refused(tmp_path: Path) -> None:
    body = base64.b64decode("".join(make_key_and_csr(tmp_path / "a").splitlines()[1:-1]))
    forged = base64.b64encode(body[:-4] + bytes(4)).decode()
    with pytest.raises(Invalid):
        key_of(f"-----BEGIN CERTIFICATE REQUEST-----\n{forged}\n-----END CERTIFICATE REQUEST-----\n")
