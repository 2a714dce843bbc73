import base64
from dataclasses import replace
from typing import Any

import pytest

from atoll.instance import Shape
from atoll.slots import GIB, Slots
from providers.errors import BadRequest
from providers.openstack.request import Ground, create_server, owner_tag
from providers.openstack.settings import Settings
from providers.port import Intent

GROUND = Ground(version="2.67", image="img", networks=("net",), flavors={"m1": "f1"})
SHAPE = Shape(provider="p", name="m1", zone="a", slots=Slots(1000, GIB), price=1)
INTENT = Intent(id="i-1", owner="us", shape=SHAPE, user_data="#!/bin/sh\n", tags={"team/x": "n" * 300})
SETTINGS = Settings(image="debian", security_groups=("sg",), key_name="k", tags={"cost": "7"})


def made(settings: Settings = SETTINGS, ground: Ground = GROUND) -> dict[str, Any]:
    server: dict[str, Any] = create_server(INTENT, settings, ground)["server"]
    return server


def test_the_request() -> None:
    server = made()
    assert base64.b64decode(server.pop("user_data")) == b"#!/bin/sh\n"
    assert server == {
        "name": INTENT.name,
        "flavorRef": "f1",
        "imageRef": "img",
        "availability_zone": "a",
        "networks": [{"uuid": "net"}],
        "security_groups": [{"name": "sg"}],
        "key_name": "k",
        "tags": ["atoll-owner=us"],
        "metadata": {
            "cost": "7",
            "team-x": "n" * 255,
            "atoll-owner": "us",
            "atoll-intent": "i-1",
            "atoll-fingerprint": INTENT.fingerprint,
            "atoll-shape": "m1",
        },
    }


def test_labels_never_overrule_ours() -> None:
    server = create_server(replace(INTENT, tags={"atoll-owner": "them"}), SETTINGS, GROUND)["server"]
    assert server["metadata"]["atoll-owner"] == "us"


def test_a_volume_to_boot_from_goes_with_its_server() -> None:
    server = made(replace(SETTINGS, disk=50 * GIB + 1, volume_type="ssd"))
    assert "imageRef" not in server
    (volume,) = server["block_device_mapping_v2"]
    assert (volume["volume_size"], volume["volume_type"], volume["delete_on_termination"]) == (51, "ssd", True)


def test_an_older_compute_gets_what_it_knows() -> None:
    server = made(ground=replace(GROUND, version="2.1", networks=()))
    assert "tags" not in server
    assert "networks" not in server
    assert made(ground=replace(GROUND, networks=()))["networks"] == "auto"


@pytest.mark.parametrize(
    "intent",
    [
        replace(INTENT, shape=replace(SHAPE, name="m2")),
        replace(INTENT, shape=replace(SHAPE, spot=True)),
        replace(INTENT, user_data="x" * 49_200),
    ],
)
def test_what_cannot_be_asked_for(intent: Intent) -> None:
    with pytest.raises(BadRequest):
        create_server(intent, SETTINGS, GROUND)


def test_an_owner_tag_is_one_nova_takes() -> None:
    assert owner_tag("a/b,c") == "atoll-owner=a-b-c"
    assert len(owner_tag("x" * 200)) == 60
