"""How a driver is put together: whose credential it shows, through which proxy, and what `doctor` finds."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import (
    CertificateCredential,
    ClientSecretCredential,
    DefaultAzureCredential,
    ManagedIdentityCredential,
)

from atoll.group import Provider
from atoll.host.system import SystemClock
from providers.azure.account import answers, transport
from providers.azure.doctor import ACTIONS, SUBSCRIPTION_ACTIONS, missing, roles
from providers.azure.setup import Given, credential
from providers.errors import Auth, ProviderError, Unknown
from providers.port import Finding
from providers.registry import feed, make
from tests.clouds.azure.arm import SUBNET
from tests.clouds.azure.harness import AzureHarness
from tests.clouds.azure.pki import loopback
from tests.clouds.proxy import Proxy
from tests.providers.azure.test_request import settings

HERE = {"tenant_id": "22222222-3333-4444-8555-666666666666", "client_id": "c"}


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[AzureHarness]:
    harness = AzureHarness(tmp_path)
    harness.start()
    try:
        yield harness
    finally:
        harness.stop()


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({}, DefaultAzureCredential),
        ({"managed_identity": True}, ManagedIdentityCredential),
        ({**HERE, "client_secret": "s"}, ClientSecretCredential),
        ({"token": "t"}, Given),
    ],
)
def test_the_credential_is_the_one_that_is_given(given: dict[str, object], kind: type) -> None:
    chosen = settings(credentials=given)
    assert type(credential(chosen, transport(chosen, ""))) is kind


def test_a_certificate_is_read_from_its_file(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    loopback(tmp_path)  # for a certificate of any kind; the key must be RSA
    key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem = tmp_path / "us.pem"
    pem.write_bytes(key + (tmp_path / "ca.pem").read_bytes())
    chosen = settings(credentials={**HERE, "client_certificate": str(pem)})
    assert isinstance(credential(chosen, transport(chosen, "")), CertificateCredential)


def test_the_sdk_retries_nothing_and_waits_for_a_bounded_time() -> None:
    chosen = transport(settings(ca="/ca.pem"), "http://proxy:3128")
    assert (chosen["retry_total"], chosen["connection_timeout"], chosen["read_timeout"]) == (0, 10.0, 30.0)
    assert chosen["connection_verify"] == "/ca.pem"
    assert chosen["proxies"]["https"] == "http://proxy:3128"
    assert "proxies" not in transport(settings(), ""), "what the environment says holds then"


@pytest.mark.parametrize(("status", "kind"), [(401, Auth), (400, Auth), (503, Unknown)])
def test_a_sign_in_that_fails_is_no_refusal(status: int, kind: type[ProviderError]) -> None:
    answer: Any = SimpleNamespace(status_code=status, reason="why", headers={"content-type": "text/plain"})
    with pytest.raises(kind), answers():
        raise ClientAuthenticationError("no token", response=answer)


async def test_all_calls_go_through_the_proxy(cloud: AzureHarness) -> None:
    """Machines, sign-in, serial log and price list: each has a client of its own, so each is asked for."""
    here = cloud.service.url.removeprefix("https://")
    sign_in = here.replace("127.0.0.1", "localhost")
    document = dict(cloud.provider().settings)
    given = document["credentials"]
    assert isinstance(given, dict)
    document["credentials"] = {**given, "authority": f"https://{sign_in}"}
    provider = Provider(name="far", kind="azure", settings=document)
    proxy = Proxy()
    try:
        context = replace(cloud.context(), proxy=proxy.url)
        azure = make(provider, context)
        made = await azure.create(cloud.intent("i-1"))
        assert set(proxy.asked) == {here, sign_in}
        for call in (lambda: azure.console(made.provider_id), lambda: feed(provider, context).fetch()):  # type: ignore[union-attr]
            before = len(proxy.asked)
            await call()
            assert len(proxy.asked) > before
    finally:
        proxy.close()


# -- doctor -----------------------------------------------------------------------------------------------


async def findings(cloud: AzureHarness, late: float = 0.0, **more: object) -> dict[str, Finding]:
    class Clock(SystemClock):
        def now(self) -> float:
            return super().now() + late

    provider = Provider(name="p", kind="azure", settings={**cloud.provider().settings, **more})
    made = make(provider, replace(cloud.context(), clock=Clock()))
    return {finding.check: finding for finding in await made.doctor()}


async def test_all_is_well(cloud: AzureHarness) -> None:
    found = await findings(cloud)
    assert list(found) == [
        "credential", "clock", "resource group", "subnet", "security group", "image", "rights",
    ]  # fmt: skip
    assert all(finding.ok for finding in found.values())
    assert len(json.loads(found["rights"].details)) == 2


@pytest.mark.parametrize(
    ("more", "check"),
    [
        ({"resource_group": "elsewhere"}, "resource group"),
        ({"subnet": f"{SUBNET}-2"}, "subnet"),
        ({"security_group": f"{SUBNET}/none"}, "security group"),
        ({"image": "Debian:debian-99:99:latest"}, "image"),
    ],
)
async def test_what_is_not_there_is_named(cloud: AzureHarness, more: dict[str, Any], check: str) -> None:
    found = await findings(cloud, **more)
    assert not found[check].ok
    assert found[check].hint


async def test_a_wrong_clock_is_told(cloud: AzureHarness) -> None:
    clock = (await findings(cloud, late=600.0))["clock"]
    assert not clock.ok
    assert re.fullmatch(r"\+6\d\d s from Azure's", clock.message)


async def test_a_subscription_that_is_not_there_ends_the_examination(cloud: AzureHarness) -> None:
    found = await findings(cloud, subscription="99999999-2222-4333-8444-555555555555")
    assert [finding.ok for finding in found.values()] == [False]


def test_a_right_counts_when_an_entry_grants_it_and_does_not_take_it_away() -> None:
    contributor = {"actions": ["*"], "notActions": ["Microsoft.Authorization/*/write"]}
    reader = {"actions": ["*/read"], "notActions": []}
    assert missing([contributor], ACTIONS) == []
    assert missing([{"actions": ["*"], "notActions": ["Microsoft.Compute/disks/*"]}, reader], ACTIONS) == [
        "Microsoft.Compute/disks/delete",
        "Microsoft.Compute/disks/write",
    ]
    assert missing([], ["a/b"]) == ["a/b"]


def test_the_roles_grant_what_is_needed_each_in_its_place_and_no_wildcard() -> None:
    machines, look = json.loads(roles(settings()))
    assert missing([{"actions": machines["Actions"]}], ACTIONS) == []
    assert missing([{"actions": look["Actions"]}], SUBSCRIPTION_ACTIONS) == []
    assert machines["AssignableScopes"][0].endswith("/resourceGroups/burst")
    assert all(action.endswith("/read") for action in look["Actions"])
    assert "*" not in roles(settings())
