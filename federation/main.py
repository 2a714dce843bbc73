"""The control plane's process, put together: the only place in the federation that names concrete classes.

`python -m federation --home DIR` runs it in the foreground; `up` and `down` start and stop it for a person.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from atoll.errors import AtollError, Invalid, Refused
from atoll.host.config import ServerConfig, atoll_home, split_listen
from atoll.host.files import refused, write_private
from federation.local import down, up
from federation.pidfile import PidFile

if TYPE_CHECKING:
    from atoll.host.process import LoopLag
    from federation.api.address import Address
    from federation.api.route import Services
    from federation.control.control import Control
    from federation.control.steps import Hook
    from federation.gateway.userdoor import UserDoor
    from federation.ports import Store
    from tunnel.acceptor import Acceptor, Serve
    from tunnel.identity import Authority

__all__ = ["down", "main", "up"]

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_ANYWHERE = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound to


def main(argv: Sequence[str] | None = None) -> int:
    """Run the control plane until SIGTERM or SIGINT; return its exit code."""
    options = _options(argv)
    ready = Ready(options.ready_fd)
    try:
        config = ServerConfig.load(options.config)
        from atoll.host.logging import configure

        configure(config.log.level, config.log.json)
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(options.home, config, options.listen or config.server.listen, ready))
    except AtollError as error:
        ready.failed(error)
        return error.exit_code
    except OSError as error:
        problem = refused(options.home, error)
        ready.failed(problem)
        return problem.exit_code
    return 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m federation", description="Run the control plane.")
    parser.add_argument("--home", type=Path, default=atoll_home(), help="where its database and keys are")
    parser.add_argument("--listen", default="", metavar="HOST:PORT")
    parser.add_argument("--config", type=Path, default=None)
    parser.add_argument("--ready-fd", type=int, default=-1, help="write one JSON line here when ready or failed")
    return parser.parse_args(argv)


class Ready:
    """Tells whoever started this process, once, that it serves or why it does not."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def serving(self, url: str) -> None:
        """Say that requests are answered at `url`."""
        if not self._tell({"url": url}):
            print(f"atoll: control plane at {url}", file=sys.stderr, flush=True)

    def failed(self, error: AtollError) -> None:
        """Say why the process ends."""
        told = {"error": error.message, "hint": error.hint, "code": error.code}
        if not self._tell(told):
            print(error.text, file=sys.stderr)

    def _tell(self, message: Mapping[str, str]) -> bool:
        if self._descriptor < 0:
            return False
        with contextlib.suppress(OSError):  # nobody may be waiting any more
            os.write(self._descriptor, json.dumps(message).encode() + b"\n")
            os.close(self._descriptor)
        self._descriptor = -1
        return True


async def serve(home: Path, config: ServerConfig, listen: str, ready: Ready) -> None:
    """Run the control plane in `home` at `listen` until a signal ends it. Raises `Refused` and its like."""
    async with contextlib.AsyncExitStack() as stack:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        pid = PidFile(home / "run" / "control.pid")
        pid.take()
        stack.callback(pid.drop)
        host, port = split_listen(listen)
        port = _free(host, port)
        address = addresses(config, host, port)
        authority = _authority(home, config, address)
        control, store = await _control(home, config, address, authority)
        stack.push_async_callback(store.close)
        await control.start()
        stack.push_async_callback(control.stop)
        stack.push_async_callback(await _listen(home, config, control, address, authority, (host, port)))
        url = await _profile(home, control, address, authority, (host, port))
        keeping = asyncio.create_task(control.rotation.keep(), name="certificates")
        stack.callback(keeping.cancel)
        ready.serving(url)
        await stop.wait()


def addresses(config: ServerConfig, host: str, port: int) -> "Address":
    """Return how an installation that listens on `host` and `port` is reached."""
    from federation.api.address import Address

    shown = _outward() if host in _ANYWHERE else host
    netloc = f"[{shown}]:{port}" if ":" in shown else f"{shown}:{port}"
    scheme = "http" if host in _LOOPBACK else "https"
    public = config.server.public_url.rstrip("/") or f"{scheme}://{netloc}"
    local_apps = config.server.apps_domain == "localhost"
    parts = urlsplit(public)
    if config.apps.path_mode and config.server.apps_domain in (parts.hostname, host.lower()):
        raise Invalid(
            f"apps.path_mode needs a name that the pages do not have: {config.server.apps_domain} is theirs",
            hint="set server.apps_domain to another name of this machine: a page's cookie must not be an app's, too",
        )
    return Address(
        public_url=public,
        agent_url=public if public.startswith("https://") else f"https://{netloc}",
        apps_domain=config.server.apps_domain,
        apps_scheme="http" if local_apps else parts.scheme,
        apps_port=port if local_apps else parts.port or 0,
        names=frozenset({"localhost", host.lower(), *(name.lower() for name in config.server.names)}),
        own_certificate=bool(config.tls.certificate),
        path_mode=config.apps.path_mode,
    )


def _authority(home: Path, config: ServerConfig, address: "Address") -> "Authority":
    from atoll.host.system import SystemClock
    from tunnel.identity import Authority

    hosts = {urlsplit(url).hostname or "" for url in (address.public_url, address.agent_url)}
    if address.path_mode:
        hosts.add(address.apps_domain)
    names = sorted({"localhost", "127.0.0.1", *hosts, *config.server.names} - {""})
    return Authority.load_or_create(home / "keys", now=SystemClock().now(), names=names)


async def _control(
    home: Path, config: ServerConfig, address: "Address", authority: "Authority"
) -> "tuple[Control, Store]":
    from atoll.host.system import SystemChance, SystemClock
    from federation.control.config import ControlConfig
    from federation.control.control import Control
    from federation.control.rulings import plugins
    from federation.control.steps import Steps
    from federation.store.bus import LocalBus
    from federation.store.database import open_store
    from federation.store.logs import FileLogs
    from providers.registry import DriverContext, feed, make

    clock = SystemClock()
    context = DriverContext(
        directory=_folder(home / "providers"), launch=Launcher(), clock=clock, proxy=config.clouds.proxy
    )
    store = await open_store(config.database.url or f"sqlite:///{home / 'atoll.db'}", clock)
    settings = ControlConfig(
        authority=authority,
        agent_url=address.agent_url,
        secret_key=_secret_key(home / "keys" / "secret.key"),
        calls_rate=config.clouds.calls_rate,
        calls_burst=config.clouds.calls_burst,
        mesh_network=config.mesh.network,
        mesh_network4=config.mesh.network4,
        public_apps=config.apps.public,
        **asdict(config.times),
    )
    control = Control(
        store,
        FileLogs(_folder(home / "output")),
        LocalBus(),
        clock,
        SystemChance(),
        lambda provider: make(provider, context),
        Steps(crash_hook(os.environ)),
        settings,
        feeds=lambda provider: feed(provider, context),
        verify=_price_signers(home / "keys" / "price_signers"),
        plugins=plugins,
        database="postgresql" if config.database.url.startswith("postgres") else "sqlite",
    )
    return control, store


def _price_signers(signers: Path) -> "Callable[[bytes, str], Awaitable[str]]":
    """Return the check of price files' signatures against those whom this installation trusts."""
    from atoll.host.signature import verify
    from providers.prices.file import NAMESPACE

    async def check(content: bytes, signature: str) -> str:
        return await asyncio.to_thread(verify, content, signature, signers, NAMESPACE)

    return check


async def _listen(
    home: Path,
    config: ServerConfig,
    control: "Control",
    address: "Address",
    authority: "Authority",
    where: tuple[str, int],
) -> Callable[[], Awaitable[None]]:
    """Serve agents, API, pages and apps on one port; return how to end that."""
    from aiohttp import web

    from atoll.host.system import SystemChance
    from federation.api.agentpack import AgentPack
    from federation.api.application import build
    from federation.api.auth import Door
    from federation.api.connection import connections
    from federation.api.grants import Grants
    from federation.api.route import Services
    from federation.gateway.gateway import Gateway
    from federation.gateway.sshdoor import SshDoor
    from federation.gateway.userdoor import UserDoor
    from federation.web.pages import Pages
    from tunnel.sshkeys import SshKeys

    grants = Grants(control.config.secret_key, control.clock)
    door = Door(control.tokens, grants, address, public=config.apps.public)
    services = Services(
        control=control,
        door=door,
        address=address,
        chance=SystemChance(),
        pack=AgentPack(home / "cache", home / "agent-packs"),
        ssh=SshKeys(home / "keys"),
    )
    gateway = Gateway(services)
    ssh = SshDoor(services)
    users = UserDoor(control, control.streams.relay, control.streams.now)
    app = build(services, pages=Pages(services).routes(), fronts=(gateway.front,))
    runner = web.AppRunner(app, shutdown_timeout=2.0)
    await runner.setup()
    http = connections(cast("web.Server", runner.server))
    acceptor, inside = _acceptors(config, control, authority, http, ssh.serve, users)
    services.take = inside.take
    lag = _figures(services, (acceptor, inside), users)
    try:
        await acceptor.listen(*where)
    except OSError as error:
        raise _in_use(where, error) from error

    async def end() -> None:
        await acceptor.close()
        await inside.close()
        lag.stop()
        services.closing.set()
        await ssh.close()
        await users.close()
        await gateway.close()
        await runner.cleanup()

    return end


def _figures(services: "Services", acceptors: "tuple[Acceptor, Acceptor]", users: "UserDoor") -> "LoopLag":
    """Add what the port and the event loop tell to the figures; return who measures the latter, begun."""
    from atoll.host.process import LoopLag
    from tunnel.metrics import Histogram, door_families, port_families

    late = Histogram(0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
    about = "How late the event loop called what was due, looked at every half second."
    port, inside = acceptors
    services.figures.append(lambda: port_families(port.refused + inside.refused, port.pending + inside.pending))
    services.figures.append(lambda: door_families(users.refused))
    services.figures.append(lambda: [late.family("atoll_loop_lag_seconds", about)])
    lag = LoopLag(late.add)
    lag.start()
    return lag


def _acceptors(
    config: ServerConfig, control: "Control", authority: "Authority", http: Any, ssh: "Serve", users: "UserDoor"
) -> "tuple[Acceptor, Acceptor]":
    """Return who takes connections on the one port, by ALPN: agents, joining machines, users, and HTTP; and SSH.

    The other takes those of them that come inside a WebSocket, but for HTTP.
    """
    from tunnel.acceptor import Acceptor, Route
    from tunnel.routes import data_routes, user_routes
    from tunnel.servertls import ServerTls
    from tunnel.sources import SourceLimits, Sources, source_of
    from tunnel.wire import ALPN_CONTROL, ALPN_JOIN, ALPN_UPLINK

    own = (Path(config.tls.certificate), Path(config.tls.key)) if config.tls.certificate else None

    def routes() -> "dict[str, Route]":
        return {
            ALPN_CONTROL: Route(authority.control_context(), control.links.accept),
            ALPN_UPLINK: Route(authority.uplink_context(), control.relays.uplinks.accept),
            **data_routes(authority.stream_context, control.streams.relay),
            **user_routes(authority.stream_context, users.accept),
            ALPN_JOIN: Route(authority.join_context(), http, counted=True),
            "http/1.1": Route(authority.http_context(own), http, counted=True, end=ServerTls),
        }

    def inner() -> "dict[str, Route]":
        return {name: route for name, route in routes().items() if name != "http/1.1"}

    def changed() -> None:
        acceptor.reroute(routes())
        inside.reroute(inner())

    def named(address: str) -> str:
        return "" if control.relays.uplinks.passes_on(address) else source_of(address)

    sources = Sources(control.clock.monotonic, SourceLimits(**asdict(config.sources)), named)
    acceptor, inside = Acceptor(routes(), plain=http, ssh=ssh, sources=sources), Acceptor(inner(), ssh=ssh)
    authority.on_change = changed
    return acceptor, inside


async def _profile(
    home: Path, control: "Control", address: "Address", authority: "Authority", where: tuple[str, int]
) -> str:
    """Make this user a client: an API token, kept 0600. Returns the URL that reaches us from this machine."""
    from atoll.client import profile
    from atoll.policy import ADMIN

    host, port = where
    near = "127.0.0.1" if host in _ANYWHERE or host == "localhost" else host
    plain = near in _LOOPBACK
    url = f"{'http' if plain else 'https'}://{f'[{near}]' if ':' in near else near}:{port}"
    place = home / "client.json"
    token = profile.load(place).token if place.exists() else ""
    if not token or not await _good(control, token):
        _, token = await control.tokens.create_api("admin", (ADMIN,))
    trusted = None if plain or address.own_certificate else authority.ca_pem
    profile.save(profile.Profile(url=url, token=token, ca=trusted), place)
    return url


async def _good(control: "Control", token: str) -> bool:
    try:
        await control.tokens.authenticate(token)
    except AtollError:
        return False
    return True


def crash_hook(environ: Mapping[str, str]) -> "Hook | None":
    """Return a hook that ends this process with SIGKILL at `ATOLL_CRASH_AT` (`before:launch.create`): for tests."""
    point = environ.get("ATOLL_CRASH_AT", "")
    if not point:
        return None

    def hook(when: str, step: str) -> None:
        if point == f"{when}:{step}":
            os.kill(os.getpid(), signal.SIGKILL)

    return hook


class Launcher:
    """Starts detached processes for providers, and collects those that ended."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[bytes]] = []

    def __call__(self, argv: Sequence[str], directory: Path, environment: Mapping[str, str]) -> int:
        """Start `argv` in `directory`, with this environment and no other, as a session of its own; return its pid."""
        self._started = [each for each in self._started if each.poll() is None]
        process = subprocess.Popen(
            list(argv),
            cwd=directory,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._started.append(process)
        return process.pid


def _secret_key(path: Path) -> bytes:
    if not path.exists():
        write_private(path, os.urandom(32))
    return path.read_bytes()


def _folder(path: Path) -> Path:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def _free(host: str, port: int) -> int:
    """Return `port`, or a free one for 0; raise `Refused` when it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise _in_use((host, port), error) from error
        return int(probe.getsockname()[1])


def _in_use(where: tuple[str, int], error: OSError) -> Refused:
    why = (error.strerror or str(error)).lower()
    return Refused(
        f"cannot listen on {where[0]}:{where[1]}: {why}", hint="choose another address with --listen HOST:PORT"
    )


def _outward() -> str:
    """Return the address this machine would use towards others; loopback where it has no route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # chooses a route, sends nothing
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])
