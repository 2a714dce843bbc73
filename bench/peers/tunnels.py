"""Ways of a TCP port to a server behind another machine: what people use instead of ours.

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

from bench.ends.common import enrol
from bench.processes import LOOPBACK, Place, Process, cpu_of, until
from tests.ports import free_port

CIPHER = "aes128-gcm@openssh.com"
CHAIN = "haproxy TLS chain"
"""The user's end, a relay and the far end, with TLS on both sides of the relay, as `atoll forward` has it."""


@dataclass(frozen=True)
class Way:
    """A contender: where users connect, and the processes (with their families) that are its relay, if it has one."""

    name: str
    host: str
    port: int
    relays: tuple[int, ...] = ()
    congestion: str = ""

    def cpu(self) -> float:
        """Return the processor seconds of the relay so far."""
        return sum(map(cpu_of, self.relays))


@dataclass(frozen=True)
class Field:
    """Where contenders are set up: a folder, the two places, the server's port at the far one."""

    folder: Path
    server: int
    near: Place = LOOPBACK
    far: Place = LOOPBACK


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
    return [Way("OpenSSH -R", field.near.host, users, (relay.pid,))]


def haproxy(field: Field, stack: ExitStack) -> list[Way]:
    """Two haproxy with TLS 1.3 between them, a thread each: the near one dials, so nothing is dialled back.

    And three in a row, with TLS between each: what the middle one does is what our relay's process does.
    """
    program = _program("haproxy")
    if program is None:
        return []
    folder, near, far = field.folder / "haproxy", field.near.host, field.far.host
    users, between, chained, middle = (free_port() for _ in range(4))
    folder.mkdir()
    authority = folder / "authority"
    enrol(folder)
    pem = folder / "server.pem"
    pem.touch(mode=0o600)
    pem.write_text((authority / "server.pem").read_text() + (authority / "server.key").read_text())
    served = f"ssl crt {pem}"
    verified = f"ssl verify required ca-file {authority / 'ca.pem'} verifyhost localhost sni str(localhost)"

    def start(place: Place, bind: str, server: str) -> Process:
        config = folder / bind.split()[0]
        config.write_text(
            "global\n nbthread 1\n maxconn 4000\n ssl-default-bind-options ssl-min-ver TLSv1.3\n"
            "defaults\n mode tcp\n timeout connect 10s\n timeout client 1h\n timeout server 1h\n"
            f" option tcp-smart-accept\nlisten it\n bind {bind}\n server one {server}\n"
        )
        return stack.enter_context(Process([program, "-db", "-f", str(config)], place))

    start(field.far, f"{far}:{between} {served}", f"{far}:{field.server}")
    pair = start(field.near, f"{near}:{users}", f"{far}:{between} {verified}")
    chain = start(field.near, f"{near}:{middle} {served}", f"{far}:{between} {verified}")
    client = start(field.near, f"{near}:{chained}", f"{near}:{middle} {verified}")
    for process, port in ((pair, users), (chain, middle), (client, chained)):
        _listening(process, field, port)
    return [Way("haproxy TLS pair", near, users, (pair.pid,)), Way(CHAIN, near, chained, (chain.pid,))]


def asyncssh(field: Field, stack: ExitStack) -> list[Way]:
    """A reverse forward of asyncssh on uvloop, with OpenSSH's cipher of above."""
    users = free_port()
    relay = stack.enter_context(Process.python("bench.peers.sshforward", "relay", field.near.host, place=field.near))
    told = relay.answer()
    agent = ("agent", field.near.host, told["port"], users, field.far.host, field.server)
    stack.enter_context(Process.python("bench.peers.sshforward", *agent, place=field.far)).line()
    return [Way("asyncssh reverse", field.near.host, users, (relay.pid,))]


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
    return [Way("chisel", field.near.host, users, (relay.pid,))]


PEERS: dict[str, Callable[[Field, ExitStack], list[Way]]] = {
    "OpenSSH -R": openssh,
    "haproxy TLS pair": haproxy,
    "asyncssh reverse": asyncssh,
    "chisel": chisel,
}


@contextlib.contextmanager
def server(place: Place = LOOPBACK, congestion: str = "") -> Iterator[int]:
    """Run the server that all ways lead to; yield its port."""
    words = (place.host, congestion) if congestion else (place.host,)
    with Process.python("bench.traffic", "serve", *words, place=place) as process:
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
