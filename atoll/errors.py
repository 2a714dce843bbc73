"""Every error a person can meet: a stable code, one clear sentence, and a hint what to do next.

The REST API renders them as problem+json, the CLI as one line and an exit code of 120 to 125.
"""

from typing import ClassVar


class AtollError(Exception):
    """Base of all errors whose text may be shown to a user.

    `message` is public and holds no secret; a private cause rides along as `__cause__`.
    """

    code: ClassVar[str] = "INTERNAL"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 125

    def __init__(self, message: str, *, hint: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.reason = reason or self.code

    @property
    def text(self) -> str:
        """The error as a terminal shows it: one line, and one for the hint where there is one."""
        return f"error: {self.message}" + (f"\nhint: {self.hint}" if self.hint else "")


class Invalid(AtollError):
    """The request itself is wrong: unknown key, bad value, impossible combination."""

    code = "INVALID"
    status = 400
    exit_code = 120


class Unauthorized(AtollError):
    """No credential, a wrong one, an expired or already used one."""

    code = "UNAUTHORIZED"
    status = 401
    exit_code = 121


class Forbidden(AtollError):
    """A known caller who may not do this."""

    code = "FORBIDDEN"
    status = 403
    exit_code = 121


class NotFound(AtollError):
    """No such object."""

    code = "NOT_FOUND"
    status = 404
    exit_code = 122


class Conflict(AtollError):
    """The object exists already, changed meanwhile, or its state does not allow this."""

    code = "CONFLICT"
    status = 409
    exit_code = 123


class Unavailable(AtollError):
    """A part that is needed cannot be reached now; trying again later can help."""

    code = "UNAVAILABLE"
    status = 503
    exit_code = 124


class Refused(AtollError):
    """This machine does not let Atoll work: port in use, home not writable, disk full, wrong version."""

    code = "REFUSED"
    status = 500
    exit_code = 125


BLIND = "BLIND"
"""`reason` of a `Conflict`: the session takes streams alone that are encrypted end to end."""
BY_CODE: dict[str, type[AtollError]] = {
    kind.code: kind for kind in (AtollError, Invalid, Unauthorized, Forbidden, NotFound, Conflict, Unavailable, Refused)
}
"""Error class by its public code: how a client turns a problem+json body back into an exception."""
