"""The pretend Azure refuses what the real one refuses: asked over the wire, as the SDK would or would never ask."""

import asyncio
import json
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from atoll.group import Provider
from providers.azure import request
from providers.azure.settings import Settings, parse
from providers.port import MachineState
from providers.registry import DriverContext, make
from tests.clouds.azure.arm import SCOPE, SUBSCRIPTION
from tests.clouds.azure.harness import AzureHarness
from tests.clouds.azure.server import _VERSIONS

VERSION = next(iter(_VERSIONS["compute"]))
MACHINES = f"{SCOPE}/providers/Microsoft.Compute/virtualMachines"


class Wire:
    """Plain HTTPS to the service, with a token it knows."""

    def __init__(self, url: str, ca: Path, token: str = "") -> None:
        self.url, self.token = url, token
        self.trust = ssl.create_default_context(cafile=str(ca))

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Return the status and document of an answer."""
        told = {"Content-Type": "application/json", "Authorization": f"Bearer {self.token}", **headers}
        data = None if body is None else json.dumps(body).encode()
        asked = Request(f"{self.url}{path}", data, told, method=method)
        try:
            with urlopen(asked, context=self.trust, timeout=10) as answer:
                raw = answer.read()
                return answer.status, json.loads(raw) if raw else None
        except HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    def code(self, method: str, path: str, body: Any = None, **headers: str) -> str:
        """Return the code of the refusal an answer is; "" where it is none."""
        _, document = self.ask(method, path, body, **headers)
        return str((document or {}).get("error", {}).get("code", ""))


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[AzureHarness]:
    harness = AzureHarness(tmp_path)
    harness.start()
    try:
        yield harness
    finally:
        harness.stop()


@pytest.fixture
def wire(cloud: AzureHarness) -> Wire:
    cloud.service.tokens.add("t")
    return Wire(cloud.service.url, cloud.service.ca, "t")


def settings(cloud: AzureHarness) -> Settings:
    return parse(cloud.provider().settings)


def machine(cloud: AzureHarness, **more: Any) -> dict[str, Any]:
    """Return a good body for a machine whose card exists, with these properties changed."""
    intent, chosen = cloud.intent("i-1"), settings(cloud)
    labels = request.tags(intent, chosen, 1.0)
    card, _ = cloud.service.cloud.put_card("c-nic", request.network_card(chosen, labels, ""))
    body = request.machine(intent, chosen, labels, card["id"])
    body["properties"].update(more)
    return body


def put(wire: Wire, body: dict[str, Any], **headers: str) -> str:
    return wire.code("PUT", f"{MACHINES}/c?api-version={VERSION}", body, **headers)


def test_a_good_body_is_taken_once(cloud: AzureHarness, wire: Wire) -> None:
    body = machine(cloud)
    assert put(wire, body, **{"If-None-Match": "*"}) == ""
    assert put(wire, body, **{"If-None-Match": "*"}) == "PreconditionFailed"
    assert put(wire, body) == "PropertyChangeNotAllowed"
    status, shown = wire.ask("GET", f"{MACHINES}/c?api-version={VERSION}")
    assert (status, shown["properties"]["provisioningState"]) in ((200, "Creating"), (200, "Succeeded"))
    assert "customData" not in shown["properties"]["osProfile"], "it can be written only"


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"evictionPolicy": "Delete"}, "InvalidParameter"),
        ({"priority": "Cheap"}, "InvalidRequestContent"),
        ({"nonsense": 1}, "InvalidRequestContent"),
        ({"vmId": "x"}, "InvalidRequestContent"),
        ({"hardwareProfile": {"vmSize": "Standard_X9"}}, "InvalidParameter"),
        ({"hardwareProfile": {"vmSize": "Standard_D8s_v5"}}, "SkuNotAvailable"),
        ({"hardwareProfile": {"vmSize": "Standard_D2_v2"}}, "BadRequest"),
        ({"networkProfile": {"networkInterfaces": []}}, "InvalidParameter"),
        ({"networkProfile": {"networkInterfaces": [{"id": f"{SCOPE}/none"}]}}, "NotFound"),
        ({"osProfile": {"computerName": "x", "adminUsername": "root"}}, "InvalidParameter"),
        ({"osProfile": {"computerName": "x", "adminUsername": "me", "customData": "#!"}}, "InvalidParameter"),
        ({"osProfile": {"computerName": "x", "adminUsername": "me"}}, "InvalidParameter"),
        ({"billingProfile": {"maxPrice": "1"}, "priority": "Spot"}, "InvalidRequestContent"),
        ({"storageProfile": {"osDisk": {"name": "d"}}}, "InvalidRequestContent"),
    ],
)
def test_bad_properties_are_refused(cloud: AzureHarness, wire: Wire, more: dict[str, Any], code: str) -> None:
    assert put(wire, machine(cloud, **more)) == code
    assert cloud.inventory() == []


@pytest.mark.parametrize(
    ("top", "code"),
    [
        ({"tags": {"a/b": "c"}}, "InvalidTagNameCharacters"),
        ({"tags": {"a": "c" * 257}}, "InvalidTagValueLength"),
        ({"tags": {"a": 1}}, "InvalidRequestContent"),
        ({"zones": ["1", "2"]}, "InvalidParameter"),
        ({"location": "mars"}, "LocationNotAvailableForResourceType"),
        ({"location": None}, "LocationNotAvailableForResourceType"),
        ({"etag": "1"}, "InvalidRequestContent"),
    ],
)
def test_bad_heads_are_refused(cloud: AzureHarness, wire: Wire, top: dict[str, Any], code: str) -> None:
    assert put(wire, machine(cloud) | top) == code


def test_who_asks_and_in_which_version_is_looked_at(cloud: AzureHarness, wire: Wire) -> None:
    assert wire.code("GET", MACHINES) == "MissingApiVersionParameter"
    assert wire.code("GET", f"{MACHINES}?api-version=2012-01-01") == "NoRegisteredProviderFound"
    assert wire.code("GET", f"{MACHINES}?api-version={VERSION}&$orderby=name") == "InvalidQueryParameter"
    assert wire.code("GET", f"{MACHINES}s?api-version={VERSION}") == "InvalidResourceType"
    elsewhere = MACHINES.replace(SUBSCRIPTION, SUBSCRIPTION[::-1])
    assert wire.code("GET", f"{elsewhere}?api-version={VERSION}") == "SubscriptionNotFound"
    wire.token = "guessed"
    assert wire.code("GET", f"{MACHINES}?api-version={VERSION}") == "InvalidAuthenticationToken"


def test_parts_in_use_stay(cloud: AzureHarness, wire: Wire) -> None:
    assert put(wire, machine(cloud)) == ""
    network, version = f"{SCOPE}/providers/Microsoft.Network", next(iter(_VERSIONS["network"] - {"2024-05-01"}))
    assert wire.code("DELETE", f"{network}/networkInterfaces/c-nic?api-version={version}") == "NicInUse"
    (disk,) = cloud.service.cloud.parts["Microsoft.Compute/disks"]
    of_disks = next(iter(_VERSIONS["disks"]))
    path = f"{SCOPE}/providers/Microsoft.Compute/disks/{disk}?api-version={of_disks}"
    assert wire.code("DELETE", path) == "OperationNotAllowed"


def test_a_machine_without_delete_options_leaves_its_parts(cloud: AzureHarness, wire: Wire) -> None:
    body = machine(cloud)
    del body["properties"]["storageProfile"]["osDisk"]["deleteOption"]
    del body["properties"]["networkProfile"]["networkInterfaces"][0]["properties"]["deleteOption"]
    assert put(wire, body) == ""
    cloud.remove("c")
    while cloud.inventory():
        continue
    assert len(cloud.service.cloud.loose()) == 2


async def test_as_a_process_of_its_own_it_is_told_what_to_do_and_tells_what_it_has(tmp_path: Path) -> None:
    argv = ["--guests", str(tmp_path / "guests"), "--ca", str(tmp_path / "ca.pem")]
    with subprocess.Popen([sys.executable, "-m", "tests.clouds.azure", *argv], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout
            told = json.loads(process.stdout.readline())
            wire = Wire(told["url"], tmp_path / "ca.pem")
            assert wire.ask("POST", "/_atoll/faults", {"quota": {"times": 1}})[0] == 200
            await _burst(tmp_path, told["settings"], wire)
        finally:
            process.terminate()
    assert process.returncode == 0


async def _burst(folder: Path, document: dict[str, Any], wire: Wire) -> None:
    harness = AzureHarness(folder)
    context: DriverContext = harness.context()
    azure = make(Provider(name="far", kind="azure", settings=document), context)
    with pytest.raises(Exception, match="quota"):
        await azure.create(harness.intent("i-1"))
    made = await azure.create(harness.intent("i-1"))

    def seen() -> list[dict[str, Any]]:
        _, survey = wire.ask("GET", "/_atoll/inventory")
        assert survey["struck"] == {"quota": 1}
        return list(survey["machines"])

    (machine,) = seen()
    assert (machine["provider_id"], machine["intent"]) == (made.provider_id, "i-1")
    assert machine["user_data"] == "#!/bin/sh\nsleep 60\n"
    async with asyncio.timeout(60):
        while seen()[0]["state"] != MachineState.RUNNING:
            await asyncio.sleep(0.02)
    assert wire.ask("POST", "/_atoll/remove", {"provider_id": made.provider_id})[0] == 200
    async with asyncio.timeout(60):
        while seen():
            await asyncio.sleep(0.02)
