from typing import Any

import pytest

from atoll.errors import Invalid
from atoll.slots import GIB
from providers.openstack.settings import parse

KEY = {
    "auth_url": "https://cloud.example:5000/v3",
    "application_credential_id": "id",
    "application_credential_secret": "atj_secret",
}


def test_settings() -> None:
    found = parse({"image": "debian-12", "network": "private", "disk": "50GiB", "shapes": "m1.*", "credentials": KEY})
    assert (found.image, found.network, found.disk) == ("debian-12", ("private",), 50 * GIB)
    assert found.sells("m1.small")
    assert not found.sells("g1.a100")
    assert "atj_secret" not in repr(found)


def test_an_entry_of_clouds_yaml_is_enough() -> None:
    assert parse({"image": "x", "cloud": "ours"}).cloud == "ours"


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"cloud": "ours"}, "image is missing"),
        ({"image": "x"}, "credentials is missing"),
        ({"image": "x", "cloud": "c", "netwrok": "n"}, "unknown key 'netwrok'"),
        ({"image": "x", "credentials": {"application_credential_id": "i"}}, "auth_url is missing"),
        ({"image": "x", "credentials": {"auth_url": "u", "username": "n"}}, "application_credential_secret is missing"),
        (
            {"image": "x", "credentials": {**KEY, "application_credential_id": ""}},
            "application_credential_id is missing",
        ),
        ({"image": "x", "cloud": "c", "volume_type": "ssd"}, "volume_type needs disk"),
        ({"image": "x", "cloud": "c", "microversion": "latest"}, "no microversion"),
        ({"image": "x", "cloud": "c", "spot": True}, "spot cannot be true"),
        ({"image": "x", "cloud": "c", "interface": "pubic"}, "cannot be 'pubic'"),
    ],
)
def test_what_is_wrong_is_named(document: dict[str, Any], said: str) -> None:
    with pytest.raises(Invalid, match=said):
        parse(document)
