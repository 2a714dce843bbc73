"""The SSH keys of an installation: its door's host key, and the key that signs users' short-lived certificates."""

import os
from functools import cached_property
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    SSHCertificateBuilder,
    SSHCertificateType,
    load_ssh_private_key,
    load_ssh_public_key,
)

from atoll.errors import Invalid
from tunnel.identity import write_private

TTL_S = 900.0
"""A user's certificate is good for this long."""
SKEW_S = 60.0
"""… and from this long before it was made, for clocks that are late."""
_EXTENSIONS = (b"permit-port-forwarding", b"permit-pty")


class SshKeys:
    """Both keys in `directory` (0600), each made when it is first asked for."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @cached_property
    def host_key(self) -> bytes:
        """The host key, private, in OpenSSH's format."""
        return _kept(self._directory / "ssh_host.key")

    @cached_property
    def host_public(self) -> str:
        """The host key as `known_hosts` has it: `ssh-ed25519 AAAA…`."""
        return _public(self.host_key)

    @cached_property
    def ca_public(self) -> str:
        """The key that signs users' certificates, likewise."""
        return _public(self._ca_key)

    @cached_property
    def _ca_key(self) -> bytes:
        return _kept(self._directory / "ssh_ca.key")

    def certify(self, key: str, principals: tuple[str, ...], *, name: str, now: float, ttl_s: float = TTL_S) -> str:
        """Return an OpenSSH user certificate for a public key (`ssh-ed25519 AAAA…`); raise `Invalid` for a bad one.

        `name` is its key id, for logs. It lets its holder have terminals and forward ports, nothing else.
        """
        try:
            public = load_ssh_public_key(key.strip().encode())
        except (ValueError, UnsupportedAlgorithm):
            public = None
        if not isinstance(public, Ed25519PublicKey | EllipticCurvePublicKey):
            raise Invalid("this is no public key that is taken here", hint="make one: ssh-keygen -t ed25519")
        builder = (
            SSHCertificateBuilder()
            .public_key(public)
            .serial(int.from_bytes(os.urandom(8), "big"))
            .type(SSHCertificateType.USER)
            .key_id(name.encode())
            .valid_principals([principal.encode() for principal in principals])
            .valid_after(int(now - SKEW_S))
            .valid_before(int(now + ttl_s))
        )
        for extension in _EXTENSIONS:
            builder = builder.add_extension(extension, b"")
        signer = load_ssh_private_key(self._ca_key, None)
        if not isinstance(signer, Ed25519PrivateKey):
            raise Invalid(f"{self._directory / 'ssh_ca.key'} is no ed25519 key")
        return builder.sign(signer).public_bytes().decode()


def _kept(path: Path) -> bytes:
    if not path.exists():
        key = Ed25519PrivateKey.generate()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path, key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    return path.read_bytes()


def _public(private: bytes) -> str:
    key = load_ssh_private_key(private, None)
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
