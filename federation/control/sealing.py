"""Cloud credentials at rest: encrypted with a key that only the installation's secret gives."""

import base64
import json
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from atoll.clock import Chance
from atoll.errors import Invalid, Refused

MASK = "***"
"""What views show in place of credentials; sent back, it leaves them as they are."""
_MARK = "sealed:1:"
_NONCE = 12


class Seal:
    """Seals mappings (AES-256-GCM) for one place each, so that one provider's seal does not open as another's."""

    def __init__(self, secret_key: bytes, chance: Chance) -> None:
        derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"atoll provider credentials 1")
        self._cipher = AESGCM(derived.derive(secret_key))
        self._chance = chance

    def close(self, clear: Mapping[str, object], place: str) -> str:
        """Return the mapping as sealed text."""
        nonce = self._chance.token_bytes(_NONCE)
        told = self._cipher.encrypt(nonce, json.dumps(dict(clear), sort_keys=True).encode(), place.encode())
        return _MARK + base64.b64encode(nonce + told).decode()

    def open(self, sealed: str, place: str) -> dict[str, object]:
        """Return what was sealed for `place`; raise `Refused` when this installation's secret does not open it."""
        try:
            raw = base64.b64decode(sealed.removeprefix(_MARK), validate=True)
            clear = self._cipher.decrypt(raw[:_NONCE], raw[_NONCE:], place.encode())
        except (ValueError, InvalidTag):
            raise Refused(
                f"the stored credentials of {place} cannot be opened with this installation's secret",
                hint=f"give them anew: atoll provider rotate {place} --set credentials.…=@FILE",
            ) from None
        found: dict[str, object] = json.loads(clear)
        return found


def is_sealed(value: object) -> bool:
    """Say whether a setting's value is sealed text."""
    return isinstance(value, str) and value.startswith(_MARK)


def check_clear(value: object) -> Mapping[str, object]:
    """Return credentials as a person gave them; raise `Invalid` for anything but a mapping of names to values."""
    if not isinstance(value, Mapping) or not all(isinstance(name, str) for name in value):
        raise Invalid(
            "settings.credentials must be a mapping of names to values", hint="write names below it, one a line"
        )
    return value
