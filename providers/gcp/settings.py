"""A `gcp` provider's settings: project, region, what machines look like, and how to sign in."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from atoll.errors import Invalid
from atoll.fields import Fields
from atoll.slots import GIB

IMAGE = "projects/debian-cloud/global/images/family/debian-12"
COMPUTE = "https://compute.googleapis.com"
BILLING = "https://cloudbilling.googleapis.com"
RIGHTS = "https://cloudresourcemanager.googleapis.com"

_PATH = "provider.settings"
_IMAGE = re.compile(r"projects/[a-z0-9.:-]+/global/images/(family/)?[a-z0-9-]+")
_REGION = re.compile(r"[a-z]+-[a-z]+[0-9]+")
_ZONE = re.compile(r"([a-z]+-[a-z]+[0-9]+)-[a-z]")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignIn:
    """How calls are signed. All empty: what the environment offers (Application Default Credentials).

    `key` is a service account's key as Google gives it, `file` where one lies. `anonymous` signs nothing,
    for test servers. `api_key` is for the price list alone, which needs no more.
    """

    key: Mapping[str, object] = field(default_factory=dict, repr=False)
    file: str = ""
    anonymous: bool = False
    api_key: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Checked settings. `zones` empty: all of the region. `disk` in bytes, on `disk_type` where it is given."""

    project: str
    region: str
    zones: tuple[str, ...] = ()
    image: str = IMAGE
    shapes: tuple[str, ...] = ()
    disk: int = 50 * GIB
    disk_type: str = ""
    network: str = "global/networks/default"
    subnetwork: str = ""
    network_tags: tuple[str, ...] = ()
    service_account: str = ""
    scopes: tuple[str, ...] = ()
    public_ip: bool = True
    spot: bool = True
    tags: Mapping[str, str] = field(default_factory=dict)
    endpoint: str = COMPUTE
    prices_endpoint: str = BILLING
    rights_endpoint: str = RIGHTS
    sign_in: SignIn = SignIn()

    @property
    def architecture(self) -> str:
        """What processors the image is for, as Compute Engine names it."""
        return "ARM64" if "arm64" in self.image else "X86_64"


def parse(document: Mapping[str, object]) -> Settings:
    """Return the settings of a provider's document; raise `Invalid` with a did-you-mean where it is wrong.

    One provider works in one region, because quotas and prices are a region's: `zones` alone name it too.
    """
    fields = Fields(document, _PATH)
    project = fields.text("project")
    if not project:
        raise fields.missing("project", "write the project's id, as `gcloud config get project` shows it")
    region, zones = _place(fields)
    settings = Settings(
        project=project,
        region=region,
        zones=zones,
        image=_image(fields),
        shapes=fields.texts("shapes"),
        disk=_disk(fields),
        disk_type=fields.text("disk_type"),
        network=_resource(fields.text("network") or "default", "networks", "global"),
        subnetwork=_resource(fields.text("subnetwork"), "subnetworks", f"regions/{region}"),
        network_tags=fields.texts("network_tags"),
        service_account=fields.text("service_account"),
        scopes=fields.texts("scopes"),
        public_ip=bool(fields.flag("public_ip", True)),
        spot=bool(fields.flag("spot", True)),
        tags=_tags(fields.raw("tags")),
        endpoint=_endpoint(fields, "endpoint", COMPUTE),
        prices_endpoint=_endpoint(fields, "prices_endpoint", BILLING),
        rights_endpoint=_endpoint(fields, "rights_endpoint", RIGHTS),
        sign_in=_sign_in(fields),
    )
    if settings.scopes and not settings.service_account:
        raise Invalid(f"{_PATH}.scopes needs a service_account", hint="machines have no service account by default")
    fields.done()
    return settings


def _place(fields: Fields) -> tuple[str, tuple[str, ...]]:
    region, zones = fields.text("region"), fields.texts("zones")
    regions = set()
    for zone in zones:
        if not (match := _ZONE.fullmatch(zone)):
            raise Invalid(f"{_PATH}.zones: {zone!r} is no zone", hint="zones look like us-central1-a")
        regions.add(match[1])
    if not region and not zones:
        raise fields.missing("region", "write a region like us-central1, or zones: of one region")
    if len(regions | ({region} if region else set())) > 1:
        raise Invalid(f"{_PATH}.zones are not all of one region", hint="add a provider for each region")
    region = region or regions.pop()
    if not _REGION.fullmatch(region):
        raise Invalid(f"{_PATH}.region cannot be {region!r}", hint="regions look like us-central1")
    return region, zones


def _image(fields: Fields) -> str:
    image = (fields.text("image") or IMAGE).rpartition("/compute/v1/")[2]  # also a whole URL of the console
    if not _IMAGE.fullmatch(image):
        raise Invalid(f"{_PATH}.image {image!r} is no path of an image", hint=f"write it like {IMAGE}")
    return image


def _disk(fields: Fields) -> int:
    size = fields.bytes("disk", 50 * GIB)
    if size < 10 * GIB:
        raise Invalid(f"{_PATH}.disk is too small for an image", hint="write disk: 10GiB or more")
    return size


def _resource(name: str, kind: str, place: str) -> str:
    """Return the partial path of a network or subnetwork that was given by name or by path."""
    return f"{place}/{kind}/{name}" if name and "/" not in name else name


def _tags(document: object) -> Mapping[str, str]:
    fields = Fields(document, f"{_PATH}.tags")
    return {str(key): fields.text(str(key)) for key in (document if isinstance(document, Mapping) else ())}


def _endpoint(fields: Fields, key: str, default: str) -> str:
    endpoint = (fields.text(key) or default).rstrip("/")
    if not endpoint.startswith(("https://", "http://")):
        raise Invalid(f"{_PATH}.{key} must begin with https://", hint=f"the usual one is {default}")
    return endpoint


def _sign_in(fields: Fields) -> SignIn:
    """Read `credentials`: a service account's key as it is, or `file`, `anonymous`, `api_key`."""
    document = fields.raw("credentials")
    if isinstance(document, Mapping) and "private_key" in document:
        if document.get("type") != "service_account" or not document.get("client_email"):
            raise Invalid(f"{_PATH}.credentials is not a service account's key", hint="give the JSON file's content")
        return SignIn(
            key={k: v for k, v in document.items() if k != "api_key"}, api_key=str(document.get("api_key", ""))
        )
    own = Fields(document, f"{_PATH}.credentials")
    sign_in = SignIn(file=own.text("file"), anonymous=bool(own.flag("anonymous", False)), api_key=own.text("api_key"))
    own.done()
    if sign_in.file and sign_in.anonymous:
        raise Invalid(f"{_PATH}.credentials has both file and anonymous", hint="keep one of them")
    return sign_in
