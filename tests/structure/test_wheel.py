"""The wheel, built offline with what `.venv` holds: exactly our six packages, and every file of them."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.structure.source import PACKAGES, ROOT, name, tracked_files


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_its_top_level_is_our_six_packages(wheel: zipfile.ZipFile) -> None:
    top = {Path(file).parts[0] for file in wheel.namelist()}
    metadata = {part for part in top if part.endswith(".dist-info")}
    assert len(metadata) == 1
    assert top - metadata == set(PACKAGES)


def test_it_holds_every_file_of_them(wheel: zipfile.ZipFile) -> None:
    ours = {name(path) for path in tracked_files() if name(path).split("/")[0] in PACKAGES}
    assert ours - set(wheel.namelist()) == set()
    assert any(file.startswith("federation/web/") and not file.endswith(".py") for file in ours), (
        "pages and their files"
    )
    assert any(file.startswith("federation/store/migrations/") for file in ours), "migrations"


def test_it_says_who_may_use_it_and_how_it_is_called(wheel: zipfile.ZipFile) -> None:
    metadata = next(file for file in wheel.namelist() if file.endswith("METADATA"))
    text = wheel.read(metadata).decode()
    assert "License-Expression: Apache-2.0" in text
    scripts = next(file for file in wheel.namelist() if file.endswith("entry_points.txt"))
    assert "atoll = atoll.cli.main:main" in wheel.read(scripts).decode()
    for extra in ("aws", "gcp", "azure", "openstack", "postgres"):
        assert f"Provides-Extra: {extra}" in text
