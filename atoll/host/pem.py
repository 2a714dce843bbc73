"""PEM texts with several certificates or keys, without a library."""

import base64
import hashlib
import re

from atoll.errors import Invalid

_BLOCK = re.compile(r"-----BEGIN ([A-Z ]+)-----\n.+?-----END \1-----", re.DOTALL)


def blocks(pem: str) -> list[str]:
    """Return the parts of a PEM text: keys and certificates, one each."""
    return [match[0] + "\n" for match in _BLOCK.finditer(pem)]


def pins(pem: str) -> list[str]:
    """Return the SHA-256 (hex) of each certificate of a PEM text, in its order; raise `Invalid` where it has none."""
    try:
        ders = [base64.b64decode("".join(block.split("\n")[1:-2]), validate=True) for block in blocks(pem)]
    except ValueError:
        ders = []
    if not ders:
        raise Invalid("this is not a certificate in PEM form")
    return [hashlib.sha256(der).hexdigest() for der in ders]
