"""A user's files for the SSH door: a key of their own, its short-lived certificate, and the host key to expect."""

import hashlib
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from atoll.client.address import Address
from atoll.client.views import SshCertificateView
from atoll.errors import Refused
from atoll.host.config import atoll_home
from atoll.host.files import write_private

LEFT_S = 300.0
"""A certificate with less than this left is replaced."""
PROBE_S = 10.0
"""Most seconds that an SSH server may take to answer."""
NO_SSH = "install OpenSSH's client: apt install openssh-client"


@dataclass(frozen=True, slots=True)
class _About:
    """Which certificate is in place: of which control plane and token (its hash), good until when.

    `inside`: SSH goes inside a WebSocket, for no SSH server answered at the control plane's address.
    """

    url: str
    token: str
    expires_at: float
    inside: bool = False


class SshFiles:
    """The folder `$ATOLL_HOME/ssh`."""

    def __init__(self, address: Address, folder: Path | None = None) -> None:
        self._address = address
        self.folder = folder or atoll_home() / "ssh"
        self.key = self.folder / "id_ed25519"
        self.certificate = self.folder / "id_ed25519-cert.pub"
        self.known_hosts = self.folder / "known_hosts"

    def options(self, user: str, carrier: str) -> dict[str, str]:
        """Return the client's settings for a session, by their names in `ssh_config`.

        `carrier` is the command that brings SSH to the control plane where it cannot go by itself.
        """
        held = self._held()
        around = {"ProxyCommand": carrier.replace("%", "%%")} if held is not None and held.inside else {}
        return {
            **around,
            "HostName": self._address.host,
            "Port": str(self._address.port),
            "User": user,
            "IdentityFile": str(self.key),
            "CertificateFile": str(self.certificate),
            "IdentitiesOnly": "yes",
            "PreferredAuthentications": "publickey",
            "UserKnownHostsFile": str(self.known_hosts),
            "GlobalKnownHostsFile": "/dev/null",
            "StrictHostKeyChecking": "yes",
            "UpdateHostKeys": "no",
            "ServerAliveInterval": "15",
        }

    def renew(self, token: str, certify: Callable[[str], SshCertificateView], now: float) -> None:
        """Have a certificate that is good for some minutes more; raise `Refused` where this machine does not allow it.

        `certify` gets one for a public key, over the API, which vouches for the host key as well.
        """
        about = _About(self._address.url, hashlib.sha256(token.encode()).hexdigest()[:16], 0.0)
        held = self._held()
        if held and (held.url, held.token) == (about.url, about.token) and held.expires_at > now + LEFT_S:
            return
        view = certify(self._public())
        host = self._address.host
        shown = host if self._address.port == 22 else f"[{host}]:{self._address.port}"
        write_private(self.known_hosts, f"{shown} {view.host_key}\n")
        write_private(self.certificate, view.certificate + "\n")
        done = _About(about.url, about.token, view.expires_at, inside=not answers(self._address))
        write_private(self.folder / "certificate.json", json.dumps(asdict(done)) + "\n")

    def _held(self) -> _About | None:
        try:
            return _About(**json.loads((self.folder / "certificate.json").read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def _public(self) -> str:
        """Return the public key; make the pair where there is none."""
        public = self.key.with_suffix(".pub")
        if not (self.key.exists() and public.exists()):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.key.unlink(missing_ok=True)
            command = [program("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", "atoll", "-f", str(self.key)]
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
            if done.returncode:
                raise Refused(f"ssh-keygen failed: {(done.stderr or done.stdout).strip()}")
            os.chmod(self.key, 0o600)  # noqa: PTH101
        return public.read_text().strip()


def answers(address: Address) -> bool:
    """Say whether an SSH server answers at a control plane's address: none does where a load balancer opens TLS."""
    if address.scheme == "http":
        return True  # this very machine
    try:
        with socket.create_connection((address.host, address.port), PROBE_S) as probe:
            probe.settimeout(PROBE_S)
            probe.sendall(b"SSH-2.0-atoll\r\n")
            return probe.recv(4) == b"SSH-"
    except OSError:
        return False


def program(name: str) -> str:
    """Return a program's path; raise `Refused` where it is not installed."""
    path = shutil.which(name)
    if path is None:
        raise Refused(f"{name} is not installed on this machine", hint=NO_SSH)
    return path
