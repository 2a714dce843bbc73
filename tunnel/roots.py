"""The installation's certificate authorities on disk: the one that signs and, in a rotation, the one before.

A new one comes with a certificate of its key by the one before (RFC 4210's "new with old"): who knows only that one can
follow the chain, so that nobody is cut off while the change is spread.
"""

from dataclasses import dataclass
from pathlib import Path

from atoll.errors import Conflict, Invalid
from atoll.host.files import write_private
from atoll.host.pem import blocks
from tunnel import certificates

TTL_S = 3650 * 86_400.0
"""How long a certificate authority's own certificate lives."""


@dataclass(frozen=True, slots=True)
class Roots:
    """The authority that signs, `key` and `pem`; in a rotation `before` (PEM) is trusted, too, and `cross` leads to it.

    The key of the one before is gone from the moment of the rotation on: it signs nothing any more.
    """

    key: bytes
    pem: str
    before: str = ""
    cross: str = ""

    @property
    def trusted(self) -> str:
        """Everything to trust (PEM), newest first."""
        return self.pem + self.before

    @classmethod
    def load_or_create(cls, directory: Path, now: float) -> "Roots":
        """Load what `directory` holds, made where there is none. `now` is in Unix seconds."""
        place = directory / "ca.key"
        if place.exists():
            roots = cls._parsed(place.read_text(), directory / "ca.pem")
        else:
            key = certificates.new_key()
            roots = cls(key, certificates.new_authority(key, now=now, ttl_s=TTL_S))
        roots._keep(directory)
        return roots

    def rotated(self, directory: Path, now: float) -> "Roots":
        """Return what follows, kept on disk; raise `Conflict` while a rotation is under way."""
        if self.before:
            raise Conflict("the CA is being rotated already", hint="end that first: `atoll ca retire`")
        key = certificates.new_key()
        pem = certificates.new_authority(key, now=now, ttl_s=TTL_S)
        roots = Roots(key, pem, self.pem, certificates.cross_sign(pem, self.pem, self.key, now=now))
        roots._keep(directory)
        return roots

    def retired(self, directory: Path) -> "Roots":
        """Return what is left without the one before, kept on disk; raise `Conflict` where there is none."""
        if not self.before:
            raise Conflict("no CA is being rotated", hint="`atoll ca rotate` begins that")
        roots = Roots(self.key, self.pem)
        roots._keep(directory)
        return roots

    @classmethod
    def _parsed(cls, text: str, beside: Path) -> "Roots":
        parts = blocks(text)
        if len(parts) == 1 and beside.exists():  # as releases before the first rotation wrote it
            parts += blocks(beside.read_text())[:1]
        if len(parts) not in (2, 4):
            raise Invalid(f"{beside.with_name('ca.key')} is damaged", hint="restore it from a backup")
        key, pem, *rotation = parts
        return cls(key.encode(), pem, *rotation)

    def _keep(self, directory: Path) -> None:
        """Write one file with everything first, so that a crash leaves the old state or the new."""
        whole = self.key.decode() + self.pem + self.before + self.cross
        for path, text in ((directory / "ca.key", whole), (directory / "ca.pem", self.trusted)):
            if not path.exists() or path.read_text() != text:
                write_private(path, text)
