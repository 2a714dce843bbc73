import base64

import pytest

from providers.errors import Absent, Auth, BadRequest, Capacity, ProviderError, Quota, Throttled, Unknown
from providers.openstack.errors import LONGEST, fault, limit_of, plain, refusal

NOVA_QUOTA = "Quota exceeded for instances: Requested 1, but already used 0 of 0 instances"
CASES: list[tuple[int, str, type[ProviderError]]] = [
    (400, "Flavor nope could not be found.", BadRequest),
    (400, "The requested availability zone is not available", Capacity),
    (401, "", Auth),
    (403, "Policy doesn't allow os_compute_api:servers:create to be performed.", Auth),
    (403, NOVA_QUOTA, Quota),
    (403, "Quota exceeded for cores, ram: Requested 4000, 9000000, but already used 1, 2048 of 20, 51200", Quota),
    (403, "Maximum number of ports exceeded", Quota),
    (404, "Instance x could not be found.", Absent),
    (408, "", Unknown),
    (409, "Multiple possible networks found, use a Network ID to be more specific.", BadRequest),
    (413, "This request was rate-limited.", Throttled),
    (429, "", Throttled),
    (500, "Unexpected API Error.", Unknown),
    (502, "<html>", Unknown),
    (503, "", Unknown),
    (504, "", Unknown),
]


@pytest.mark.parametrize(("status", "message", "kind"), CASES)
def test_every_refusal_has_its_type(status: int, message: str, kind: type[ProviderError]) -> None:
    assert type(refusal(status, message)) is kind


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("No valid host was found. There are not enough hosts available.", Capacity),
        ("Exceeded maximum number of retries. Exhausted all hosts available for retrying build failures", Capacity),
        ("Build of instance 1 aborted: VolumeSizeExceedsAvailableQuota: gigabytes quota exceeded", Quota),
        ("Block Device Mapping is Invalid.", BadRequest),
        ("Build of instance 1 aborted: Image 2 is unacceptable", BadRequest),
        ("Failed to allocate the network(s), not rescheduling.", Capacity),
        ("", Capacity),
    ],
)
def test_every_fault_has_its_type(message: str, kind: type[ProviderError]) -> None:
    assert type(fault(message)) is kind


def test_a_zone_that_is_off_counts_as_the_zone() -> None:
    error = refusal(400, "The requested availability zone is not available")
    assert isinstance(error, Capacity)
    assert error.scope == "zone"


@pytest.mark.parametrize(
    ("message", "name"),
    [
        (NOVA_QUOTA, "instances"),
        ("Quota exceeded for cores: Requested 4, but already used 8 of 10 cores", "cores"),
        ("Quota exceeded for ram: Requested 4", "ram"),
        ("Maximum number of ports exceeded", "port"),
        ("Quota exceeded", ""),
        ("a programme went wrong", ""),
    ],
)
def test_the_limit_is_named_as_quota_names_it(message: str, name: str) -> None:
    assert limit_of(message) == name


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7.0), ("0", 1.0), ("", 5.0), ("Fri, 01 Jan 2027 00:00 GMT", 5.0)]
)
def test_throttling_says_when(header: str, seconds: float) -> None:
    error = refusal(429, "", header)
    assert isinstance(error, Throttled)
    assert error.retry_after == seconds


def test_no_message_tells_what_was_sent() -> None:
    secret = base64.b64encode(b"#!/bin/sh\nTOKEN=atj_verysecretvalue\n" * 40).decode()
    said = plain(f"Invalid input for field/attribute user_data. Value: {secret}. '{secret}' is too long")
    assert said == "Invalid input for field/attribute user_data. (the value is left out)"
    assert secret[:40] not in plain(f"'{secret}' is too long")
    assert len(plain("words " * 1000)) <= LONGEST
