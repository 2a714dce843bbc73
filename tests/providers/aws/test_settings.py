from typing import Any

import pytest

from atoll.errors import Invalid
from atoll.slots import GIB
from providers.aws.settings import DEBIAN, LaunchTemplate, parse

KEYS = {"access_key_id": "AKIA", "secret_access_key": "hush"}


def test_a_region_is_enough() -> None:
    settings = parse({"region": "eu-central-1"})
    assert (settings.image, settings.disk, settings.spot, settings.public_ip) == (
        DEBIAN["x86_64"],
        50 * GIB,
        True,
        True,
    )
    assert settings.sells("t3.micro")


def test_everything_that_can_be_said() -> None:
    settings = parse(
        {
            "region": "eu-central-1",
            "zones": ["eu-central-1a"],
            "image": "ami-1",
            "architecture": "arm64",
            "shapes": ["t3.*", "g5.xlarge"],
            "subnets": {"eu-central-1a": "subnet-1"},
            "security_groups": ["sg-1"],
            "instance_profile": "sessions",
            "launch_template": {"name": "base", "version": 3},
            "key_name": "ops",
            "disk": "100GiB",
            "tags": {"team": "ml"},
            "public_ip": False,
            "spot": False,
            "endpoint": "http://127.0.0.1:5000",
            "credentials": {"profile": "work", "role_arn": "arn:aws:iam::1:role/atoll", "external_id": "x"},
        }
    )
    assert settings.sells("t3.nano")
    assert not settings.sells("g5.2xlarge")
    assert settings.launch_template == LaunchTemplate(name="base", version="3")
    assert settings.disk == 100 * GIB


def test_a_launch_template_says_what_the_settings_do_not() -> None:
    settings = parse({"region": "eu-central-1", "launch_template": "lt-1"})
    assert (settings.image, settings.disk) == ("", 0)
    assert settings.launch_template == LaunchTemplate(id="lt-1")


def test_a_list_of_subnets_is_looked_up_later() -> None:
    assert parse({"region": "eu-central-1", "subnets": ["subnet-1"]}).subnet_ids == ("subnet-1",)


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({}, "region is missing"),
        ({"regoin": "eu-central-1"}, "regoin"),
        ({"region": "eu-central-1a"}, "without a zone"),
        ({"region": "eu-central-1", "zone": ["eu-central-1a"]}, "zones"),
        ({"region": "eu-central-1", "zones": ["us-east-1a"]}, "not in region"),
        ({"region": "eu-central-1", "image": "debian"}, "ami-"),
        ({"region": "eu-central-1", "architecture": "i386"}, "x86_64"),
        ({"region": "eu-central-1", "disk": "1MiB"}, "between"),
        ({"region": "eu-central-1", "launch_template": {"version": 1}}, "one of id and name"),
        ({"region": "eu-central-1", "zones": ["eu-central-1b"], "subnets": {"eu-central-1a": "s"}}, "none for zone"),
        ({"region": "eu-central-1", "credentials": {"access_key_id": "AKIA"}}, "both"),
        ({"region": "eu-central-1", "credentials": {"external_id": "x"}}, "role_arn"),
        ({"region": "eu-central-1", "credentials": {"profile": "p", **KEYS}}, "keys and a profile"),
    ],
)
def test_what_is_refused(document: dict[str, Any], says: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse(document)
    assert says in f"{caught.value} {caught.value.hint}"


def test_secrets_are_not_shown() -> None:
    keys = {**KEYS, "session_token": "hush"}
    assert "hush" not in repr(parse({"region": "eu-central-1", "credentials": keys}))


def test_other_names_of_architectures() -> None:
    settings = parse({"region": "eu-central-1", "architecture": "aarch64"})
    assert (settings.architecture, settings.image) == ("arm64", DEBIAN["arm64"])
