"""An Azure provider's settings: what is taken, and what each mistake is told."""

import pytest

from atoll.errors import Invalid
from atoll.slots import GIB
from providers.azure.settings import DEBIAN, Credentials, parse
from tests.providers.azure.test_request import DOCUMENT


def test_few_words_are_enough() -> None:
    settings = parse(DOCUMENT)
    assert settings.subnet == (
        "/subscriptions/11111111-2222-4333-8444-555555555555/resourceGroups/burst"
        "/providers/Microsoft.Network/virtualNetworks/net/subnets/machines"
    )
    assert (settings.image, settings.disk, settings.public_ip, settings.spot) == (DEBIAN, 32 * GIB, True, True)
    assert settings.trusted_launch
    assert settings.credentials == Credentials()


def test_a_secret_is_in_no_text_of_the_settings() -> None:
    given = {"tenant_id": "t", "client_id": "c", "client_secret": "hush"}
    settings = parse({**DOCUMENT, "credentials": given})
    assert settings.credentials.secret == "hush"
    assert "hush" not in repr(settings)


@pytest.mark.parametrize(
    ("wrong", "message", "hint"),
    [
        ({"regoin": "westeurope"}, "unknown key 'regoin'", "did you mean 'region'?"),
        ({"subscription": "my subscription"}, "subscription cannot be", "it is a UUID, not a name"),
        ({"subscription": ""}, "subscription is missing", "az account show"),
        ({"vnet": ""}, "vnet is missing", "or give the subnet's id"),
        ({"zones": ["westeurope-1"]}, "zones cannot have", "1, 2 and 3"),
        ({"image": "debian"}, "image cannot be 'debian'", "publisher:offer:sku:version"),
        ({"security_group": "egress"}, "security_group must be a resource id", "/subscriptions/"),
        ({"endpoint": "http://127.0.0.1"}, "endpoint must start with https", "in clear"),
        ({"credentials": {"client_secret": "x"}}, "need tenant_id and client_id", "create-for-rbac"),
        ({"credentials": {"token": "x", "managed_identity": True}}, "more than one credential", "give a client_secret"),
        ({"credentials": {"client_sercet": "x"}}, "unknown key 'client_sercet'", "did you mean 'client_secret'?"),
    ],
)
def test_mistakes_are_told(wrong: dict[str, object], message: str, hint: str) -> None:
    with pytest.raises(Invalid, match=message) as caught:
        parse({**DOCUMENT, **wrong})
    assert hint in caught.value.hint
