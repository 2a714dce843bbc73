"""Configuration of the control plane: where home is, and the TOML file with its overrides from the environment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from atoll.errors import Invalid
from atoll.suggest import hint


def atoll_home() -> Path:
    """Return `$ATOLL_HOME` or `~/.atoll`, absolute; it need not exist."""
    return Path(os.environ.get("ATOLL_HOME") or "~/.atoll").expanduser().absolute()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSection:
    """`[server]`: where to listen (`HOST:PORT`) and how others reach it.

    `public_url` is what agents and people type (empty: made from `listen`); `names` are further host
    names and addresses that the own certificate is to hold.
    """

    listen: str = "127.0.0.1:8700"
    public_url: str = ""
    apps_domain: str = "localhost"
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSection:
    """`[tls]`: an own certificate and key (PEM files) for browsers and CLI; empty: the installation's own CA."""

    certificate: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseSection:
    """`[database]`: `sqlite:///path` or `postgresql://…`; empty: SQLite in `$ATOLL_HOME`."""

    url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSection:
    """`[agent]`: the local agent that `atoll up` starts: whether, and with which pretended slots (empty: real ones)."""

    enabled: bool = True
    slots: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CloudsSection:
    """`[clouds]`: `proxy` is the HTTP proxy for calls to clouds (empty: HTTPS_PROXY and NO_PROXY say).

    Of each provider's creating, reading, listing of offers and changing, `calls_burst` calls go out at once,
    then `calls_rate` a second.
    """

    proxy: str = ""
    calls_rate: float = 5.0
    calls_burst: float = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshSection:
    """`[mesh]`: what sites' prefixes are cut from: `network` of IPv6 (empty: a range of the installation's own) and
    `network4` of IPv4 (empty: none).
    """

    network: str = ""
    network4: str = "100.64.0.0/10"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcesSection:
    """`[sources]`: what one address (of IPv6 a /64) may do before it has shown who it is; this machine may all.

    `rate` connections a second after a `burst`; at a time so many `handshakes`, and HTTP `connections`.
    """

    rate: float = 200.0
    burst: float = 2000.0
    handshakes: int = 192
    connections: int = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class AppsSection:
    """`[apps]`: `public` allows sessions' owners to open apps to everyone.

    `path_mode` serves apps below paths of `server.apps_domain`, where its names cannot have one host name an app.
    """

    public: bool = False
    path_mode: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSection:
    """`[log]`: `level` is debug, info, warning or error; `json` writes one JSON object a line."""

    level: str = "info"
    json: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TimesSection:
    """`[times]`, in seconds: periods of the control plane, each named as in `federation.control.config`."""

    schedule_s: float = 2.0
    home_s: float = 15.0
    launch_s: float = 2.0
    observe_s: float = 3.0
    absent_after_s: float = 60.0
    sweep_s: float = 120.0
    lost_after_s: float = 10.0
    settle_s: float = 45.0
    backoff_s: float = 20.0
    backoff_max_s: float = 300.0
    quota_s: float = 300.0
    learned_s: float = 900.0
    appears_s: float = 60.0
    mesh_rotate_s: float = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """All of it; every key is optional."""

    server: ServerSection = ServerSection()
    tls: TlsSection = TlsSection()
    database: DatabaseSection = DatabaseSection()
    agent: AgentSection = AgentSection()
    clouds: CloudsSection = CloudsSection()
    mesh: MeshSection = MeshSection()
    sources: SourcesSection = SourcesSection()
    apps: AppsSection = AppsSection()
    log: LogSection = LogSection()
    times: TimesSection = TimesSection()

    @classmethod
    def load(cls, path: Path | None = None, environ: Mapping[str, str] | None = None) -> "ServerConfig":
        """Read `path` (None: no file) and let `ATOLL_<SECTION>__<KEY>` variables override it.

        Raises `Invalid` for an unreadable file, an unknown section or key, or a value of the wrong type.
        """
        document = _read(path) if path else {}
        for name, value in (os.environ if environ is None else environ).items():
            section, separator, key = name.removeprefix("ATOLL_").partition("__")
            if name.startswith("ATOLL_") and separator:
                document.setdefault(section.lower(), {})[key.lower()] = _FromEnviron(name, value)
        return parse(document)


_SECTIONS: dict[str, Any] = {field.name: field.default for field in fields(ServerConfig)}


class _FromEnviron:
    """A value from the environment: text that takes the type of the key it is for."""

    def __init__(self, name: str, text: str) -> None:
        self.name, self.text = name, text


def parse(document: Mapping[str, Any]) -> ServerConfig:
    """Return the configuration of a parsed TOML document; raise `Invalid` naming the key at fault."""
    sections: dict[str, Any] = {}
    for name, values in document.items():
        if name not in _SECTIONS:
            raise Invalid(f"unknown section [{name}] in the configuration", hint=hint(name, _SECTIONS, _known()))
        if not isinstance(values, Mapping):
            raise Invalid(f"[{name}] in the configuration must be a section", hint=f"write [{name}] and keys below it")
        sections[name] = _section(name, values)
    config = ServerConfig(**sections)
    _check(config)
    return config


def split_listen(listen: str) -> tuple[str, int]:
    """Return host and port of `HOST:PORT` (`[::1]:8700` too); raise `Invalid` for anything else."""
    host, separator, port = listen.rpartition(":")
    if not separator or not host or not port.isdecimal() or int(port) > 65535:
        raise Invalid(f"{listen!r} is not HOST:PORT", hint="write it like 127.0.0.1:8700")
    return host.strip("[]"), int(port)


def _read(path: Path) -> dict[str, Any]:
    import tomllib  # here: the CLI imports this module for `atoll_home` on every start

    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise Invalid(f"cannot read the configuration {path}: {error.strerror}", hint="check --config") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"{path} is not a TOML file: {error}", hint="see docs for an example") from error


def _section(name: str, values: Mapping[str, Any]) -> Any:
    default = _SECTIONS[name]
    known = [field.name for field in fields(default)]
    given = {}
    for key, value in values.items():
        if key not in known:
            where = value.name if isinstance(value, _FromEnviron) else f"{name}.{key}"
            raise Invalid(f"unknown configuration key {where}", hint=hint(key, known, f"keys here: {', '.join(known)}"))
        given[key] = _value(f"{name}.{key}", value, getattr(default, key))
    return type(default)(**given)


def _value(path: str, value: Any, default: Any) -> Any:
    if isinstance(value, _FromEnviron):
        path, value = value.name, _from_text(value.text, default)
    if isinstance(default, bool):
        ok, wanted = isinstance(value, bool), "true or false"
    elif isinstance(default, float):
        ok, wanted = isinstance(value, int | float) and not isinstance(value, bool) and value > 0, "a number above 0"
    elif isinstance(default, tuple):
        ok, wanted = isinstance(value, list) and all(isinstance(v, str) for v in value), "a list of texts"
    else:
        ok, wanted = isinstance(value, str), "a text"
    if not ok:
        raise Invalid(f"configuration key {path} must be {wanted}", hint=f"it is {value!r}")
    return tuple(value) if isinstance(value, list) else float(value) if isinstance(default, float) else value


def _from_text(text: str, default: Any) -> Any:
    if isinstance(default, bool):
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}.get(text.lower(), text)
    if isinstance(default, float):
        try:
            return float(text)
        except ValueError:
            return text
    if isinstance(default, tuple):
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _check(config: ServerConfig) -> None:
    split_listen(config.server.listen)
    url = config.server.public_url
    if url and not url.startswith(("http://", "https://")):
        raise Invalid(f"server.public_url {url!r} is not a URL", hint="write it like https://fed.example.com")
    if config.clouds.proxy and not config.clouds.proxy.startswith(("http://", "https://")):
        raise Invalid(f"clouds.proxy {config.clouds.proxy!r} is not a URL", hint="write it like http://proxy:3128")
    if config.clouds.calls_rate <= 0 or config.clouds.calls_burst < 1:
        raise Invalid("clouds.calls_rate must be above 0, clouds.calls_burst at least 1", hint="as in calls_rate = 5.0")
    if config.mesh != MeshSection():
        from atoll.mesh import base_network  # here: the CLI imports this module on every start

        for key, text, version in (("network", config.mesh.network, 6), ("network4", config.mesh.network4, 4)):
            if text and base_network(text).version != version:
                raise Invalid(f"mesh.{key} {text!r} is not of IPv{version}", hint="see docs/mesh.md")
    if bool(config.tls.certificate) != bool(config.tls.key):
        raise Invalid("tls.certificate and tls.key belong together", hint="give both files, or neither")
    if config.log.level not in ("debug", "info", "warning", "error"):
        raise Invalid(f"log.level {config.log.level!r} is unknown", hint="debug, info, warning or error")


def _known() -> str:
    return "sections: " + ", ".join(_SECTIONS)
