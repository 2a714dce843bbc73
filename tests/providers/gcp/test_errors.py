"""What Google's answers and failed operations are taken for."""

from typing import Any

import pytest

from providers.errors import Absent, Auth, BadRequest, Capacity, ProviderError, Quota, Throttled, Unknown
from providers.gcp.errors import Taken, answered, failed


@pytest.mark.parametrize(
    ("status", "reason", "kind"),
    [
        (400, "invalid", BadRequest),
        (400, "resourceNotReady", Unknown),
        (401, "authError", Auth),
        (403, "forbidden", Auth),
        (403, "accessNotConfigured", Auth),
        (403, "rateLimitExceeded", Throttled),
        (403, "userRateLimitExceeded", Throttled),
        (403, "quotaExceeded", Quota),
        (404, "notFound", BadRequest),
        (408, "", Unknown),
        (409, "alreadyExists", Taken),
        (409, "resourceInUse", Unknown),
        (412, "conditionNotMet", Unknown),
        (429, "", Throttled),
        (429, "RATE_LIMIT_EXCEEDED", Throttled),
        (500, "backendError", Unknown),
        (503, "backendError", Unknown),
        (503, "ZONE_RESOURCE_POOL_EXHAUSTED", Capacity),
    ],
)
def test_answers(status: int, reason: str, kind: type[ProviderError]) -> None:
    assert type(answered(status, reason, "said")) is kind


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("The resource 'projects/p/zones/us-east1-b/instances/atoll-1' was not found", Absent),
        ("The resource 'projects/p/zones/us-east1-b/instances/atoll-10' was not found", Unknown),
        ("The resource 'projects/p' was not found", Unknown),
        ("unknown error", Unknown),
    ],
)
def test_only_the_instance_s_own_404_says_that_it_is_gone(message: str, kind: type[ProviderError]) -> None:
    assert type(answered(404, "notFound", message, instance="atoll-1")) is kind


def test_throttling_says_when() -> None:
    told = answered(429, "", "slowly", retry_after=7.0)
    assert isinstance(told, Throttled)
    assert told.retry_after == 7.0
    guessed = answered(403, "rateLimitExceeded", "slowly")
    assert isinstance(guessed, Throttled)
    assert guessed.retry_after > 0


def operation(code: str, message: str = "said", **more: Any) -> dict[str, Any]:
    return {"status": "DONE", "error": {"errors": [{"code": code, "message": message, **more}]}}


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("ZONE_RESOURCE_POOL_EXHAUSTED", Capacity),
        ("ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", Capacity),
        ("QUOTA_EXCEEDED", Quota),
        ("RATE_LIMIT_EXCEEDED", Throttled),
        ("RESOURCE_ALREADY_EXISTS", Taken),
        ("PERMISSIONS_ERROR", Auth),
        ("INVALID_FIELD_VALUE", BadRequest),
        ("RESOURCE_NOT_FOUND", BadRequest),
        ("INTERNAL_ERROR", Unknown),
        ("SOMETHING_NEW", Unknown),
    ],
)
def test_operations(code: str, kind: type[ProviderError]) -> None:
    assert type(failed(operation(code))) is kind


def test_an_operation_that_did_not_fail() -> None:
    assert failed({"status": "DONE"}) is None
    assert failed({"status": "RUNNING", "error": {"errors": []}}) is None


@pytest.mark.parametrize(
    ("message", "scope"),
    [("... to fulfil the request. '(resource type:compute)'.", "shape"), ("... (resource type:pd-ssd)", "zone")],
)
def test_what_ran_out(message: str, scope: str) -> None:
    told = failed(operation("ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", message))
    assert isinstance(told, Capacity)
    assert told.scope == scope


@pytest.mark.parametrize(
    ("message", "details"),
    [
        ("Quota 'NVIDIA_L4_GPUS' exceeded.  Limit: 1.0 in region us-central1.", []),
        ("too much", [{"quotaInfo": {"metricName": "compute.googleapis.com/nvidia_l4_gpus"}}]),
    ],
)
def test_a_quota_is_named_as_the_driver_lists_it(message: str, details: list[dict[str, Any]]) -> None:
    told = failed(operation("QUOTA_EXCEEDED", message, errorDetails=details))
    assert isinstance(told, Quota)
    assert told.name == "NVIDIA_L4_GPUS"


def test_a_refused_script_is_not_repeated() -> None:
    said = (
        "Invalid value for field 'resource.metadata.items[0].value': '#!/bin/sh TOKEN=atj_secret'. Value is too large"
    )
    for told in (answered(400, "invalid", said), failed(operation("INVALID_FIELD_VALUE", said))):
        assert told is not None
        assert "atj_secret" not in str(told)
        assert "resource.metadata.items[0].value" in str(told)
