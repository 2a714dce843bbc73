"""The registry knows drivers by kind and loads only the one that is used."""

import subprocess
import sys
from pathlib import Path

import pytest

from atoll.errors import Invalid
from atoll.group import Provider
from atoll.host.system import SystemClock
from providers.registry import DriverContext, kinds, make
from providers.sim.driver import Sim
from tests.fakes.launch import Launcher


def context(directory: Path) -> DriverContext:
    return DriverContext(directory=directory, launch=Launcher(), clock=SystemClock())


def test_makes_a_sim(tmp_path: Path) -> None:
    assert isinstance(make(Provider(name="p", kind="sim"), context(tmp_path)), Sim)
    assert "sim" in kinds()


def test_unknown_kind_is_told_what_was_meant(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="kind 'simm'") as caught:
        make(Provider(name="p", kind="simm"), context(tmp_path))
    assert caught.value.hint == "did you mean 'sim'?"


def test_registry_alone_loads_no_driver() -> None:
    code = "import sys, providers.registry; print([m for m in sys.modules if m.startswith('providers.sim')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
