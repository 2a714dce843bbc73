"""`atoll provider add --from-terraform`: the forms it reads, and what is told of the others."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from atoll.cli.terraform import read
from atoll.errors import Invalid
from tests.atoll.plane import Plane

VALUE: dict[str, Any] = {
    "name": "burst",
    "type": "aws",
    "settings": {
        "region": "eu-central-1",
        "image": None,
        "credentials": {"access_key_id": "AKIA", "secret_access_key": "hush-hush", "role_arn": None},
    },
}
SAID = {
    "name": "burst",
    "type": "aws",
    "settings": {
        "region": "eu-central-1",
        "credentials": {"access_key_id": "AKIA", "secret_access_key": "hush-hush"},
    },
}
OUTPUTS = {
    "url": {"sensitive": False, "type": "string", "value": "https://x"},
    "atoll_provider": {"sensitive": True, "value": VALUE},
}
STATE = {"version": 4, "terraform_version": "1.11.4", "serial": 3, "outputs": OUTPUTS, "resources": []}
SHOWN = {"format_version": "1.0", "terraform_version": "1.11.4", "values": {"outputs": OUTPUTS, "root_module": {}}}


@pytest.mark.parametrize("form", [VALUE, OUTPUTS, STATE, SHOWN], ids=["one", "all", "state", "show"])
def test_every_form_is_read(form: dict[str, Any]) -> None:
    assert read(json.dumps(form), "p.json") == SAID


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("", "p.json is not JSON", "has `terraform apply` run"),
        ('name = "hush-hush"', "p.json is not JSON", "terraform output -json atoll_provider"),
        ("[]", "no object", "terraform output"),
        ("{}", "no output atoll_provider", "no outputs"),
        (json.dumps({"url": OUTPUTS["url"]}), "no output atoll_provider", "outputs there: url"),
        (json.dumps({"atol_provider": OUTPUTS["atoll_provider"]}), "no output atoll_provider", "atol_provider"),
        (json.dumps({"format_version": "1.0", "planned_values": {}}), "is a plan", "terraform apply"),
        (json.dumps({"format_version": "1.0", "terraform_version": "1.11.4"}), "no output", "has apply run"),
        (json.dumps({"atoll_provider": {"sensitive": True}}), "no value", "redacted"),
        (json.dumps({"atoll_provider": {"value": "(sensitive value)"}}), "no value", "redacted"),
        (json.dumps({"atoll_provider": {"value": {"name": "hush-hush"}}}), "is no provider", "name, type and settings"),
    ],
)
def test_what_cannot_be_read_is_told_without_secrets(text: str, said: str, hint: str) -> None:
    with pytest.raises(Invalid) as caught:
        read(text, "p.json")
    assert said in caught.value.message
    assert hint in caught.value.hint
    assert "hush-hush" not in f"{caught.value!r}{caught.value.hint}{caught.value.__cause__!r}"


def add(*words: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "atoll", "provider", "add", *words],
        capture_output=True, text=True, input=stdin, check=False,
    )  # fmt: skip


def test_a_provider_is_added_as_terraform_made_it(logged_in: Plane, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(json.dumps(OUTPUTS))
    done = add("--from-terraform", str(tmp_path / "p.json"))
    assert (done.returncode, done.stdout) == (0, "provider burst added\n"), done.stderr
    assert logged_in.objects["providers"]["burst"].settings == SAID["settings"]
    assert "hush-hush" not in done.stdout + done.stderr


def test_flags_win_over_the_file(logged_in: Plane) -> None:
    done = add("aws", "--name", "other", "--set", "region=us-east-1", "--from-terraform", "-", stdin=json.dumps(VALUE))
    assert (done.returncode, done.stdout) == (0, "provider other added\n"), done.stderr
    assert logged_in.objects["providers"]["other"].settings["region"] == "us-east-1"


def test_another_kind_than_the_files_is_refused(logged_in: Plane) -> None:
    done = add("gcp", "--from-terraform", "-", stdin=json.dumps(VALUE))
    assert done.returncode == 120, done.stderr
    assert "kind 'aws', not 'gcp'" in done.stderr


def test_neither_kind_nor_file(logged_in: Plane) -> None:
    done = add()
    assert done.returncode == 120
    assert "--from-terraform" in done.stderr
