"""Azure's codes, as its servers send them, against the kinds of errors the control plane knows."""

import pytest

from providers.azure.errors import classified, limit_name, readable
from providers.errors import Absent, Auth, BadRequest, Capacity, ProviderError, Quota, Throttled, Unknown

OVER = (
    "Operation could not be completed as it results in exceeding approved {} quota. Additional details - Deployment "
    "Model: Resource Manager, Location: westeurope, Current Limit: 10, Current Usage: 10, Additional Required: 2."
)


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("AllocationFailed", 200, Capacity),
        ("OverconstrainedZonalAllocationRequest", 200, Capacity),
        ("ZonalAllocationFailed", 200, Capacity),
        ("SkuNotAvailable", 409, Capacity),
        ("QuotaExceeded", 409, Quota),
        ("PublicIPCountLimitReached", 400, Quota),
        ("TooManyRequests", 429, Throttled),
        ("SubscriptionRequestsThrottled", 429, Throttled),
        ("ExpiredAuthenticationToken", 401, Auth),
        ("AuthorizationFailed", 403, Auth),
        ("InvalidParameter", 400, BadRequest),
        ("OperationNotAllowed", 409, BadRequest),
        ("PropertyChangeNotAllowed", 409, BadRequest),
        ("ResourceGroupNotFound", 404, BadRequest),
        ("ResourceNotFound", 404, Absent),
        ("ParentResourceNotFound", 404, Absent),
        ("InternalServerError", 500, Unknown),
        ("NetworkingInternalOperationError", 200, Unknown),
        ("SomethingNew", 409, Unknown),
        ("", 503, Unknown),
        ("", 429, Throttled),
        ("", 401, Auth),
        ("", 403, Auth),
        ("", 404, Absent),
        ("", 400, BadRequest),
        ("", 0, Unknown),
    ],
)
def test_the_code_decides(code: str, status: int, kind: type[ProviderError]) -> None:
    assert type(classified(code, "words", status)) is kind


def test_quota_hides_behind_a_code_of_many_meanings() -> None:
    error = classified("OperationNotAllowed", OVER.format("standardDSv5Family Cores"), 409)
    assert isinstance(error, Quota)
    assert error.name == "standardDSv5Family"


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("standardDSv5Family Cores", "standardDSv5Family"),
        ("Standard NCASv3_T4 Family Cores", "Standard NCASv3_T4 Family"),
        ("Total Regional Cores", "cores"),
        ("LowPriorityCores", "lowPriorityCores"),
        ("Total Regional Low-priority vCPUs", "lowPriorityCores"),
    ],
)
def test_a_limit_has_the_name_the_usages_give_it(words: str, name: str) -> None:
    assert limit_name(OVER.format(words)) == name


def test_a_zone_without_any_is_told_from_a_size_without_any() -> None:
    zonal, shape = classified("ZonalAllocationFailed", ""), classified("AllocationFailed", "")
    assert isinstance(zonal, Capacity)
    assert isinstance(shape, Capacity)
    assert (zonal.scope, shape.scope) == ("zone", "shape")


def test_throttling_says_when() -> None:
    told, untold = classified("TooManyRequests", "", 429, 17.0), classified("TooManyRequests", "", 429)
    assert isinstance(told, Throttled)
    assert isinstance(untold, Throttled)
    assert (told.retry_after, untold.retry_after) == (17.0, 30.0)


def test_what_looks_like_data_is_not_shown() -> None:
    shown = readable("Custom data  is wrong:\n" + "QUJD" * 100 + " " + "word " * 500)
    assert "QUJD" not in shown
    assert shown.startswith("Custom data is wrong: … word")
    assert len(shown) == 600
