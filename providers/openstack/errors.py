"""What OpenStack's refusals mean, by status and message. Pure.

No message of a refusal is passed on that could hold what was sent: nova's schema errors quote the whole
value they refuse, user data included.
"""

import re

from providers.errors import Absent, Auth, BadRequest, Capacity, ProviderError, Quota, Throttled, Unknown

LONGEST = 300
RETRY_S = 5.0
_QUOTA = re.compile(r"quota|maximum number of (ports|volumes)|too many (instances|ports)|limit exceeded", re.IGNORECASE)
_LIMITS = ("instances", "cores", "ram", "gigabytes", "volumes", "port", "server_group_members", "metadata_items")
"""Names of limits as messages spell them; the first found is told. `Driver.quota` has the first three."""
_NO_HOST = ("no valid host", "exhausted all hosts", "maximum number of retries", "insufficient compute resources")
_NO_ZONE = "availability zone is not available"
"""Nova says so of zones it does not know, and of those whose hosts are all down or switched off."""
_OURS = ("image", "flavor", "block device", "volume type", "key pair", "keypair")
"""Words of faults that another try with the same settings would meet again."""


def refusal(status: int, message: str, retry_after: str = "") -> ProviderError:
    """Return the error for an HTTP answer of 400 or more."""
    said = plain(message)
    if status == 401:
        return Auth("OpenStack refuses the credential", hint="was it revoked, or has it expired?")
    if status in (413, 429):
        return Throttled("OpenStack takes no more calls for now", retry_after=_seconds(retry_after))
    if status == 403:
        if _QUOTA.search(message):
            return Quota(said, name=limit_of(message))
        return Auth(f"OpenStack does not allow it: {said}", hint="atoll provider doctor names the rights needed")
    if status == 404:
        return Absent(said or "it is not there")
    if status == 400 and _NO_ZONE in message.lower():
        return Capacity(said, scope="zone", hint="all its hosts are switched off, or it is misspelt")
    if status in (408, 425) or status >= 500:
        return Unknown(f"OpenStack answered {status}: {said}")
    return BadRequest(said or f"OpenStack answered {status}")


def fault(message: str) -> ProviderError:
    """Return the error for a server that could not be built, by the fault nova shows. It must be deleted still."""
    said, lower = plain(message), message.lower()
    if any(words in lower for words in _NO_HOST):
        return Capacity(said, hint="another flavor or zone may have some")
    if _QUOTA.search(message):
        return Quota(said, name=limit_of(message))
    if any(words in lower for words in _OURS):
        return BadRequest(said)
    return Capacity(
        f"OpenStack could not build it: {said}" if said else "OpenStack could not build it, and says no more"
    )


def limit_of(message: str) -> str:
    """Return the name of the limit that a message is about, "" where it names none we know."""
    return next((name for name in _LIMITS if re.search(rf"\b{name}", message, re.IGNORECASE)), "")


def plain(message: str) -> str:
    """Return a message without values that were sent, on one line and of bounded length."""
    text = re.sub(r"\bValue:.*", "(the value is left out)", message, flags=re.DOTALL | re.IGNORECASE)
    text = re.sub(r"[A-Za-z0-9+/=_-]{64,}", "(left out)", text)
    return " ".join(text.split())[:LONGEST]


def _seconds(retry_after: str) -> float:
    try:
        return max(1.0, float(retry_after))
    except ValueError:
        return RETRY_S  # absent, or a date
