"""The operator desk's errors; that it really takes a machine back is shown by the demo."""

from pathlib import Path

import pytest

from providers.sim.__main__ import main


def test_an_unknown_cloud_or_machine_is_told_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none"), "reclaim", "m-1"]) == 125
    assert "hint:" in capsys.readouterr().err
    assert main([str(tmp_path), "reclaim", "m-1"]) in range(120, 126)
    assert "m-1" in capsys.readouterr().err
