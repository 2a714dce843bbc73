"""What can go wrong with a cloud, as types the control plane branches on."""

from typing import ClassVar

from atoll.errors import AtollError
from atoll.states import Reason


class ProviderError(AtollError):
    """Base: an outcome that is not known. It never means "not created": list, then decide."""

    code = "PROVIDER"
    status = 502
    exit_code = 124
    kind: ClassVar[Reason] = Reason.CREATE_UNKNOWN


class Unknown(ProviderError):
    """No answer, or one that cannot be read: the call may or may not have happened."""


class Capacity(ProviderError):
    """The cloud has none left. `scope` says of what: `shape` (this type in this zone) or `zone`."""

    kind = Reason.NO_CAPACITY

    def __init__(self, message: str, *, scope: str = "shape", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.scope = scope


class Quota(ProviderError):
    """The account may not have more. `name` is the limit's, as `Driver.quota` gives it; "" where not told."""

    kind = Reason.QUOTA

    def __init__(self, message: str, *, name: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.name = name


class Throttled(ProviderError):
    """Too many calls: none of this class before `retry_after` seconds have gone by."""

    kind = Reason.THROTTLED

    def __init__(self, message: str, *, retry_after: float = 5.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Auth(ProviderError):
    """The credential is missing, wrong, or may not do this."""

    kind = Reason.AUTH


class BadRequest(ProviderError):
    """The cloud will never accept this request as it is."""

    kind = Reason.INVALID


class Absent(ProviderError):
    """The instance named is not there (any more)."""

    kind = Reason.TERMINATED
