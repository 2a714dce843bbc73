"""The inventory of machines to join: a YAML document as a list of checked hosts."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from atoll.errors import Invalid
from atoll.fields import Fields
from atoll.suggest import hint

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,62})")
_JUMP = re.compile(r"((?P<user>[^@\s]+)@)?(?P<address>[^@:\s]+|\[[0-9a-fA-F:.]+\])(:(?P<port>\d{1,5}))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an SSH server is, and who one is there. An empty `user` is this machine's."""

    address: str
    port: int = 22
    user: str = ""

    def __str__(self) -> str:
        return (f"{self.user}@" if self.user else "") + self.address + (f":{self.port}" if self.port != 22 else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One machine: its agent's `name`, where it joins, and how it is reached.

    `key` is a private key's file (None: the user's own keys and ssh-agent), `jump` a server to go through,
    `home` where the agent keeps its state there (empty: `~/.atoll`). With `sudo` all is done as root.
    """

    name: str
    place: Place
    site: str
    group: str
    key: Path | None = None
    jump: Place | None = None
    sudo: bool = False
    home: str = ""


_DEFAULTS = ("port", "user", "site", "group", "key", "jump", "sudo", "home")


def hosts(document: Mapping[str, object], folder: Path) -> list[Host]:
    """Return the hosts of an inventory; raise `Invalid` with a did-you-mean where it is wrong.

    `hosts` is a list of names or mappings: `name` (required), `address` (default: the name) and the keys of
    `defaults`. Relative paths of keys start from `folder`, the inventory's.
    """
    fields = Fields(document, "inventory")
    defaults = fields.mapping("defaults")
    for key in defaults:
        if key not in _DEFAULTS:
            raise Invalid(
                f"unknown key {key!r} in inventory.defaults",
                hint=hint(key, _DEFAULTS, f"keys here: {', '.join(_DEFAULTS)}"),
            )
    listed = fields.raw("hosts")
    fields.done()
    if not isinstance(listed, list) or not listed:
        raise Invalid(
            "inventory.hosts must be a list of hosts", hint="hosts: [node-01.example.com, {name: node-02, …}]"
        )
    found = [_host(item, f"inventory.hosts[{n}]", defaults, folder) for n, item in enumerate(listed)]
    _once((host.name for host in found), "name")
    _once((f"{host.place.address}:{host.place.port} home {host.home or '~/.atoll'}" for host in found), "machine")
    return found


def _host(item: object, path: str, defaults: Mapping[str, object], folder: Path) -> Host:
    given = {"name": item} if isinstance(item, str) else item
    if not isinstance(given, Mapping):
        raise Invalid(f"{path} must be a name or a mapping", hint="write node-01.example.com, or name: below it")
    fields = Fields({**defaults, **given}, path)
    name = fields.text("name")
    if not name:
        raise fields.missing("name", "the agent's name; its address too, where none is given")
    if not _NAME.fullmatch(name):
        raise Invalid(f"{path}.name cannot be {name!r}", hint="letters, digits, dots and dashes")
    site = fields.text("site")
    if not site:
        raise fields.missing("site", "where the machine is: write site: here or below defaults:")
    key = fields.text("key")
    host = Host(
        name=name,
        place=Place(
            address=fields.text("address") or name,
            port=fields.integer("port", 22, low=1, high=65535),
            user=fields.text("user"),
        ),
        site=site,
        group=fields.text("group") or site,
        key=folder / Path(key).expanduser() if key else None,
        jump=_jump(fields.text("jump"), path),
        sudo=bool(fields.flag("sudo", False)),
        home=fields.text("home"),
    )
    fields.done()
    if host.home and not host.home.startswith("/"):
        raise Invalid(f"{path}.home must be a full path", hint="for example /var/lib/atoll")
    return host


def _jump(text: str, path: str) -> Place | None:
    if not text:
        return None
    found = _JUMP.fullmatch(text)
    if found is None or not 0 < int(found["port"] or 22) < 65536:
        raise Invalid(f"{path}.jump cannot be {text!r}", hint="write user@bastion.example.com:22")
    return Place(address=found["address"].strip("[]"), port=int(found["port"] or 22), user=found["user"] or "")


def _once(values: Iterable[str], what: str) -> None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise Invalid(f"the inventory has the {what} {value} twice", hint="each machine joins once")
        seen.add(value)


def only(found: list[Host], names: Iterable[str]) -> list[Host]:
    """Return the hosts named, all where none is; raise `Invalid` for a name that the inventory has not."""
    wanted = list(names)
    known = {host.name: host for host in found}
    for name in wanted:
        if name not in known:
            raise Invalid(f"the inventory has no host {name!r}", hint=hint(name, known, "see its list of hosts"))
    return [known[name] for name in wanted] or found


def as_user(host: Host, user: str) -> Host:
    """Return the host with the user to log in as, where the inventory says none."""
    jump = replace(host.jump, user=host.jump.user or user) if host.jump else None
    return replace(host, place=replace(host.place, user=host.place.user or user), jump=jump)
