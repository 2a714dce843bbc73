"""From an intent to an instance's resource, its labels and metadata, and back."""

import json
import uuid
from dataclasses import replace
from typing import Any

import pytest

from atoll.instance import Shape
from atoll.slots import Slots
from providers.errors import BadRequest
from providers.gcp.labels import WHOLE_TAGS, label_key, label_value, owned, read
from providers.gcp.machines import fingerprint, is_owned, machine, place
from providers.gcp.request import SCRIPT, instance, request_id
from providers.gcp.settings import parse
from providers.port import INTENT_TAG, OWNER_TAG, PRINT_TAG, Intent, MachineState

PLAIN = {"project": "p", "zones": ["us-central1-a"]}


def intent(shape: str = "e2-medium", *, spot: bool = False, **more: Any) -> Intent:
    made = Shape(provider="g", name=shape, zone="us-central1-a", slots=Slots(), price=1, spot=spot)
    return Intent(**{"id": "i-1", "owner": "inst-1", "shape": made, "user_data": "#!/bin/sh\n", **more})


def test_an_ordinary_machine() -> None:
    body = instance(intent(tags={"team": "vision"}), parse(PLAIN))
    assert body["name"] == intent().name
    assert body["machineType"] == "projects/p/zones/us-central1-a/machineTypes/e2-medium"
    assert body["labels"] == {
        "team": "vision",
        OWNER_TAG: "inst-1",
        INTENT_TAG: "i-1",
        PRINT_TAG: intent(tags={"team": "vision"}).fingerprint,
    }
    assert read(body)[SCRIPT] == "#!/bin/sh\n"
    assert body["disks"][0]["autoDelete"]
    assert body["networkInterfaces"][0]["accessConfigs"]
    assert body["scheduling"] == {"provisioningModel": "STANDARD"}
    assert not {"serviceAccounts", "guestAccelerators", "tags"} & set(body)


def test_spot_and_a_hard_end_are_google_s_to_keep() -> None:
    body = instance(intent(spot=True, max_life_s=7 * 86400.0), parse(PLAIN))
    assert body["scheduling"] == {
        "provisioningModel": "SPOT",
        "onHostMaintenance": "TERMINATE",
        "automaticRestart": False,
        "maxRunDuration": {"seconds": "604800"},
        "instanceTerminationAction": "DELETE",
    }


@pytest.mark.parametrize("life", [0.0, 10.0, 1e9])
def test_a_life_that_google_does_not_take_is_left_to_the_agent(life: float) -> None:
    assert instance(intent(max_life_s=life), parse(PLAIN))["scheduling"] == {"provisioningModel": "STANDARD"}


def test_attached_and_built_in_accelerators() -> None:
    attached = instance(intent("n1-standard-8+nvidia-tesla-t4x2"), parse(PLAIN))
    assert attached["machineType"].endswith("/n1-standard-8")
    (card,) = attached["guestAccelerators"]
    assert card["acceleratorType"].endswith("zones/us-central1-a/acceleratorTypes/nvidia-tesla-t4")
    assert card["acceleratorCount"] == 2
    built_in = instance(intent("g2-standard-4"), parse(PLAIN))
    assert "guestAccelerators" not in built_in
    for body in (attached, built_in):
        assert body["scheduling"]["onHostMaintenance"] == "TERMINATE"


def test_settings_reach_the_machine() -> None:
    more = {"public_ip": False, "subnetwork": "s", "network_tags": ["open-443"], "service_account": "a@p.iam"}
    body = instance(intent("n4-standard-4"), parse({**PLAIN, **more, "disk": "11GiB", "tags": {"team": "vision"}}))
    assert body["networkInterfaces"] == [{"subnetwork": "regions/us-central1/subnetworks/s"}]
    assert body["tags"] == {"items": ["open-443"]}
    assert body["serviceAccounts"][0]["email"] == "a@p.iam"
    assert body["labels"]["team"] == "vision"
    made = body["disks"][0]["initializeParams"]
    assert made["diskSizeGb"] == "11"
    assert made["diskType"].endswith("/hyperdisk-balanced")


def test_a_script_that_is_too_long_is_not_sent() -> None:
    with pytest.raises(BadRequest) as caught:
        instance(intent(user_data="x" * 17_000), parse(PLAIN))
    assert "xxx" not in str(caught.value)


def test_what_labels_cannot_hold_stays_whole_beside_them() -> None:
    body = instance(intent(tags={"Cost Centre": "R&D", "team": "vision"}, owner="Inst.1"), parse(PLAIN))
    assert body["labels"]["cost_centre"] == "r_d"
    assert body["labels"][OWNER_TAG] == "inst_1"
    assert read(body)[OWNER_TAG] == "Inst.1"
    assert json.loads(read(body)[WHOLE_TAGS]) == {"Cost Centre": "R&D"}
    assert owned("Inst.1") == 'labels.atoll-owner="inst_1"'
    assert is_owned(body, "Inst.1")
    assert not is_owned(body, "inst_1")


@pytest.mark.parametrize("text", ["", "9lives", "Ünïcode", "a" * 100, "x.y/z"])
def test_labels_are_always_such_as_google_takes(text: str) -> None:
    allowed = set("abcdefghijklmnopqrstuvwxyz0123456789_-")
    assert set(label_key(text)) <= allowed
    assert set(label_value(text)) <= allowed
    assert label_key(text)[0].isalpha()
    assert max(len(label_key(text)), len(label_value(text))) <= 63


def test_request_ids_are_uuids_and_differ_by_content_and_attempt() -> None:
    one = intent()
    ids = {request_id(one, 0), request_id(one, 1), request_id(replace(one, user_data="#!/bin/sh\ntrue\n"), 0)}
    assert len(ids) == 3
    assert request_id(one, 0) == request_id(intent(), 0)
    assert all(uuid.UUID(each).version == 4 for each in ids)


def test_a_resource_as_a_machine() -> None:
    body = instance(intent("n1-standard-8+nvidia-tesla-t4x2", spot=True), parse(PLAIN))
    link = "https://www.googleapis.com/compute/v1/projects/p/zones/us-central1-a"
    seen = machine(
        {**body, "zone": link, "status": "TERMINATED", "creationTimestamp": "2026-11-21T06:00:00.000-07:00"}, "p"
    )
    assert seen.provider_id == f"p/us-central1-a/{intent().name}"
    assert (seen.intent, seen.state, seen.spot) == ("i-1", MachineState.STOPPED, True)
    assert seen.shape == "n1-standard-8+nvidia-tesla-t4x2"
    assert seen.created_at == 1795266000.0
    assert fingerprint({}) == ""


def test_ids_of_machines() -> None:
    assert place("p/us-central1-a/n") == ("p", "us-central1-a", "n")
    assert place("p/us-central1-a/n").id == "p/us-central1-a/n"
    for wrong in ("", "n", "zone/n", "a/b/c/d", "p//n"):
        with pytest.raises(BadRequest):
            place(wrong)
