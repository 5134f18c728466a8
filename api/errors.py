"""Refusals: why a request is not done. No framework here; `problems.py` turns them into answers.

Raise the class that fits, naming the fields at fault. Texts in Vietnamese and English are in
`data/problems.toml`, under the same codes; a test holds the two together.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True)
class FieldError:
    """One thing wrong with one field: a JSON pointer (RFC 6901), a code, the code's values."""

    pointer: str
    code: str
    params: Mapping[str, Any] = field(default_factory=dict)


class Refusal(Exception):  # noqa: N818 - a refusal is an answer, not an error of ours
    """A request that is answered with a problem (RFC 9457) instead of a result."""

    status: ClassVar[int]
    code: ClassVar[str]
    retryable: ClassVar[bool] = False

    def __init__(
        self, *errors: FieldError, headers: Mapping[str, str] | None = None, **members: Any
    ) -> None:
        """Name the fields at fault; `members` become extension members of the problem."""
        super().__init__(self.code, errors)
        self.errors = errors
        self.headers = dict(headers or {})
        self.members = members


class InvalidRequest(Refusal):
    """The request cannot be read at all."""

    status, code = 400, "invalid_request"


class CursorInvalid(Refusal):
    """The cursor is not ours, or was made for another query."""

    status, code = 400, "cursor_invalid"


class Unauthenticated(Refusal):
    """No token, or one that does not hold."""

    status, code = 401, "unauthenticated"

    def __init__(self, reason: str | None = None) -> None:
        """Answer with the Bearer challenge of RFC 6750, section 3."""
        error = f', error="invalid_token", error_description="{reason}"' if reason else ""
        super().__init__(headers={"WWW-Authenticate": f'Bearer realm="noidai"{error}'})


class InvalidCredentials(Refusal):
    """Unknown name or wrong password (which of the two is not said), wrong number, worn code."""

    status, code = 401, "invalid_credentials"


class OtpRequired(Refusal):
    """The password is right and the second factor is missing: a number, or its enrolment."""

    status, code = 401, "otp_required"

    def __init__(self, *errors: FieldError) -> None:
        """Answer with the step-up challenge of RFC 9470, section 3."""
        challenge = 'Bearer realm="noidai", error="insufficient_user_authentication"'
        super().__init__(*errors, headers={"WWW-Authenticate": challenge})


class InsufficientRole(Refusal):
    """No grant of the caller carries the permission, or not on a row that it can read."""

    status, code = 403, "insufficient_role"


class NotFound(Refusal):
    """Absent or out of scope: the two are the same answer."""

    status, code = 404, "not_found"


class MethodNotAllowed(Refusal):
    """The path exists, the method does not."""

    status, code = 405, "method_not_allowed"


class NotAcceptable(Refusal):
    """None of the representations that the client accepts is offered here."""

    status, code = 406, "not_acceptable"


class IdConflict(Refusal):
    """The id was taken by other content: the same bytes whoever owns the row."""

    status, code = 409, "id_conflict"


class Conflict(Refusal):
    """The state of the resource forbids it."""

    status, code = 409, "conflict"


class ExternalIdConflict(Refusal):
    """Another row carries this external id, or the system's name belongs to another client."""

    status, code = 409, "external_id_conflict"


class IdempotencyKeyInFlight(Refusal):
    """The first request with this `Idempotency-Key` is still under way."""

    status, code, retryable = 409, "idempotency_key_in_flight", True

    def __init__(self) -> None:
        """Ask the client to come back."""
        super().__init__(headers={"Retry-After": "1"})


class UnitDissolved(Refusal):
    """The unit no longer stands on the fact's day; `successors` says what became of it."""

    status, code = 409, "unit_dissolved"


class PeriodClosed(Refusal):
    """The period is closed: `period` says which, nothing reopens it."""

    status, code = 409, "period_closed"


class PreconditionFailed(Refusal):
    """`If-Match` is not the current version; `current` is the representation as it is now."""

    status, code = 412, "precondition_failed"

    def __init__(
        self, current: Any, record: Callable[[Any], Awaitable[None]] | None = None
    ) -> None:
        """Show the row as it is now, as the caller may see it.

        `record` writes into another session that this was shown: the request's own is undone.
        """
        super().__init__(headers={"ETag": f'"{current.version}"'}, current=current)
        self.record = record


class PayloadTooLarge(Refusal):
    """The body is larger than this service takes."""

    status, code = 413, "payload_too_large"


class UnsupportedMediaType(Refusal):
    """The body is of a media type that this operation does not take."""

    status, code = 415, "unsupported_media_type"


class ValidationFailed(Refusal):
    """One or more fields are wrong; nothing was written."""

    status, code = 422, "validation_failed"


class ResultTooLarge(Refusal):
    """The answer would be larger than a client can want."""

    status, code = 422, "result_too_large"


class IdempotencyKeyReused(Refusal):
    """The `Idempotency-Key` was sent with another request before."""

    status, code = 422, "idempotency_key_reused"


class Deferred(Refusal):
    """What this item refers to failed in the same batch."""

    status, code, retryable = 424, "deferred", True


class PreconditionRequired(Refusal):
    """`If-Match` is missing."""

    status, code = 428, "precondition_required"


class RateLimited(Refusal):
    """Too often: come back after the seconds that `Retry-After` tells."""

    status, code, retryable = 429, "rate_limited", True

    def __init__(self, seconds: int) -> None:
        """Say when to come back."""
        super().__init__(headers={"Retry-After": str(seconds)})


class Internal(Refusal):
    """A fault of ours; the request id leads to it."""

    status, code, retryable = 500, "internal", True


class Unavailable(Refusal):
    """The database is out of reach or too slow just now."""

    status, code, retryable = 503, "unavailable", True

    def __init__(self) -> None:
        """Ask the client to come back."""
        super().__init__(headers={"Retry-After": "2"})


def refusals() -> list[type[Refusal]]:
    """Return every kind of refusal, for the catalogue and its test."""
    return sorted(Refusal.__subclasses__(), key=lambda kind: (kind.status, kind.code))


def not_found_at(pointer: str) -> ValidationFailed:
    """Refuse a reference in a body: absent and out of scope look alike."""
    return ValidationFailed(FieldError(pointer, "not_found"))
