"""What only the real servers can show of the credential: its rights, `doctor`, refusals."""

from dataclasses import replace
from typing import Any

import pytest

from providers.errors import Auth, BadRequest
from providers.openstack.account import Account
from providers.openstack.rights import command
from providers.openstack.settings import parse
from providers.port import Finding
from tests.clouds.openstack.harness import OpenStackHarness
from tests.openstack.stack import PASSWORD

pytestmark = pytest.mark.xdist_group("cloud-openstack")


def account(cloud: OpenStackHarness) -> Account:
    return Account("stack", parse(cloud.provider().settings))


async def findings(cloud: OpenStackHarness, **settings: Any) -> dict[str, Finding]:
    changed = replace(cloud, settings={**cloud.settings, **settings})
    return {finding.check: finding for finding in await changed.driver().doctor()}


async def test_the_credential_is_good_for_what_the_driver_does_and_no_more(cloud: OpenStackHarness) -> None:
    """The whole contract suite runs on a credential with these access rules; keystone's middleware holds to them."""
    found = (await findings(cloud))["credential"]
    assert found.ok
    assert "with access rules" in found.message
    for service, path in (("compute", "/os-keypairs"), ("network", "/ports"), ("compute", "/os-services")):
        with pytest.raises(Auth):
            await account(cloud).get(service, path)


async def test_doctor_on_a_password_says_how_to_do_better(cloud: OpenStackHarness) -> None:
    login = {
        "auth_url": cloud.cloud.auth_url, "username": "demo", "password": PASSWORD, "project": "demo",
    }  # fmt: skip
    found = (await findings(cloud, credentials=login))["credential"]
    assert found.ok
    assert "password" in found.message
    assert found.details == command()
    assert all(f.ok for f in (await findings(cloud, credentials=login)).values())


@pytest.mark.parametrize(
    ("settings", "check"),
    [
        ({"image": "debian-13"}, "image"),
        ({"image": "00000000-0000-0000-0000-000000000000"}, "image"),
        ({"network": "nowhere"}, "network"),
        ({"zones": ["a", "z"]}, "zones"),
        ({"security_groups": ["nobody"]}, "security groups"),
        ({"shapes": ["x9.*"]}, "flavors"),
    ],
)
async def test_doctor_names_what_is_not_there(cloud: OpenStackHarness, settings: dict[str, Any], check: str) -> None:
    found = await findings(cloud, **settings)
    assert [name for name, finding in found.items() if not finding.ok] == [check]
    assert found[check].hint


async def test_doctor_without_a_login_says_one_thing(cloud: OpenStackHarness) -> None:
    refused = {
        "auth_url": cloud.cloud.auth_url, "application_credential_id": "0" * 32, "application_credential_secret": "no",
    }  # fmt: skip
    nowhere = {**refused, "auth_url": "http://127.0.0.1:9/v3"}
    for credentials in (refused, nowhere):
        found = await findings(cloud, credentials=credentials)
        assert [(name, finding.ok) for name, finding in found.items()] == [("credential", False)]


async def test_novas_own_refusal_of_user_data_is_scrubbed(cloud: OpenStackHarness) -> None:
    secret = "c2VjcmV0" * 9000
    with pytest.raises(BadRequest) as caught:
        await account(cloud).post(
            "compute", "/servers", {"server": {"name": "x", "flavorRef": "1", "user_data": secret}}
        )
    said = f"{caught.value!r} {caught.value.hint} {caught.value.__cause__!r} {caught.value.__context__!r}"
    assert "user_data" in said
    assert secret[:64] not in said
