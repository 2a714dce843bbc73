"""The terraform program and providers for it, from this machine or from where its configuration says."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2] / "terraform"
MODULES = sorted(path for path in (ROOT / "modules").iterdir() if path.is_dir())
EXAMPLES = sorted(path for path in (ROOT / "examples").iterdir() if path.is_dir())


class Workspace:
    """A copy of `terraform/` to run terraform in one folder of."""

    def __init__(self, copy: Path, folder: str) -> None:
        shutil.copytree(ROOT, copy)
        self.folder = copy / folder

    def run(self, *args: str, code: int = 0, timeout: float = 300.0) -> str:
        """Run `terraform ARGS`, which must exit with `code`; return what it printed."""
        done = call(*args, folder=self.folder, timeout=timeout)
        assert done.returncode == code, f"terraform {' '.join(args)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def init(self, provider: str) -> None:
        """Make ready with a provider from a folder of this machine, else as terraform finds it itself, or skip."""
        told = [f"-plugin-dir={mirror}" for mirror in mirrors() if (mirror / REGISTRY / provider).is_dir()]
        done = call("init", "-input=false", "-no-color", *told, folder=self.folder, timeout=120)
        if done.returncode:
            where = "in ATOLL_TF_PLUGIN_DIR, terraform's own places and its configured mirrors"
            pytest.skip(f"no terraform provider {provider} {where}")


REGISTRY = "registry.terraform" + ".io"


def call(*args: str, folder: Path, timeout: float = 60.0) -> "subprocess.CompletedProcess[str]":
    """Run terraform in a folder, by the configuration of who runs the tests, without any provider's environment."""
    return subprocess.run(
        [program(), *args],
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def environment() -> Mapping[str, str]:
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "TF_VAR_", "TF_LOG", "TF_CLI_ARGS"))}
    settings = plain.get("TF_CLI_CONFIG_FILE")
    if settings and not Path(settings).exists():
        plain["TF_CLI_CONFIG_FILE"] = os.devnull  # terraform warns of it on standard output, amid its JSON
    quick = {"TF_REGISTRY_DISCOVERY_RETRY": "0", "TF_REGISTRY_CLIENT_TIMEOUT": "3"}
    return {**plain, **quick, "CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1"}


@cache
def program() -> str:
    """Return the path of terraform, or skip."""
    found = shutil.which("terraform")
    if found is None:
        pytest.skip("terraform is not installed")
    return found


def mirrors() -> list[Path]:
    """Return folders that hold providers: ours, and the places where terraform looks by itself."""
    told = os.environ.get("ATOLL_TF_PLUGIN_DIR")
    data = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local/share")
    shared = (os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share").split(":")
    places = [Path.home() / ".terraform.d/plugins", *(Path(each) / "terraform/plugins" for each in (data, *shared))]
    return [place for place in ([Path(told)] if told else []) + places if place.is_dir()]
