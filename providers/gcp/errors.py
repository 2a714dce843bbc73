"""What Google's answers mean: HTTP status and reason, or the code inside a failed operation. Pure."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from providers.errors import Absent, Auth, BadRequest, Capacity, ProviderError, Quota, Throttled, Unknown


class Taken(BadRequest):
    """An instance of this name exists already: whose it is, only reading it can tell."""


_STOCKOUTS = frozenset(
    {
        "ZONE_RESOURCE_POOL_EXHAUSTED",
        "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS",
        "REGION_RESOURCE_POOL_EXHAUSTED",
        "RESOURCE_POOL_EXHAUSTED",
        "GPU_STOCKOUT",
        "UNSUPPORTED_OPERATION",  # seen for a spot machine that was reclaimed while it was made
    }
)
_QUOTAS = frozenset({"QUOTA_EXCEEDED", "quotaExceeded", "QUOTA_LIMIT_EXCEEDED"})
_RATES = frozenset(
    {
        "rateLimitExceeded",
        "userRateLimitExceeded",
        "dailyLimitExceeded",
        "RATE_LIMIT_EXCEEDED",
        "RESOURCE_OPERATION_RATE_EXCEEDED",
        "OPERATION_RATE_EXCEEDED",
    }
)
_TAKEN = frozenset({"alreadyExists", "RESOURCE_ALREADY_EXISTS"})
_REFUSED = frozenset({"PERMISSIONS_ERROR", "FORBIDDEN", "SERVICE_ACCOUNT_ACCESS_DENIED", "IAM_PERMISSION_DENIED"})
_DISABLED = frozenset({"accessNotConfigured", "SERVICE_DISABLED", "BILLING_DISABLED", "billingNotEnabled"})
_WRONG = frozenset(
    {
        "RESOURCE_NOT_FOUND",
        "INVALID_FIELD_VALUE",
        "INVALID_USAGE",
        "BAD_REQUEST",
        "CONDITION_NOT_MET",
        "RESOURCE_NOT_READY",
        "INVALID_ARGUMENT",
    }
)
_DISK = re.compile(r"resource type:\s*(pd|hyperdisk|disk)", re.IGNORECASE)
_LIMIT = re.compile(r"Quota '?([A-Z0-9_]+)'? exceeded")
_SHOWN = 300
_RETRY_S = 30.0


def answered(status: int, reason: str, message: str, *, retry_after: float = 0.0, instance: str = "") -> ProviderError:
    """Return the error of an HTTP answer to a call, which was about `instance` if about any.

    Only a 404 that names the instance says that it is gone: a wrong project, zone or proxy gives others.
    """
    shown = spoken(message) or f"Compute Engine answered {status}"
    if coded := _coded(reason, shown, retry_after):
        return coded
    if status == 429:
        return Throttled(shown, retry_after=retry_after or _RETRY_S)
    if status in (401, 403):
        return Auth(shown, hint="`atoll provider add gcp --doctor` shows the rights that are needed")
    if status == 404 and instance and f"/instances/{instance}'" in message:
        return Absent(shown)
    if status == 404 and instance:
        return Unknown(shown)
    if reason == "resourceNotReady" or status >= 500 or status in (408, 409, 412):
        return Unknown(shown)
    return BadRequest(shown)


def failed(operation: Mapping[str, Any]) -> ProviderError | None:
    """Return why an operation failed; None when it did not, or not yet."""
    errors = operation.get("error", {}).get("errors", [])
    if not errors:
        return None
    first = errors[0]
    code, shown = first.get("code", ""), spoken(first.get("message", "")) or first.get("code", "")
    if code in _QUOTAS:
        return Quota(shown, name=_limit(first) or _named(shown))
    return _coded(code, shown, 0.0) or (BadRequest(shown) if code in _WRONG else Unknown(shown))


def spoken(message: str) -> str:
    """Return a message without what was sent: Google repeats a refused metadata value, which holds the script."""
    field = re.search(r"resource\.metadata[\w.\[\]]*", message)
    return f"Invalid value for field '{field[0]}'" if field else message[:_SHOWN]


def _coded(code: str, shown: str, retry_after: float) -> ProviderError | None:
    if code in _STOCKOUTS:
        return Capacity(shown, scope="zone" if _DISK.search(shown) else "shape", hint="another zone may have some")
    if code in _QUOTAS:
        return Quota(shown, name=_named(shown), hint="ask for more in the console under IAM & Admin, Quotas")
    if code in _RATES:
        return Throttled(shown, retry_after=retry_after or _RETRY_S)
    if code in _TAKEN:
        return Taken(shown)
    if code in _REFUSED:
        return Auth(shown)
    if code in _DISABLED:
        return Auth(shown, hint="gcloud services enable compute.googleapis.com, and link a billing account")
    return None


def _limit(error: Mapping[str, Any]) -> str:
    """Return the limit's name from an error's details: `compute.googleapis.com/nvidia_l4_gpus` is NVIDIA_L4_GPUS."""
    details: Iterable[Mapping[str, Any]] = error.get("errorDetails", [])
    names = (detail.get("quotaInfo", {}).get("metricName", "") for detail in details)
    return next((name.rpartition("/")[2].upper() for name in names if name), "")


def _named(message: str) -> str:
    found = _LIMIT.search(message)
    return found[1] if found else ""
