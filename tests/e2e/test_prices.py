"""Prices in a real installation: a signed file becomes the price list, launches record it, and its age shows."""

import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.e2e.installation import Installation

pytestmark = pytest.mark.e2e

SHAPE = "cpu-2"


def document(issued: datetime, price: float) -> str:
    rows = [
        {"shape": SHAPE, "price": price, "cpu": 2, "memory": "4GiB"},
        {"shape": "gpu-l4", "price": 0.0001, "cpu": 4, "gpus": 1, "gpu_model": "L4"},
    ]
    head = {"format": "atoll-prices/1", "issued_at": issued.isoformat(), "source": "bazaar"}
    return json.dumps({**head, "lists": [{"kind": "sim", "region": "", "prices": rows}]})


def sign(place: Path, key: Path) -> None:
    place.with_name(place.name + ".sig").unlink(missing_ok=True)
    subprocess.run(["ssh-keygen", "-Y", "sign", "-q", "-f", str(key), "-n", "atoll-prices", str(place)], check=True)


def keys(folder: Path, fresh: Installation) -> tuple[Path, Path]:
    """Return the operator's key, which the installation trusts, and a stranger's."""
    for name in ("ops", "stranger"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    signers = fresh.home / "keys" / "price_signers"
    signers.write_text(f"ops@example.com {(folder / 'ops.pub').read_text()}")
    return folder / "ops", folder / "stranger"


def test_a_signed_file_is_the_price_list_until_it_is_stale(fresh: Installation, tmp_path: Path) -> None:
    fresh.up()
    ops, stranger = keys(tmp_path, fresh)
    fresh.atoll("provider", "add", "sim", "--set", "boot_s=0.2")
    place = tmp_path / "prices.json"
    place.write_text(document(datetime.now(UTC) - timedelta(days=1), 0.0123))

    sign(place, stranger)
    refused = fresh.call("prices", "import", str(place))
    assert (refused.returncode, "nobody who is trusted" in refused.stderr) == (121, True)
    sign(place, ops)
    text = place.read_text()
    place.write_text(text.replace("0.0123", "0.0001"))
    refused = fresh.call("prices", "import", str(place))
    assert (refused.returncode, "was altered" in refused.stderr) == (121, True)
    assert "PROBLEM" not in fresh.atoll("doctor")
    place.write_text(text)
    assert "sim: 1 prices, 1 dropped; bazaar (signed by ops@example.com)" in fresh.atoll("prices", "import", str(place))
    assert "DROPPED" in fresh.atoll("prices", "show", "sim", "--rejected")

    shapes = {each["target"]: each for each in json.loads(fresh.atoll("provider", "shapes", "sim", "-o", "json"))}
    assert shapes[f"{SHAPE}/sim-a/on-demand"]["price"] == 0.0123
    assert shapes["gpu-l4/sim-a/on-demand"]["price"] == 0.0  # dropped: unknown, although the cloud tells a price
    assert shapes["cpu-1/sim-a/on-demand"]["price"] == 0.024  # not in the list: as the cloud tells

    fresh.atoll("group", "create", "burst", "--provider", "sim", "--shape", SHAPE, "--on-demand")
    fresh.atoll("run", "--group", "burst", "--", "true", timeout=90)
    (instance,) = json.loads(fresh.atoll("get", "instances", "-o", "json"))
    assert instance["price"] == 0.0123
    assert instance["catalogue"].startswith("bazaar (signed by ops@example.com) @")

    older = tmp_path / "older.json"
    older.write_text(document(datetime.now(UTC) - timedelta(days=30), 0.02))
    sign(older, ops)
    refused = fresh.call("prices", "import", str(older))
    assert (refused.returncode, "older than those in place" in refused.stderr) == (123, True)
    fresh.atoll("prices", "import", str(older), "--allow-older")
    told = fresh.call("provider", "shapes", "sim")
    assert "the prices of sim are stale: 30d old; they are used all the same" in told.stderr
    assert "0.0200" in told.stdout
    assert "the prices of sim are stale" in fresh.atoll("doctor", code=125)

    blocking = "kind: provider\nname: sim\ntype: sim\nsettings: {boot_s: 0.2}\nprices: {stale: block}\n"
    assert "provider/sim changed" in fresh.atoll("apply", "-f", "-", stdin=blocking)
    assert "STALE_PRICES" in fresh.atoll("offers", "--group", "burst", "-o", "json")
    assert "older.json" in fresh.atoll("get", "events")

    exported = tmp_path / "exported.json"
    fresh.atoll("prices", "export", str(exported), "--key", str(ops))
    fresh.atoll("prices", "import", str(exported))
