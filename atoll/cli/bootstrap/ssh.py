"""Running a script on a host over SSH, its key checked against known hosts: the only module with asyncssh."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncssh

from atoll.cli.bootstrap.inventory import Host, Place
from atoll.errors import AtollError, Refused, Unavailable

CONNECT_S = 15.0
"""A host that does not answer within this long is unreachable."""
_OUTPUT = 256 * 1024


@dataclass(frozen=True, slots=True)
class Ran:
    """How a script ended, and what it printed."""

    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """What hosts are believed by (`known_hosts` files) and what we show them; `password` only where one is given."""

    known_hosts: tuple[Path, ...]
    password: str | None = field(default=None, repr=False)


class Network:
    """Connections of one bootstrap: each jump host is dialled once for all hosts behind it."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust
        self._known = "\n".join(path.read_text() for path in trust.known_hosts if path.exists())
        self._jumps: dict[tuple[Place, Path | None], asyncio.Task[asyncssh.SSHClientConnection]] = {}
        self._open = AsyncExitStack()

    async def __aenter__(self) -> "Network":
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._jumps.values():
            task.cancel()
        await asyncio.gather(*self._jumps.values(), return_exceptions=True)
        await self._open.aclose()

    async def run(self, host: Host, script: str) -> Ran:
        """Run `script` by the host's shell, on its standard input. Raises `AtollError` where that cannot be begun."""
        command = "sudo -n -H sh -s" if host.sudo else "sh -s"
        async with self._connected(host.place, host.key, await self._via(host)) as link:
            try:
                done = await link.run(command, input=script, check=False, errors="replace")
            except (asyncssh.Error, OSError) as error:
                raise Unavailable(
                    f"the connection broke: {error}", hint="run it again: it does what is left"
                ) from error
        return Ran(
            -1 if done.exit_status is None else done.exit_status, _text(done.stdout), _text(done.stderr)
        )  # fmt: skip

    async def _via(self, host: Host) -> asyncssh.SSHClientConnection | None:
        if host.jump is None:
            return None
        key = (host.jump, host.key)
        if key not in self._jumps:
            self._jumps[key] = asyncio.create_task(self._jump(*key))
        try:
            return await asyncio.shield(self._jumps[key])
        except AtollError as error:
            raise type(error)(f"jump host {host.jump.address}: {error.message}", hint=error.hint) from error

    async def _jump(self, place: Place, key: Path | None) -> asyncssh.SSHClientConnection:
        return await self._open.enter_async_context(self._connected(place, key, None))

    @asynccontextmanager
    async def _connected(
        self, place: Place, key: Path | None, via: asyncssh.SSHClientConnection | None
    ) -> AsyncIterator[asyncssh.SSHClientConnection]:
        if key and not key.is_file():
            raise Refused(f"there is no key {key}", hint="see `key:` in the inventory")
        try:
            link = await self._connect(place, key, via)
        except asyncssh.HostKeyNotVerifiable as error:
            raise await self._untrusted(place, via) from error
        except asyncssh.PermissionDenied as error:
            offered = "the password" if self._trust.password is not None else "keys and ssh-agent"
            raise Refused(
                f"it refused the login of {place.user or 'this user'} with {offered}",
                hint=f"try: ssh{_port(place)} {place.user}@{place.address} true",
            ) from error
        except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
            raise Refused(
                f"the key {key} cannot be used: {error}", hint="a key with a passphrase goes into ssh-agent: ssh-add"
            ) from error
        except (asyncssh.Error, OSError) as error:
            raise Unavailable(f"cannot reach {place.address} port {place.port}: {_why(error)}", hint=_LOOK) from error
        async with link:
            yield link

    async def _connect(
        self, place: Place, key: Path | None, via: asyncssh.SSHClientConnection | None
    ) -> asyncssh.SSHClientConnection:
        return await asyncssh.connect(
            place.address,
            place.port,
            username=place.user,
            client_keys=[str(key)] if key else (),
            password=self._trust.password,
            known_hosts=self._known.encode(),
            tunnel=via,
            config=None,
            connect_timeout=CONNECT_S,
            login_timeout=CONNECT_S,
            keepalive_interval=15,
        )

    async def _untrusted(self, place: Place, via: asyncssh.SSHClientConnection | None) -> Refused:
        """Say whether a host is unknown or shows another key than the known one, with the fingerprints."""
        known = self._fingerprints(place)
        try:
            async with asyncio.timeout(CONNECT_S):
                key = await asyncssh.get_server_host_key(place.address, place.port, tunnel=via, config=None)
        except (asyncssh.Error, OSError):
            key = None
        shown = f"it shows {key.get_algorithm()} {key.get_fingerprint()}" if key else "it shows none"
        if known:
            return Refused(
                f"its host key is not the known one: {shown}, known is {', '.join(known)}",
                hint="somebody may be in between; if the host was installed anew, ssh-keygen -R it and add its new key",
            )
        return Refused(
            f"its host key is not known: {shown}",
            hint=f"compare with `ssh-keygen -lf` of its key there, then: ssh-keyscan{_port(place)} {place.address} "
            f">>{self._trust.known_hosts[0]}",
        )

    def _fingerprints(self, place: Place) -> Sequence[str]:
        keys, *_ = asyncssh.match_known_hosts(self._known.encode(), place.address, "", place.port)
        return [key.get_fingerprint() for key in keys]


_LOOK = "check address, port, firewall, and that sshd runs there"


def _port(place: Place) -> str:
    return f" -p {place.port}" if place.port != 22 else ""


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError | asyncssh.TimeoutError):
        return f"no answer within {CONNECT_S:.0f} s"
    return getattr(error, "strerror", None) or getattr(error, "reason", None) or str(error) or type(error).__name__


def _text(output: object) -> str:
    text = output.decode(errors="replace") if isinstance(output, bytes) else str(output or "")
    return text[-_OUTPUT:]
