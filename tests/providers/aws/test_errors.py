import pytest

from providers.aws.errors import MESSAGE_CHARS, Refused, classify
from providers.errors import Absent, Auth, BadRequest, Capacity, ProviderError, Quota, Throttled, Unknown


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("InsufficientInstanceCapacity", 500, Capacity),
        ("InsufficientFreeAddressesInSubnet", 400, Capacity),
        ("SpotMaxPriceTooLow", 400, Capacity),
        ("Unsupported", 400, Capacity),
        ("UnsupportedOperation", 400, BadRequest),
        ("MaxSpotInstanceCountExceeded", 400, Quota),
        ("VcpuLimitExceeded", 400, Quota),
        ("InstanceLimitExceeded", 400, Quota),
        ("RequestLimitExceeded", 503, Throttled),
        ("ThrottlingException", 400, Throttled),
        ("WhateverElse", 429, Throttled),
        ("AuthFailure", 401, Auth),
        ("UnauthorizedOperation", 403, Auth),
        ("ExpiredToken", 400, Auth),
        ("RequestExpired", 400, Auth),
        ("AccessDeniedException", 400, Auth),
        ("OptInRequired", 401, Auth),
        ("InvalidInstanceID.NotFound", 400, Absent),
        ("InvalidParameterValue", 400, BadRequest),
        ("InvalidAMIID.NotFound", 400, BadRequest),
        ("IdempotentParameterMismatch", 400, BadRequest),
        ("InternalError", 500, Unknown),
        ("Unavailable", 503, Unknown),
        ("503", 503, Unknown),
        ("", 502, Unknown),
    ],
)
def test_codes_mean(code: str, status: int, kind: type[ProviderError]) -> None:
    assert type(classify(code, "said", status)) in (kind, Refused if kind is BadRequest else kind)


def test_scopes_of_capacity() -> None:
    scopes = {}
    for code in ("InsufficientInstanceCapacity", "InsufficientFreeAddressesInSubnet"):
        error = classify(code, "", 500)
        assert isinstance(error, Capacity)
        scopes[code] = error.scope
    assert scopes == {"InsufficientInstanceCapacity": "shape", "InsufficientFreeAddressesInSubnet": "zone"}


@pytest.mark.parametrize(("told", "waits"), [(0.0, 5.0), (17.0, 17.0)])
def test_throttling_says_how_long(told: float, waits: float) -> None:
    error = classify("RequestLimitExceeded", "", 503, retry_after=told)
    assert isinstance(error, Throttled)
    assert error.retry_after == waits


def test_a_refusal_keeps_its_code_and_long_messages_are_cut() -> None:
    error = classify("InvalidParameterValue", "x" * 10_000)
    assert isinstance(error, Refused)
    assert error.aws_code == "InvalidParameterValue"
    assert len(str(error)) <= MESSAGE_CHARS
