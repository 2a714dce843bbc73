"""A join token: what a machine needs to become an agent, in one pasteable word."""

import base64
import binascii
import hashlib
from dataclasses import dataclass, field

from atoll.errors import Invalid

PREFIX = "atj_"
_PIN, _SUM = 32, 4


@dataclass(frozen=True, slots=True)
class JoinToken:
    """`url` of the control plane, `pin` (hex SHA-256 of its CA certificate's DER) and the single-use `secret`."""

    url: str
    pin: str
    secret: str = field(repr=False)

    def text(self) -> str:
        """Return `atj_…`: letters, digits, `-` and `_` only. A checksum tells a cut paste."""
        secret = self.secret.encode()
        body = bytes.fromhex(self.pin) + bytes([len(secret)]) + secret + self.url.encode()
        return PREFIX + base64.urlsafe_b64encode(_checksum(body) + body).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> "JoinToken":
        """Return the token that `text` spells; raise `Invalid` with a hint where it spells none."""
        text = text.strip()
        if not text.startswith(PREFIX):
            raise Invalid(
                "this is not a join token: they begin with atj_",
                hint="make one with `atoll token create` on the control plane and paste all of it",
            )
        try:
            encoded = text.removeprefix(PREFIX).encode("ascii")
            data = base64.b64decode(encoded + b"=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
            body = data[_SUM:]
            if data[:_SUM] != _checksum(body):
                raise ValueError("checksum")
            secret_at = _PIN + 1
            url_at = secret_at + body[_PIN]
            return cls(body[url_at:].decode(), body[:_PIN].hex(), body[secret_at:url_at].decode())
        except (ValueError, IndexError, binascii.Error):
            raise Invalid(
                "the join token is damaged: some of it was cut or changed",
                hint="paste the whole token, or make a new one with `atoll token create`",
            ) from None


def token_hash(secret: str) -> str:
    """Return the hex SHA-256 under which a secret is stored."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()[:_SUM]
