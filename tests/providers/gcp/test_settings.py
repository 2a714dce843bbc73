"""A `gcp` provider's settings: what is taken, and what each mistake is told."""

from typing import Any

import pytest

from atoll.errors import Invalid
from atoll.slots import GIB
from providers.gcp.settings import COMPUTE, IMAGE, parse

KEY = {"type": "service_account", "client_email": "a@b.iam", "private_key": "-----SECRET-----", "token_uri": "x"}


def test_little_is_needed() -> None:
    settings = parse({"project": "p", "region": "us-central1"})
    assert (settings.region, settings.zones, settings.image) == ("us-central1", (), IMAGE)
    assert (settings.endpoint, settings.spot, settings.public_ip, settings.disk) == (COMPUTE, True, True, 50 * GIB)
    assert settings.service_account == ""


def test_zones_name_their_region() -> None:
    settings = parse({"project": "p", "zones": ["europe-west4-a", "europe-west4-c"]})
    assert (settings.region, settings.zones) == ("europe-west4", ("europe-west4-a", "europe-west4-c"))


def test_names_of_networks_become_paths() -> None:
    settings = parse({"project": "p", "region": "us-east1", "network": "n", "subnetwork": "s"})
    assert settings.network == "global/networks/n"
    assert settings.subnetwork == "regions/us-east1/subnetworks/s"
    shared = "projects/host/regions/us-east1/subnetworks/s"
    assert parse({"project": "p", "region": "us-east1", "subnetwork": shared}).subnetwork == shared


def test_an_image_may_be_a_whole_url() -> None:
    url = "https://www.googleapis.com/compute/v1/projects/mine/global/images/trained-arm64-3"
    settings = parse({"project": "p", "region": "us-east1", "image": url})
    assert settings.image == "projects/mine/global/images/trained-arm64-3"
    assert settings.architecture == "ARM64"


def test_a_key_is_taken_and_never_shown() -> None:
    settings = parse({"project": "p", "region": "us-east1", "credentials": KEY})
    assert settings.sign_in.key["client_email"] == "a@b.iam"
    assert "SECRET" not in repr(settings)


@pytest.mark.parametrize(
    ("wrong", "said", "hint"),
    [
        ({"project": ""}, "project is missing", "project's id"),
        ({"region": "", "zones": []}, "region is missing", "us-central1"),
        ({"zones": ["us-east1-b", "us-west1-a"]}, "not all of one region", "a provider for each"),
        ({"zones": ["here"]}, "'here' is no zone", "us-central1-a"),
        ({"zones": ["us-west1-a"]}, "not all of one region", "a provider for each"),
        ({"region": "US"}, "region cannot be 'US'", "us-central1"),
        ({"image": "debian-12"}, "no path of an image", IMAGE),
        ({"disk": "5GiB"}, "disk is too small", "10GiB"),
        ({"scopes": ["x"]}, "scopes needs a service_account", "no service account"),
        ({"endpoint": "compute.local"}, "must begin with https://", COMPUTE),
        ({"proyect": "p"}, "unknown key 'proyect'", "project"),
        ({"credentials": {"fil": "x"}}, "unknown key 'fil'", "file"),
        ({"credentials": {"file": "x", "anonymous": True}}, "both file and anonymous", "one"),
        ({"credentials": {"private_key": "x", "type": "user"}}, "not a service account's key", "JSON"),
    ],
)
def test_each_mistake_is_told(wrong: dict[str, Any], said: str, hint: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse({"project": "p", "region": "us-east1", **wrong})
    assert said in caught.value.message
    assert hint in caught.value.hint
