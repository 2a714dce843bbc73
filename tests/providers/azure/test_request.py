"""The bodies Azure is sent: names, tags, what goes with the machine, and a login that lets nobody in."""

import base64
from dataclasses import replace
from typing import Any

import pytest
from azure.mgmt.compute.models import VirtualMachine
from azure.mgmt.network.models import NetworkInterface, PublicIPAddress

from atoll.instance import Shape
from atoll.slots import GIB, Gpu, Slots
from providers.azure import request
from providers.azure.settings import Settings, parse
from providers.errors import BadRequest
from providers.port import INTENT_TAG, OWNER_TAG, PRINT_TAG, Intent
from tests.clouds.azure import schema
from tests.clouds.azure.arm import checked_tags
from tests.clouds.azure.rules import checked_machine

DOCUMENT: dict[str, object] = {
    "subscription": "11111111-2222-4333-8444-555555555555",
    "resource_group": "burst",
    "region": "westeurope",
    "vnet": "net",
    "subnet": "machines",
}
SHAPE = Shape(provider="p", name="Standard_D2s_v5", zone="westeurope-2", slots=Slots(2000, 8 * GIB), price=1)


def settings(**more: object) -> Settings:
    return parse({**DOCUMENT, **more})


def intent(shape: Shape = SHAPE, **more: Any) -> Intent:
    return Intent(id="i-1", owner="inst-1", shape=shape, user_data="#!/bin/sh\necho hé\n", **more)


def machine(given: Intent, chosen: Settings) -> dict[str, Any]:
    return request.machine(given, chosen, request.tags(given, chosen, 5.0), "/card")


def test_all_bodies_fit_azure_models_and_rules() -> None:
    chosen = settings(security_group="/subscriptions/s/g")
    for given in (intent(), intent(replace(SHAPE, spot=True)), intent(replace(SHAPE, zone="westeurope"))):
        body = machine(given, chosen)
        schema.check(VirtualMachine, body)
        checked_machine(given.name, body)
    labels = request.tags(intent(), chosen, 5.0)
    schema.check(NetworkInterface, request.network_card(chosen, labels, "/address"))
    schema.check(PublicIPAddress, request.public_address(chosen, labels))


def test_everything_a_machine_brings_goes_with_it() -> None:
    body = machine(intent(), settings())["properties"]
    (card,) = body["networkProfile"]["networkInterfaces"]
    assert card["properties"]["deleteOption"] == "Delete"
    assert body["storageProfile"]["osDisk"]["deleteOption"] == "Delete"
    assert body["storageProfile"]["osDisk"]["name"] == f"{intent().name}-os"
    placed = request.network_card(settings(), {}, "/address")["properties"]["ipConfigurations"][0]["properties"]
    assert placed["publicIPAddress"] == {"id": "/address", "properties": {"deleteOption": "Delete"}}
    assert request.public_address(settings(), {})["properties"]["deleteOption"] == "Delete"


def test_spot_is_deleted_when_taken_back_and_never_priced_out() -> None:
    body = machine(intent(replace(SHAPE, spot=True)), settings())["properties"]
    assert (body["priority"], body["evictionPolicy"], body["billingProfile"]) == ("Spot", "Delete", {"maxPrice": -1})
    assert "priority" not in machine(intent(), settings())["properties"]


def test_a_zone_is_given_by_its_number_and_a_region_without_zones_by_none() -> None:
    assert machine(intent(), settings())["zones"] == ["2"]
    assert "zones" not in machine(intent(replace(SHAPE, zone="westeurope")), settings())


def test_user_data_travels_as_custom_data_of_at_most_64_kib() -> None:
    sent = machine(intent(), settings())["properties"]["osProfile"]["customData"]
    assert base64.b64decode(sent).decode() == intent().user_data
    request.checked(replace(intent(), user_data="#" * 65535))
    with pytest.raises(BadRequest, match="65535"):
        request.checked(replace(intent(), user_data="é" * 40_000))


def test_trusted_launch_goes_with_the_images_generation_and_without_secure_boot_on_gpus() -> None:
    plain = machine(intent(), settings())["properties"]["securityProfile"]
    assert plain["uefiSettings"] == {"vTpmEnabled": True, "secureBootEnabled": True}
    devices = replace(SHAPE, slots=Slots(4000, GIB, gpu=(Gpu("T4", 1000, 16 * GIB),)))
    uefi = machine(intent(devices), settings())["properties"]["securityProfile"]["uefiSettings"]
    assert uefi == {"vTpmEnabled": True, "secureBootEnabled": False}
    assert "securityProfile" not in machine(intent(), settings(image="Debian:debian-12:12:latest"))["properties"]


def test_an_image_is_a_urn_or_an_id() -> None:
    def reference(image: str) -> object:
        return machine(intent(), settings(image=image))["properties"]["storageProfile"]["imageReference"]

    assert reference("a:b:c:1") == {"publisher": "a", "offer": "b", "sku": "c", "version": "1"}
    assert reference("/subscriptions/x") == {"id": "/subscriptions/x"}


def test_without_a_key_the_login_is_one_nobody_can_use_and_always_the_same() -> None:
    def key(given: Intent, **more: object) -> str:
        linux = machine(given, settings(**more))["properties"]["osProfile"]["linuxConfiguration"]
        assert linux["disablePasswordAuthentication"] is True
        return str(linux["ssh"]["publicKeys"][0]["keyData"])

    assert key(intent()) == key(intent())
    assert key(intent()).startswith("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI")
    assert key(intent()) != key(replace(intent(), id="i-2"))
    assert key(intent(), ssh_public_key="ssh-rsa AAAA me") == "ssh-rsa AAAA me"


def test_tags_keep_to_azures_rules_and_ours_win() -> None:
    given = intent(tags={"cost/<centre>?": "4" * 300, OWNER_TAG: "me", **{f"t{n}": "x" for n in range(60)}})
    made = request.tags(given, settings(tags={"team": "vision"}), 1234.9)
    checked_tags(made)
    assert len(made) == 50
    assert made["cost--centre--"] == "4" * 256
    assert (made[OWNER_TAG], made[INTENT_TAG], made[PRINT_TAG]) == ("inst-1", "i-1", given.fingerprint)
    assert (made["team"], made[request.CREATED_TAG]) == ("vision", "1234")
