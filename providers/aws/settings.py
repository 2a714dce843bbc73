"""An `aws` provider's settings: where machines are made, from which image, in which network, with which right."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from atoll.errors import Invalid
from atoll.fields import Fields
from atoll.slots import GIB

DEBIAN: Mapping[str, str] = {
    "x86_64": "ssm:/aws/service/debian/release/12/latest/amd64",
    "arm64": "ssm:/aws/service/debian/release/12/latest/arm64",
}
"""The image where none is named, by architecture: what Debian publishes as a public parameter."""
_ALSO: Mapping[str, str] = {"amd64": "x86_64", "aarch64": "arm64"}
DEFAULT_DISK = 50 * GIB
MAX_DISK = 16384 * GIB
_REGION = re.compile(r"[a-z]{2,}(-[a-z]+)+-\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Keys, a profile of the SDK's own files, or neither (the SDK's default chain); a role on top of any."""

    access_key_id: str = ""
    secret_access_key: str = field(default="", repr=False)
    session_token: str = field(default="", repr=False)
    profile: str = ""
    role_arn: str = ""
    external_id: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchTemplate:
    """A launch template by id or name. What the settings leave out, it says."""

    id: str = ""
    name: str = ""
    version: str = "$Default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Checked settings.

    `image` is an AMI's id or `ssm:` and a parameter's name; empty means the launch template's. `subnets`
    are subnets by zone, `subnet_ids` those whose zone the cloud is asked for; with neither the default
    VPC's are used. `disk` is bytes, 0 where the launch template says.
    """

    region: str
    zones: tuple[str, ...] = ()
    image: str = DEBIAN["x86_64"]
    architecture: str = "x86_64"
    patterns: tuple[str, ...] = ()
    subnets: Mapping[str, str] = field(default_factory=dict)
    subnet_ids: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    instance_profile: str = ""
    launch_template: LaunchTemplate | None = None
    key_name: str = ""
    disk: int = DEFAULT_DISK
    tags: Mapping[str, str] = field(default_factory=dict)
    public_ip: bool = True
    spot: bool = True
    endpoint: str = ""
    credentials: Credentials = Credentials()

    def sells(self, shape: str) -> bool:
        """Say whether a machine type may be offered by the patterns (none: all may)."""
        return not self.patterns or any(fnmatchcase(shape, pattern) for pattern in self.patterns)


def parse(document: Mapping[str, object]) -> Settings:
    """Return the settings of a provider's document; raise `Invalid` with a did-you-mean where it is wrong."""
    fields = Fields(document, "provider.settings")
    region = _region(fields)
    told = fields.choice("architecture", (*DEBIAN, *_ALSO), "x86_64")
    architecture = _ALSO.get(told, told)
    template = _template(fields)
    subnets, subnet_ids = _subnets(fields)
    settings = Settings(
        region=region,
        zones=fields.texts("zones"),
        image=_image(fields) or ("" if template else DEBIAN[architecture]),
        architecture=architecture,
        patterns=fields.texts("shapes"),
        subnets=subnets,
        subnet_ids=subnet_ids,
        security_groups=fields.texts("security_groups"),
        instance_profile=fields.text("instance_profile"),
        launch_template=template,
        key_name=fields.text("key_name"),
        disk=_disk(fields, 0 if template else DEFAULT_DISK),
        tags=fields.texts_by_name("tags"),
        public_ip=bool(fields.flag("public_ip", True)),
        spot=bool(fields.flag("spot", True)),
        endpoint=fields.text("endpoint"),
        credentials=_credentials(fields.section("credentials")),
    )
    fields.done()
    _agree(settings)
    return settings


def _region(fields: Fields) -> str:
    region = fields.text("region")
    if not region:
        raise fields.missing("region", "write region: below it, like eu-central-1")
    if not _REGION.fullmatch(region):
        raise Invalid(f"{fields.path}.region cannot be {region!r}", hint="write it like eu-central-1, without a zone")
    return region


def _image(fields: Fields) -> str:
    image = fields.text("image")
    if image and not image.startswith(("ami-", "ssm:/")):
        raise Invalid(
            f"{fields.path}.image cannot be {image!r}", hint=f"write ami-… or a public parameter: {DEBIAN['x86_64']}"
        )
    return image


def _disk(fields: Fields, default: int) -> int:
    disk = fields.bytes("disk", default)
    if disk and not GIB <= disk <= MAX_DISK:
        raise Invalid(f"{fields.path}.disk is out of range", hint="it must be between 1GiB and 16TiB")
    return disk


def _template(fields: Fields) -> LaunchTemplate | None:
    told = fields.raw("launch_template")
    if told is None:
        return None
    if isinstance(told, str):
        return LaunchTemplate(id=told) if told.startswith("lt-") else LaunchTemplate(name=told)
    section = fields.section("launch_template")
    template = LaunchTemplate(
        id=section.text("id"), name=section.text("name"), version=section.text("version") or "$Default"
    )
    section.done()
    if bool(template.id) == bool(template.name):
        raise Invalid(f"{section.path} needs one of id and name", hint="id: lt-… or name: …")
    return template


def _subnets(fields: Fields) -> tuple[dict[str, str], tuple[str, ...]]:
    if isinstance(fields.raw("subnets"), Mapping):
        return fields.texts_by_name("subnets"), ()
    return {}, fields.texts("subnets")


def _credentials(fields: Fields) -> Credentials:
    credentials = Credentials(
        access_key_id=fields.text("access_key_id"),
        secret_access_key=fields.text("secret_access_key"),
        session_token=fields.text("session_token"),
        profile=fields.text("profile"),
        role_arn=fields.text("role_arn"),
        external_id=fields.text("external_id"),
    )
    fields.done()
    if bool(credentials.access_key_id) != bool(credentials.secret_access_key):
        raise Invalid(f"{fields.path} needs both access_key_id and secret_access_key", hint="give both, or neither")
    if credentials.profile and credentials.access_key_id:
        raise Invalid(f"{fields.path} has keys and a profile", hint="give one of them")
    if credentials.external_id and not credentials.role_arn:
        raise Invalid(f"{fields.path}.external_id means nothing without role_arn", hint="add role_arn: arn:aws:iam::…")
    return credentials


def _agree(settings: Settings) -> None:
    named = (*settings.zones, *settings.subnets)
    if wrong := next((zone for zone in named if not zone.startswith(settings.region)), ""):
        raise Invalid(
            f"provider.settings: zone {wrong!r} is not in region {settings.region}",
            hint=f"zones there are written like {settings.region}a",
        )
    if settings.subnets and (bare := [zone for zone in settings.zones if zone not in settings.subnets]):
        raise Invalid(
            f"provider.settings.subnets has none for zone {bare[0]}", hint="add its subnet, or leave the zone out"
        )
