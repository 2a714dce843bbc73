"""An `openstack` provider's settings: which cloud, whose credential, which image, network and flavors."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from atoll.errors import Invalid
from atoll.fields import Fields

INTERFACES = ("public", "internal", "admin")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """An application credential, or a user of a project with a password."""

    auth_url: str = ""
    application_credential_id: str = ""
    application_credential_name: str = ""
    application_credential_secret: str = field(default="", repr=False)
    username: str = ""
    password: str = field(default="", repr=False)
    project: str = ""
    user_domain: str = "Default"
    project_domain: str = "Default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Checked settings.

    `cloud` is an entry of the control plane's `clouds.yaml`, used where `credentials` are not given.
    `disk` is the size of a volume to boot from, in bytes; 0 boots from the image onto the flavor's own
    disk. `gpu_models` are GPU models by PCI alias, "" for an alias that is no GPU. `microversion` is the
    newest of compute's to be used.
    """

    image: str
    cloud: str = ""
    region: str = ""
    zones: tuple[str, ...] = ()
    network: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    gpu_models: Mapping[str, str] = field(default_factory=dict)
    disk: int = 0
    volume_type: str = ""
    key_name: str = ""
    config_drive: bool = False
    tags: Mapping[str, str] = field(default_factory=dict)
    interface: str = "public"
    endpoint: str = ""
    ca: str = ""
    microversion: str = "2.67"
    credentials: Credentials = Credentials()

    def sells(self, flavor: str) -> bool:
        """Say whether a flavor may be offered by the patterns (none: all may)."""
        return not self.patterns or any(fnmatchcase(flavor, pattern) for pattern in self.patterns)


def parse(document: Mapping[str, object]) -> Settings:
    """Return the settings of a provider's document; raise `Invalid` with a did-you-mean where it is wrong."""
    fields = Fields(document, "provider.settings")
    for key in ("spot", "public_ip"):
        if fields.flag(key, False):
            raise Invalid(f"provider.settings.{key} cannot be true: OpenStack has none", hint="leave it out")
    cloud = fields.text("cloud")
    credentials = _credentials(fields, cloud)
    settings = Settings(
        image=fields.text("image"),
        cloud=cloud,
        region=fields.text("region"),
        zones=fields.texts("zones"),
        network=fields.texts("network"),
        security_groups=fields.texts("security_groups"),
        patterns=fields.texts("shapes"),
        gpu_models=fields.texts_by_name("gpu_models"),
        disk=fields.bytes("disk", 0),
        volume_type=fields.text("volume_type"),
        key_name=fields.text("key_name"),
        config_drive=bool(fields.flag("config_drive", False)),
        tags=fields.texts_by_name("tags"),
        interface=fields.choice("interface", INTERFACES, "public"),
        endpoint=fields.text("endpoint"),
        ca=fields.text("ca"),
        microversion=fields.text("microversion") or "2.67",
        credentials=credentials,
    )
    if not settings.image:
        raise fields.missing("image", "name an image, or give its id: openstack image list")
    if settings.volume_type and not settings.disk:
        raise Invalid("provider.settings.volume_type needs disk", hint="write disk: 50GiB beside it")
    if not _is_version(settings.microversion):
        raise Invalid("provider.settings.microversion is no microversion", hint='write it like "2.67"')
    fields.done()
    return settings


def _credentials(fields: Fields, cloud: str) -> Credentials:
    section = fields.section("credentials")
    own = Credentials(
        auth_url=section.text("auth_url"),
        application_credential_id=section.text("application_credential_id"),
        application_credential_name=section.text("application_credential_name"),
        application_credential_secret=section.text("application_credential_secret"),
        username=section.text("username"),
        password=section.text("password"),
        project=section.text("project"),
        user_domain=section.text("user_domain") or "Default",
        project_domain=section.text("project_domain") or "Default",
    )
    if own == Credentials():
        section.done()
        if not cloud:
            raise fields.missing("credentials", "or name an entry of clouds.yaml: cloud: NAME")
        return own
    if not own.auth_url:
        raise section.missing("auth_url", "keystone's address, such as https://cloud.example:5000/v3")
    if own.application_credential_secret:
        if not own.application_credential_id and not (own.application_credential_name and own.username):
            raise section.missing("application_credential_id", "or its name together with username")
    elif not own.username or not own.password or not own.project:
        raise section.missing(
            "application_credential_secret", "with application_credential_id; or username, password and project"
        )
    section.done()
    return own


def _is_version(text: str) -> bool:
    major, _, minor = text.partition(".")
    return major == "2" and minor.isdecimal()
