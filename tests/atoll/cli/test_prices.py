"""`atoll prices` against a small server: what it sends, prints and exits with."""

import json
import subprocess
from pathlib import Path

import pytest

from atoll.cli.main import main
from tests.atoll.plane import Plane, standing

Capture = pytest.CaptureFixture[str]


def test_show_has_an_overview_rows_and_what_was_rejected(logged_in: Plane, capsys: Capture) -> None:
    logged_in.prices = {"aws": standing(), "sim": standing("sim", at=None, age_s=None, live=False, count=0)}
    assert main(["prices", "show"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["PROVIDER", "SOURCE", "PRICES", "DROPPED", "AGE", "STALE", "LIVE", "FAILURE"]
    assert lines[1].split() == ["aws", "a", "list", "2", "1", "2h", "no", "yes", "-"]
    assert main(["prices", "show", "aws"]) == 0
    told = capsys.readouterr().out
    assert "m5.large   all   on-demand  2    -     0.1000    0.0900" in told
    assert "1xL4  0.4000    unknown" in told
    assert main(["prices", "show", "--shape", "m5*"]) == 0
    assert {"aws:", "sim:"} <= set(capsys.readouterr().out.splitlines())
    assert main(["prices", "show", "aws", "--rejected"]) == 0
    assert "DROPPED  is zero or negative" in capsys.readouterr().out
    assert main(["prices", "show", "aws", "--age"]) == 0
    assert "2h" in capsys.readouterr().out
    assert main(["prices", "show", "aws", "--shape", "m5*", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"][0]["shape"] == "m5.large"
    assert logged_in.queries[-1] == {"shape": "m5*"}


def test_stale_prices_are_said_wherever_prices_are_shown(logged_in: Plane, capsys: Capture) -> None:
    logged_in.prices = {"sim": standing("sim", stale=True, blocks=True, age_s=9 * 86400.0)}
    for line in ("prices show", "prices show sim", "provider shapes sim"):
        assert main(line.split()) == 0
        assert "the prices of sim are stale: 9d old; nothing is launched at them" in capsys.readouterr().err
    main(["doctor"])
    assert "the prices of sim are stale" in capsys.readouterr().out
    logged_in.prices = {"sim": standing("sim", failure="may not read prices")}
    main(["doctor"])
    assert "the live prices of sim fail: may not read prices" in capsys.readouterr().out


def test_update_reads_all_live_lists_and_fails_when_one_does(logged_in: Plane, capsys: Capture) -> None:
    logged_in.prices = {"aws": standing(), "gone": standing("gone"), "sim": standing("sim", live=False)}
    logged_in.failing = {"gone"}
    assert main(["prices", "update"]) == 124
    told = capsys.readouterr()
    assert "aws: 2 prices, 1 dropped; a list, 2h old" in told.out
    assert "reading the prices of aws" in told.err
    assert "error: the price list does not answer" in told.err
    assert logged_in.bodies == [{"accept_jumps": False}, {"accept_jumps": False}]
    assert main(["prices", "update", "aws", "--accept-jumps"]) == 0
    assert logged_in.bodies[-1] == {"accept_jumps": True}
    logged_in.prices = {"sim": standing("sim", live=False)}
    assert main(["prices", "update"]) == 120
    assert "no provider has a live list" in capsys.readouterr().err


def test_import_sends_the_file_and_the_signature_beside_it(logged_in: Plane, tmp_path: Path, capsys: Capture) -> None:
    logged_in.prices = {"aws": standing()}
    place = tmp_path / "p.json"
    assert main(["prices", "import", str(place)]) == 120
    assert "no such file" in capsys.readouterr().err
    place.write_text("prices")
    (tmp_path / "p.json.sig").write_text("signature")
    assert main(["prices", "import", str(place), "--provider", "aws"]) == 0
    sent = logged_in.bodies[-1]
    assert (sent["name"], sent["content"], sent["signature"], sent["provider"]) == (
        "p.json",
        "prices",
        "signature",
        "aws",
    )
    assert sent["dated"] == place.stat().st_mtime
    assert main(["prices", "import", str(place), "--unsigned", "--allow-older", "--accept-jumps"]) == 0
    sent = logged_in.bodies[-1]
    assert (sent["signature"], sent["unsigned"], sent["allow_older"], sent["accept_jumps"]) == ("", True, True, True)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    assert main(["prices", "import", str(tmp_path / "bytes")]) == 120
    assert "is not text" in capsys.readouterr().err


def test_export_writes_and_signs(logged_in: Plane, tmp_path: Path, capsys: Capture) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    place = tmp_path / "p.json"
    assert main(["prices", "export", str(place), "--key", str(key), "--provider", "aws"]) == 0
    assert place.read_text() == "the prices of aws"
    assert (tmp_path / "p.json.sig").read_text().startswith("-----BEGIN SSH SIGNATURE-----")
    assert main(["prices", "export", "-"]) == 0
    assert capsys.readouterr().out.endswith("the prices of all")
    assert main(["prices", "export", "-", "--key", str(key)]) == 120
    assert main(["prices", "export", str(tmp_path / "none" / "x")]) == 125
