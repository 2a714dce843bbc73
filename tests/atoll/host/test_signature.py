"""Signatures by the real `ssh-keygen`."""

import subprocess
from pathlib import Path

import pytest

from atoll.errors import Forbidden, Invalid, Refused
from atoll.host.signature import sign, verify

SPACE = "atoll-test"


def key(folder: Path, name: str) -> Path:
    place = folder / name
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(place)], check=True)
    return place


def trusting(folder: Path, *keys: Path) -> Path:
    signers = folder / "signers"
    signers.write_text("".join(f"{k.name}@example.com {k.with_suffix('.pub').read_text()}" for k in keys))
    return signers


def test_who_signed_is_told(tmp_path: Path) -> None:
    ops, other = key(tmp_path, "ops"), key(tmp_path, "other")
    signature = sign(b"prices", ops, SPACE)
    assert verify(b"prices", signature, trusting(tmp_path, other, ops), SPACE) == "ops@example.com"


@pytest.mark.parametrize("content", [b"pricez", b"prices\n", b""])
def test_altered_content_is_refused(tmp_path: Path, content: bytes) -> None:
    ops = key(tmp_path, "ops")
    signature = sign(b"prices", ops, SPACE)
    with pytest.raises(Forbidden, match="the content was altered"):
        verify(content, signature, trusting(tmp_path, ops), SPACE)


def test_a_stranger_another_purpose_and_nonsense_are_refused(tmp_path: Path) -> None:
    ops, stranger = key(tmp_path, "ops"), key(tmp_path, "stranger")
    signers = trusting(tmp_path, ops)
    with pytest.raises(Forbidden, match="nobody who is trusted") as caught:
        verify(b"prices", sign(b"prices", stranger, SPACE), signers, SPACE)
    assert str(signers) in caught.value.hint
    with pytest.raises(Forbidden, match="signed for another purpose"):
        verify(b"prices", sign(b"prices", ops, "file"), signers, SPACE)
    with pytest.raises(Forbidden):
        verify(b"prices", "no signature", signers, SPACE)
    with pytest.raises(Forbidden, match="no signers are trusted here"):
        verify(b"prices", sign(b"prices", ops, SPACE), tmp_path / "none", SPACE)


def test_a_key_that_is_none_cannot_sign(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="there is no key"):
        sign(b"prices", tmp_path / "none", SPACE)
    (tmp_path / "text").write_text("text")
    (tmp_path / "text").chmod(0o600)
    with pytest.raises(Invalid, match="cannot sign"):
        sign(b"prices", tmp_path / "text", SPACE)


def test_without_openssh_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ops = key(tmp_path, "ops")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Refused, match="ssh-keygen is not installed"):
        sign(b"prices", ops, SPACE)
