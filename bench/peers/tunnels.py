"""Ways of a TCP port to a server behind another machine: ours by three lanes, and what people use instead.

Each is started with its relay end near the user and its agent end far away, both on loopback unless told otherwise,
and has a plain TCP port for users. Peers whose program is not there are left out, and `absent` says so.
"""

import contextlib
import getpass
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.processes import LOOPBACK, Place, Process, until
from bench.tunnelends import enrol
from tests.e2e.installation import free_port

CIPHER = "aes128-gcm@openssh.com"


@dataclass(frozen=True)
class Way:
    """A contender: the users' port and the processes of its relay."""

    name: str
    port: int
    relay: Process | None = None

    def cpu(self) -> float:
        """Return the processor seconds of the relay so far."""
        return self.relay.cpu() if self.relay else 0.0


@dataclass(frozen=True)
class Field:
    """Where contenders are set up: a folder, the two places, the server's port at the far one."""

    folder: Path
    server: int
    near: Place = LOOPBACK
    far: Place = LOOPBACK


def ours(field: Field, stack: ExitStack) -> list[Way]:
    """Start relay, agent and client; return a way for each lane."""
    folder, near = field.folder / "ours", field.near
    enrol(folder)
    relay = stack.enter_context(relay_end(folder, place=near))
    doors = relay.answer()
    url = f"https://{near.host}:{doors['port']}"
    agent = Process.python("bench.tunnelends", "agent", folder, field.far.host, field.server, url, place=field.far)
    stack.enter_context(agent)
    if not agent.answer()["welcomed"]:
        raise RuntimeError("the agent was not welcomed")
    client = stack.enter_context(Process.python("bench.tunnelends", "client", near.host, doors["splice"], place=near))
    return [
        Way("mux", doors["mux"], relay),
        Way("data", doors["data"], relay),
        Way("splice", client.answer()["port"], relay),
    ]


def relay_end(folder: Path, port: int = 0, doors: str = "{}", place: Place = LOOPBACK) -> Process:
    """Start our relay; its first line says its ports."""
    return Process.python("bench.tunnelends", "relay", folder, place.host, port, doors, place=place)


def raw(field: Field, stack: ExitStack) -> list[Way]:  # noqa: ARG001
    """The server itself: what load, server and kernel can do."""
    return [Way("raw TCP", field.server)]


def openssh(field: Field, stack: ExitStack) -> list[Way]:
    """`ssh -R` to a server of its own, with throwaway keys."""
    server = _program("sshd")
    if server is None or shutil.which("ssh") is None:
        return []
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where Debian's sshd separates privileges
    folder, port, users = field.folder / "openssh", free_port(), free_port()
    folder.mkdir()
    for name in ("host", "user"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / name)]
        subprocess.run(command, check=True)
    (folder / "sshd_config").write_text(
        f"ListenAddress {field.near.host}\nPort {port}\nHostKey {folder / 'host'}\nPidFile none\n"
        f"AuthorizedKeysFile {folder / 'user'}.pub\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
        f"PermitRootLogin yes\nCiphers {CIPHER}\nCompression no\nGatewayPorts clientspecified\nMaxSessions 100\n"
    )
    relay = stack.enter_context(Process([server, "-D", "-e", "-f", str(folder / "sshd_config")], field.near))
    _listening(relay, field, port)
    options = {
        "StrictHostKeyChecking": "no", "UserKnownHostsFile": "/dev/null", "ExitOnForwardFailure": "yes",
        "IdentitiesOnly": "yes", "Ciphers": CIPHER, "BatchMode": "yes",
    }  # fmt: skip
    forward = f"{field.near.host}:{users}:{field.far.host}:{field.server}"
    command = ["ssh", "-F", "/dev/null", "-N", "-R", forward, "-i", str(folder / "user"), "-p", str(port)]
    command += [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    stack.enter_context(Process([*command, f"{getpass.getuser()}@{field.near.host}"], field.far))
    _listening(relay, field, users)
    return [Way("OpenSSH -R", users, relay)]


def haproxy(field: Field, stack: ExitStack) -> list[Way]:
    """Two haproxy with TLS 1.3 between them, a thread each: the near one dials, so nothing is dialled back."""
    program = _program("haproxy")
    if program is None:
        return []
    folder, users, between = field.folder / "haproxy", free_port(), free_port()
    folder.mkdir()
    authority = folder / "authority"
    enrol(folder)
    pem = folder / "server.pem"
    pem.touch(mode=0o600)
    pem.write_text((authority / "server.pem").read_text() + (authority / "server.key").read_text())
    common = (
        "global\n nbthread 1\n maxconn 4000\n ssl-default-bind-options ssl-min-ver TLSv1.3\n"
        "defaults\n mode tcp\n timeout connect 10s\n timeout client 1h\n timeout server 1h\n option tcp-smart-accept\n"
    )
    far, near = field.far.host, field.near.host
    (folder / "far").write_text(
        f"{common}listen far\n bind {far}:{between} ssl crt {pem}\n server one {far}:{field.server}\n"
    )
    verified = f"ssl verify required ca-file {authority / 'ca.pem'} verifyhost localhost"
    (folder / "near").write_text(
        f"{common}listen near\n bind {near}:{users}\n server one {far}:{between} {verified} sni str(localhost)\n"
    )
    stack.enter_context(Process([program, "-db", "-f", str(folder / "far")], field.far))
    relay = stack.enter_context(Process([program, "-db", "-f", str(folder / "near")], field.near))
    _listening(relay, field, users)
    return [Way("haproxy TLS pair", users, relay)]


def asyncssh(field: Field, stack: ExitStack) -> list[Way]:
    """A reverse forward of asyncssh on uvloop, with OpenSSH's cipher of above."""
    users = free_port()
    relay = stack.enter_context(Process.python("bench.peers.sshforward", "relay", field.near.host, place=field.near))
    told = relay.answer()
    agent = ("agent", field.near.host, told["port"], users, field.far.host, field.server)
    stack.enter_context(Process.python("bench.peers.sshforward", *agent, place=field.far)).line()
    return [Way("asyncssh reverse", users, relay)]


def chisel(field: Field, stack: ExitStack) -> list[Way]:
    """`chisel client … R:`, without TLS: it encrypts by SSH anyway."""
    program = _program("chisel")
    if program is None:
        return []
    port, users = free_port(), free_port()
    command = [program, "server", "--reverse", "--host", field.near.host, "--port", str(port)]
    relay = stack.enter_context(Process(command, field.near))
    _listening(relay, field, port)
    forward = f"R:{field.near.host}:{users}:{field.far.host}:{field.server}"
    stack.enter_context(Process([program, "client", f"http://{field.near.host}:{port}", forward], field.far))
    _listening(relay, field, users)
    return [Way("chisel", users, relay)]


PEERS: dict[str, Callable[[Field, ExitStack], list[Way]]] = {
    "OpenSSH -R": openssh,
    "haproxy TLS pair": haproxy,
    "asyncssh reverse": asyncssh,
    "chisel": chisel,
}


@contextlib.contextmanager
def server(place: Place = LOOPBACK) -> Iterator[int]:
    """Run the server that all ways lead to; yield its port."""
    with Process.python("bench.traffic", "serve", place.host, place=place) as process:
        yield int(process.line())


def peers(field: Field, stack: ExitStack) -> tuple[list[Way], list[str]]:
    """Start all peers that this machine has; return them and the names of the others."""
    found: list[Way] = []
    absent: list[str] = []
    for name, start in PEERS.items():
        ways = start(field, stack)
        found += ways
        if not ways:
            absent.append(name)
    return found, absent


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")


def _listening(process: Process, field: Field, port: int) -> None:
    """Wait until a port takes connections, as seen from the near place."""
    probe = f"import socket; socket.create_connection(({field.near.host!r}, {port}), 2).close()"

    def answers() -> bool:
        if not process.running():
            raise RuntimeError(f"ended before it listened: {process.errors()}")
        command = [*field.near.prefix, sys.executable, "-c", probe]
        return subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0

    until(answers, f"port {port}")
