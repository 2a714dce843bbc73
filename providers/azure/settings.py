"""An Azure provider's settings: which subscription, group and region, and what a machine there is made of."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from atoll.errors import Invalid
from atoll.fields import Fields
from atoll.slots import GIB

DEBIAN = "Debian:debian-12:12-gen2:latest"
"""The image of machines where the settings name none."""

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_GROUP = re.compile(r"[\w().-]{0,89}[\w()-]")
_CREDENTIALS = "a client_secret, a client_certificate, managed_identity: true, or none of them"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Who the control plane is to Azure. With nothing given the SDK's own default chain looks for it.

    `certificate` is the path of a PEM file with certificate and key; `token` a bearer token as it stands, for
    test servers; `authority` the sign-in server of a private cloud.
    """

    tenant: str = ""
    client: str = ""
    secret: str = field(default="", repr=False)
    certificate: str = ""
    managed_identity: bool = False
    token: str = field(default="", repr=False)
    authority: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Checked settings. `subnet` and `security_group` are full resource ids, `disk` is in bytes.

    `endpoint` is empty for the public cloud; `ca` the path of a PEM file it is checked with. A create call
    waits `create_wait` seconds for Azure to finish and is answered with a pending machine after that.
    """

    subscription: str
    resource_group: str
    region: str
    subnet: str
    zones: tuple[str, ...] = ()
    image: str = DEBIAN
    shapes: tuple[str, ...] = ()
    security_group: str = ""
    public_ip: bool = True
    disk: int = 32 * GIB
    tags: Mapping[str, str] = field(default_factory=dict)
    spot: bool = True
    trusted_launch: bool = True
    endpoint: str = ""
    ca: str = ""
    ssh_public_key: str = ""
    create_wait: float = 25.0
    credentials: Credentials = Credentials()


def parse(document: Mapping[str, object]) -> Settings:
    """Return the settings of a provider's document; raise `Invalid` with a did-you-mean where it is wrong.

    `subnet` is a resource id, or a name beside `vnet`; `image` is `publisher:offer:sku:version` or an id;
    `shapes` are glob patterns of VM sizes; `zones` are 1, 2, 3.
    """
    fields = Fields(document, "provider.settings")
    subscription = _wanted(fields, "subscription", "the subscription's id: az account show --query id").lower()
    if not _UUID.fullmatch(subscription):
        raise Invalid(f"provider.settings.subscription cannot be {subscription!r}", hint="it is a UUID, not a name")
    group = _wanted(fields, "resource_group", "machines are made in it, and nothing outside it is touched")
    if not _GROUP.fullmatch(group):
        raise Invalid(f"provider.settings.resource_group cannot be {group!r}", hint="a name, not an id")
    image = fields.text("image") or DEBIAN
    settings = Settings(
        subscription=subscription,
        resource_group=group,
        region=_wanted(fields, "region", "such as westeurope").lower().replace(" ", ""),
        subnet=_subnet(fields, subscription, group),
        zones=_zones(fields),
        image=_image(image),
        shapes=fields.texts("shapes"),
        security_group=_id(fields.text("security_group"), "security_group"),
        public_ip=bool(fields.flag("public_ip", True)),
        disk=fields.bytes("disk", 32 * GIB),
        tags=fields.texts_by_name("tags"),
        spot=bool(fields.flag("spot", True)),
        trusted_launch=bool(fields.flag("trusted_launch", "gen2" in image.lower())),
        endpoint=_https(fields.text("endpoint").rstrip("/"), "endpoint"),
        ca=fields.text("ca"),
        ssh_public_key=fields.text("ssh_public_key"),
        create_wait=fields.seconds("create_wait", 25.0, low=0.1, high=40.0),
        credentials=_credentials(fields.section("credentials")),
    )
    fields.done()
    return settings


def _wanted(fields: Fields, key: str, advice: str) -> str:
    value = fields.text(key)
    if not value:
        raise fields.missing(key, advice)
    return value


def _zones(fields: Fields) -> tuple[str, ...]:
    zones = fields.texts("zones")
    for zone in zones:
        if zone not in ("1", "2", "3"):
            raise Invalid(f"provider.settings.zones cannot have {zone!r}", hint="Azure's zones are 1, 2 and 3")
    return zones


def _subnet(fields: Fields, subscription: str, group: str) -> str:
    vnet, subnet = fields.text("vnet"), _wanted(fields, "subnet", "machines get their address there")
    if subnet.startswith("/"):
        return subnet
    if not vnet:
        raise fields.missing("vnet", "a subnet by its name needs its network's name beside it; or give the subnet's id")
    return (
        f"/subscriptions/{subscription}/resourceGroups/{group}"
        f"/providers/Microsoft.Network/virtualNetworks/{vnet}/subnets/{subnet}"
    )


def _image(image: str) -> str:
    if not image.startswith("/") and image.count(":") != 3:
        raise Invalid(
            f"provider.settings.image cannot be {image!r}",
            hint=f"write publisher:offer:sku:version like {DEBIAN}, or an image's resource id",
        )
    return image


def _id(value: str, key: str) -> str:
    if value and not value.startswith("/subscriptions/"):
        raise Invalid(f"provider.settings.{key} must be a resource id", hint="it starts with /subscriptions/")
    return value


def _https(value: str, key: str) -> str:
    if value and not value.startswith("https://"):
        raise Invalid(f"provider.settings.{key} must start with https://", hint="no token is sent in clear")
    return value


def _credentials(fields: Fields) -> Credentials:
    found = Credentials(
        tenant=fields.text("tenant_id"),
        client=fields.text("client_id"),
        secret=fields.text("client_secret"),
        certificate=fields.text("client_certificate"),
        managed_identity=bool(fields.flag("managed_identity", False)),
        token=fields.text("token"),
        authority=_https(fields.text("authority").rstrip("/"), "credentials.authority"),
    )
    fields.done()
    if sum(map(bool, (found.secret, found.certificate, found.managed_identity, found.token))) > 1:
        raise Invalid("provider.settings.credentials name more than one credential", hint=f"give {_CREDENTIALS}")
    if (found.secret or found.certificate) and not (found.tenant and found.client):
        raise Invalid(
            "provider.settings.credentials need tenant_id and client_id beside the secret",
            hint="az ad sp create-for-rbac prints all three",
        )
    return found
