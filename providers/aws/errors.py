"""What EC2's error codes mean to the control plane. Pure.

Source of the codes: "Error codes for the Amazon EC2 API" and "Common errors" in AWS's API references.
"""

from collections.abc import Mapping

from providers.errors import Absent, Auth, BadRequest, Capacity, ProviderError, Quota, Throttled, Unknown

MESSAGE_CHARS = 400

_CAPACITY: Mapping[str, str] = {
    "InsufficientInstanceCapacity": "shape",
    "InsufficientCapacity": "shape",
    "InsufficientHostCapacity": "shape",
    "InsufficientReservedInstanceCapacity": "shape",
    "SpotMaxPriceTooLow": "shape",
    "Unsupported": "shape",  # "your requested instance type is not supported in your requested zone"
    "InsufficientAddressCapacity": "zone",
    "InsufficientFreeAddressesInSubnet": "zone",
    "InsufficientVolumeCapacity": "zone",
}
_QUOTA = frozenset({
    "AddressLimitExceeded", "AttachmentLimitExceeded", "HostLimitExceeded", "InstanceLimitExceeded",
    "MaxIOPSLimitExceeded", "MaxSpotInstanceCountExceeded", "NetworkInterfaceLimitExceeded",
    "NetworkInterfacesLimitExceeded", "ResourceLimitExceeded", "VcpuLimitExceeded", "VolumeLimitExceeded",
    "SnapshotLimitExceeded", "PrivateIpAddressLimitExceeded",
})  # fmt: skip
_THROTTLED = frozenset({
    "BandwidthLimitExceeded", "EC2ThrottledException", "RequestLimitExceeded", "RequestThrottled",
    "RequestThrottledException", "SlowDown", "Throttling", "ThrottlingException", "ThrottledException",
    "TooManyRequestsException",
})  # fmt: skip
_AUTH = frozenset({
    "AccessDenied", "AccessDeniedException", "AuthFailure", "AuthFailure.ServiceLinkedRoleCreationNotPermitted",
    "Blocked", "ExpiredToken", "ExpiredTokenException", "IncompleteSignature", "InvalidAccessKeyId",
    "InvalidClientTokenId", "InvalidSignatureException", "MissingAuthenticationToken",
    "MissingAuthenticationTokenException", "NotAuthorized", "OptInRequired", "PendingVerification",
    "RequestExpired", "SignatureDoesNotMatch", "UnauthorizedException", "UnauthorizedOperation",
    "UnrecognizedClientException",
})  # fmt: skip
_ABSENT = frozenset({"InvalidInstanceID", "InvalidInstanceID.Malformed", "InvalidInstanceID.NotFound"})
_UNSURE = frozenset({
    "IdempotentRequestInProgress", "InternalError", "InternalFailure", "InternalServiceError", "RequestInProgress",
    "ServiceUnavailable", "Unavailable",
})  # fmt: skip
_HINTS: Mapping[str, str] = {
    "OptInRequired": "the account has not been opened for this service or region",
    "PendingVerification": "AWS still verifies the account for this region; this takes up to four hours",
    "AuthFailure.ServiceLinkedRoleCreationNotPermitted": (
        "once, as an administrator: aws iam create-service-linked-role --aws-service-name spot.amazonaws.com"
    ),
    "RequestExpired": "check this machine's clock",
    "SignatureDoesNotMatch": "check the secret key, and this machine's clock",
}

MISMATCH = "IdempotentParameterMismatch"
TERMINATED = "IdempotentInstanceTerminated"
WRONG_STATE = "IncorrectInstanceState"
DRY_RUN = "DryRunOperation"
UNSUPPORTED = "UnsupportedOperation"


class Refused(BadRequest):
    """A refusal that keeps EC2's own code, for callers that know a way on from some of them."""

    def __init__(self, message: str, *, aws_code: str, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.aws_code = aws_code


def classify(code: str, message: str, status: int = 400, *, retry_after: float = 0.0) -> ProviderError:
    """Return the error for EC2's `code`, its message and the HTTP status it came with.

    Codes go before the status: EC2 answers "no capacity" with 500 and "too many requests" with 503.
    """
    said = f"{code}: {message}"[:MESSAGE_CHARS] if message else code
    hint = _HINTS.get(code, "")
    if scope := _CAPACITY.get(code):
        return Capacity(said, scope=scope, hint=hint)
    if code in _QUOTA:
        return Quota(said, hint="ask for more in the Service Quotas console, or let other machines end first")
    if code in _THROTTLED or status == 429:
        return Throttled(said, retry_after=retry_after or 5.0)
    if code in _AUTH:
        return Auth(said, hint=hint)
    if code in _ABSENT:
        return Absent(said)
    if code in _UNSURE or status >= 500:
        return Unknown(said)
    return Refused(said, aws_code=code, hint=hint)
