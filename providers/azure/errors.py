"""What Azure's error codes mean. The code alone decides: one HTTP status stands for many things, 200 among them."""

import re

from providers.errors import Absent, Auth, BadRequest, Capacity, ProviderError, Quota, Throttled, Unknown

_SHAPE = frozenset({
    "AllocationFailed", "OverconstrainedAllocationRequest", "OverconstrainedZonalAllocationRequest",
    "SkuNotAvailable", "AllocationTimedOut", "SpotVMNotAvailable", "CapacityNotAvailable",
})  # fmt: skip
_ZONE = frozenset({"ZonalAllocationFailed"})
_QUOTA = frozenset({
    "QuotaExceeded", "PublicIPCountLimitReached", "PublicIPAddressCountLimitReached",
    "NetworkInterfaceCountLimitReached", "ResourceCountExceedsLimit", "ResourceQuotaExceeded", "SubnetIsFull",
})  # fmt: skip
_THROTTLED = frozenset({
    "TooManyRequests", "OperationThrottled", "SubscriptionRequestsThrottled", "ResourceRequestsThrottled",
    "RequestThrottled", "ResourceCollectionRequestsThrottled",
})  # fmt: skip
_AUTH = frozenset({
    "AuthorizationFailed", "AuthenticationFailed", "ExpiredAuthenticationToken", "InvalidAuthenticationToken",
    "InvalidAuthenticationTokenTenant", "InvalidAuthenticationTokenAudience", "LinkedAuthorizationFailed",
    "AuthenticationFailedMissingToken", "SubscriptionNotFound", "RequestDisallowedByPolicy",
    "ReadOnlyDisabledSubscription", "MissingSubscriptionRegistration",
})  # fmt: skip
_ABSENT = frozenset({"ResourceNotFound", "NotFound", "ParentResourceNotFound", "OperationNotFound"})
_INVALID = frozenset({
    "InvalidParameter", "InvalidRequestContent", "InvalidRequestFormat", "InvalidResourceReference", "BadRequest",
    "PropertyChangeNotAllowed", "ResourceGroupNotFound", "PlatformImageNotFound", "ImageNotFound",
    "InvalidTagNameCharacters", "InvalidTagNameLength", "InvalidTagValueLength", "LocationNotAvailableForResourceType",
    "InvalidApiVersionParameter", "NoRegisteredProviderFound", "InvalidResourceName", "InvalidSubscriptionId",
    "VMMarketplaceInvalidInput", "ResourcePurchaseValidationFailed", "BillingProfileNotSupported",
    "OperationNotAllowed",
})  # fmt: skip
TAKEN = "PreconditionFailed"
"""The code of a conditional create when something of that name exists."""
RESERVED = frozenset({
    "NicReservedForAnotherVm", "NicInUse", "PublicIPAddressCannotBeDeleted", "InUsePublicIpAddressCannotBeDeleted",
})  # fmt: skip
"""Azure holds a card for some minutes for the machine that was not made: it can be deleted later."""

_LIMIT = re.compile(r"exceeding approved ([\w -]+?) quota", re.IGNORECASE)
_LONG = re.compile(r"[A-Za-z0-9+/=_-]{120,}")
_MESSAGE_CHARS = 600


def classified(code: str, message: str, status: int = 0, retry_after: float = 0.0) -> ProviderError:
    """Return the error of an Azure error code.

    `status` counts only where there is no known code. `retry_after` is in seconds, as the answer's header says.
    A code nobody knows is `Unknown`, which never means that nothing was made.
    """
    text = f"Azure says {code or status or 'nothing'}: {readable(message)}"
    if code in _QUOTA or (code in ("OperationNotAllowed", "Conflict") and "quota" in message.lower()):
        return Quota(text, name=limit_name(message), hint="the subscription's quotas: az vm list-usage")
    if code in _SHAPE:
        return Capacity(text, hint="another size, zone or region may have some")
    if code in _ZONE:
        return Capacity(text, scope="zone", hint="another zone or region may have some")
    if code in _THROTTLED or (status == 429 and code not in _INVALID):
        return Throttled(text, retry_after=retry_after or 30.0)
    for codes, kind in ((_AUTH, Auth), (_ABSENT, Absent), (_INVALID, BadRequest)):
        if code in codes:
            return kind(text)
    return _by_status(status, text)


def readable(message: str) -> str:
    """Return a message short enough to show, without anything that looks like encoded data."""
    return _LONG.sub("…", " ".join(message.split()))[:_MESSAGE_CHARS]


def limit_name(message: str) -> str:
    """Return the name `Driver.quota` gives the limit that a refusal speaks of; "" where it names none."""
    found = _LIMIT.search(message)
    if not found:
        return ""
    words = found[1].removesuffix(" Cores").strip()
    plain = words.lower().replace("-", "").replace(" ", "")
    if "lowpriority" in plain or "spot" in plain:
        return "lowPriorityCores"
    return "cores" if plain in ("totalregional", "totalregionalvcpus", "totalregionalcores") else words


def _by_status(status: int, text: str) -> ProviderError:
    if status in (401, 403):
        return Auth(text)
    if status == 404:
        return Absent(text)
    return BadRequest(text) if status in (400, 405, 413, 415) else Unknown(text)
