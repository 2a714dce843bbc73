"""The fake itself: as strict as Google's documents, and as forgetful of nothing."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.clouds.gcp.harness import GcpHarness

PLACE = "projects/atoll-test/zones/us-central1-a"


@pytest.fixture
def gcp(tmp_path: Path) -> Iterator[GcpHarness]:
    harness = GcpHarness(tmp_path / "gcp")
    started = time.monotonic()
    harness.start()
    assert time.monotonic() - started < 1.0
    try:
        yield harness
    finally:
        harness.stop()


def body(**more: object) -> dict[str, Any]:
    image = "projects/debian-cloud/global/images/family/debian-12"
    disk = {"sourceImage": image, "diskType": f"{PLACE}/diskTypes/pd-balanced"}
    return {
        "name": "one",
        "machineType": f"{PLACE}/machineTypes/e2-medium",
        "disks": [{"boot": True, "initializeParams": disk}],
        "networkInterfaces": [{"network": "global/networks/default"}],
        **more,
    }


def ask(gcp: GcpHarness, verb: str, path: str, document: Any = None, **query: str) -> tuple[int, Any]:
    url = f"{gcp.server.url}/compute/v1/{path}"
    reply = requests.request(verb, url, params=query, json=document, timeout=10)
    return reply.status_code, reply.json()


def insert(gcp: GcpHarness, document: object, **query: str) -> tuple[int, Any]:
    return ask(gcp, "POST", f"{PLACE}/instances", document, **query)


def test_unknown_is_404_and_real_but_not_served_is_501(gcp: GcpHarness) -> None:
    assert ask(gcp, "GET", "projects/atoll-test/nonsense")[0] == 404
    assert ask(gcp, "PATCH", f"{PLACE}/instances")[0] == 404
    status, said = ask(gcp, "GET", "projects/atoll-test/global/firewalls")
    assert status == 501
    assert "compute.firewalls.list" in said["error"]["message"]


def test_parameters_are_google_s(gcp: GcpHarness) -> None:
    assert insert(gcp, body(), requestid=str(uuid.uuid4()))[0] == 400
    assert ask(gcp, "GET", f"{PLACE}/machineTypes", maxResults="many")[0] == 400
    assert ask(gcp, "GET", f"{PLACE}/machineTypes", maxResults="501")[0] == 400
    assert ask(gcp, "GET", "projects/atoll-test/zones/Zone_A/machineTypes")[0] == 400
    assert ask(gcp, "GET", "projects/atoll-test/aggregated/instances", filter="labels.a : b")[0] == 400


@pytest.mark.parametrize(
    "wrong",
    [
        {"nmae": "x"},
        {"name": "Upper"},
        {"name": "a" * 64},
        {"disks": []},
        {"disks": "none"},
        {"machineType": "e2-medium"},
        {"machineType": f"{PLACE}/machineTypes/e2-huge"},
        {"machineType": f"{PLACE}/machineTypes/g2-standard-4"},
        {"machineType": f"{PLACE}/machineTypes/n2d-standard-4".replace("-a/", "-b/")},
        {"labels": {"Team": "x"}},
        {"labels": {"team": "Vision"}},
        {"labels": {"team": "x" * 64}},
        {"networkInterfaces": []},
        {"networkInterfaces": [{"network": "global/networks/other"}]},
        {"metadata": {"items": [{"key": "a b", "value": ""}]}},
        {"metadata": {"items": [{"key": "a", "value": ""}, {"key": "a", "value": ""}]}},
        {"metadata": {"items": [{"key": "a", "value": "x" * (256 * 1024 + 1)}]}},
        {"scheduling": {"provisioningModel": "CHEAP"}},
        {"scheduling": {"provisioningModel": "SPOT"}},
        {"scheduling": {"maxRunDuration": {"seconds": "3600"}}},
        {"scheduling": {"maxRunDuration": {"seconds": "5"}, "instanceTerminationAction": "DELETE"}},
        {
            "guestAccelerators": [
                {"acceleratorType": f"{PLACE}/acceleratorTypes/nvidia-tesla-t4", "acceleratorCount": 1}
            ]
        },
    ],
)
def test_an_instance_that_google_would_refuse(gcp: GcpHarness, wrong: dict[str, object]) -> None:
    status, said = insert(gcp, body(**wrong))
    assert status == 400, said
    assert said["error"]["errors"][0]["reason"]
    assert gcp.inventory() == []


def test_a_repeated_request_id_is_the_same_operation(gcp: GcpHarness) -> None:
    once = str(uuid.uuid4())
    status, first = insert(gcp, body(), requestId=once)
    assert status == 200
    assert insert(gcp, body(), requestId=once)[1]["name"] == first["name"]
    assert insert(gcp, body(labels={"a": "b"}), requestId=once)[0] == 400
    assert insert(gcp, body(), requestId=str(uuid.uuid4()))[0] == 409
    assert insert(gcp, body(name="two"), requestId="not-one")[0] == 400
    assert insert(gcp, body(name="two"), requestId=str(uuid.UUID(int=0)))[0] == 400
    assert len(gcp.inventory()) == 1


def test_operations_take_time(gcp: GcpHarness) -> None:
    _, begun = insert(gcp, body())
    assert begun["status"] in ("PENDING", "RUNNING")
    deadline = time.monotonic() + 5
    path = f"{PLACE}/operations/{begun['name']}"
    while ask(gcp, "GET", path)[1]["status"] != "DONE" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert ask(gcp, "GET", path)[1]["status"] == "DONE"
    assert ask(gcp, "GET", f"{PLACE}/instances/one")[1]["status"] == "RUNNING"
    assert ask(gcp, "GET", f"{PLACE}/operations/operation-1")[0] == 404


def test_it_runs_as_a_process_of_its_own(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.clouds.gcp", "--guests", str(tmp_path / "guests")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[-1]
            faults = {"no_capacity": {"times": 1}}
            assert requests.post(f"{url}/_atoll/faults", json=faults, timeout=10).json() == {}
            script = {"key": "startup-script", "value": f"#!/bin/sh\necho $$ > {tmp_path}/pid; exec sleep 60\n"}
            for name in ("one", "two"):
                document = body(name=name, metadata={"items": [script]}, labels={"team": "vision"})
                made = requests.post(f"{url}/compute/v1/{PLACE}/instances", json=document, timeout=10)
                assert made.status_code == 200
            deadline = time.monotonic() + 10
            while not (tmp_path / "pid").exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            (seen,) = requests.get(f"{url}/_atoll/inventory", timeout=10).json()["machines"]
            assert (seen["provider_id"], seen["state"]) == ("atoll-test/us-central1-a/two", "running")
            assert seen["user_data"] == script["value"]
            assert seen["tags"] == {"team": "vision"}
            assert requests.get(f"{url}/_atoll/struck", timeout=10).json() == {"no_capacity": 1}
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)
    assert json.dumps(seen)
