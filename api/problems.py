"""From a refusal to its answer: `application/problem+json` (RFC 9457), Vietnamese or English."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import asyncpg
from pydantic_core import to_jsonable_python
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from api import errors
from api.errors import FieldError, Refusal

TEXTS = Path(__file__).parent / "data" / "problems.toml"
MEDIA_TYPE = "application/problem+json"
LANGUAGES = ("vi", "en")


@cache
def catalogue() -> dict[str, dict[str, list[str]]]:
    """Return every text by code; under `field`, the messages of single fields."""
    return tomllib.loads(TEXTS.read_text(encoding="utf-8"))


def language_of(accept_language: str) -> str:
    """Return `vi` or `en`, whichever the client likes better; Vietnamese when it does not say."""
    best, weight = "vi", 0.0
    for part in accept_language.lower().split(","):
        tag, _, parameters = part.strip().partition(";")
        quality = parameters.strip().removeprefix("q=") or "1"
        try:
            value = float(quality)
        except ValueError:
            continue
        if tag.split("-")[0] in LANGUAGES and value > weight:
            best, weight = tag.split("-")[0], value
    return best


class _Blank(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return "…"


def _message(error: FieldError, language: int) -> str:
    texts = catalogue()["field"]
    template = texts.get(error.code, texts["invalid"])[language]
    return template.format_map(_Blank(error.params))


def body_of(refusal: Refusal, language: str, request_id: str | None) -> dict[str, Any]:
    """Return the problem's members; a batch shows the same ones per item."""
    index = LANGUAGES.index(language)
    text = catalogue()[refusal.code]
    problem = {
        "type": f"/problems/{refusal.code}",
        "title": text["title"][index],
        "status": refusal.status,
        "code": refusal.code,
        "detail": text["detail"][index],
        "request_id": request_id,
        "retryable": refusal.retryable,
        "errors": [
            {
                "pointer": error.pointer,
                "code": error.code,
                "message": _message(error, index),
                "params": dict(error.params),
            }
            for error in refusal.errors
        ],
    }
    body: dict[str, Any] = to_jsonable_python(problem | refusal.members)
    return body


_PYDANTIC = {
    "date_from_datetime_parsing": "date_invalid",
    "date_from_datetime_inexact": "date_invalid",
    "date_parsing": "date_invalid",
    "datetime_from_date_parsing": "datetime_invalid",
    "datetime_parsing": "datetime_invalid",
    "datetime_object_invalid": "datetime_invalid",
    "uuid_parsing": "uuid_invalid",
    "uuid_type": "uuid_invalid",
    "string_unicode": "control_character",
    "literal_error": "enum",
}
"""Pydantic's error types that the catalogue knows by another code."""
_JSON_TYPES = {
    "bool": "boolean",
    "dict": "object",
    "float": "number",
    "int": "integer",
    "list": "array",
    "model": "object",
}
_WRONG_TYPE = re.compile(r"_(type|parsing|from_float)$")
MOST_FAULTS = 50
"""Faults that one answer names: whoever sends thousands learns nothing from more."""


def from_validation(failures: Sequence[Any]) -> Refusal:
    """Name each field at fault by its pointer; what was sent is not repeated.

    `failures` are Pydantic's errors, the first step of `loc` saying where: body, query, path.
    """
    found = []
    for error in failures[:MOST_FAULTS]:
        where, *path = error["loc"]
        kind = str(error["type"])
        if kind == "json_invalid":
            return errors.InvalidRequest(FieldError("", "json_invalid"))
        if where == "path":  # an id that cannot exist is an id that does not exist
            return errors.NotFound()
        params = {k: v for k, v in error.get("ctx", {}).items() if isinstance(v, (str, int, float))}
        code = _PYDANTIC.get(kind, kind)
        if _WRONG_TYPE.search(code):
            expected = kind.partition("_")[0]
            code, params = "wrong_type", {"expected": _JSON_TYPES.get(expected, expected)}
        if where != "body" and code == "extra_forbidden":
            code = "unknown_parameter"
        if code not in catalogue()["field"]:
            code = "invalid"
        pointer = pointer_of(path) if where == "body" else pointer_of([where, *path])
        found.append(FieldError(pointer, code, params))
    return errors.ValidationFailed(*found)


def pointer_of(path: Sequence[Any]) -> str:
    """Return a JSON pointer (RFC 6901); what a client made up is cut short and made printable."""
    return "".join(
        "/" + _printable(str(part)[:100]).replace("~", "~0").replace("/", "~1") for part in path
    )


def _printable(name: str) -> str:
    return name.encode("utf-8", "replace").decode()


_BY_STATUS: Mapping[int, type[Refusal]] = {
    kind.status: kind
    for kind in (
        errors.InvalidRequest,
        errors.NotFound,
        errors.MethodNotAllowed,
        errors.NotAcceptable,
        errors.PayloadTooLarge,
        errors.UnsupportedMediaType,
    )
}


def from_status(status: int, headers: Mapping[str, str] | None) -> Refusal:
    """Translate the framework's own refusals: no route, wrong method, body too large."""
    return _BY_STATUS.get(status, errors.InvalidRequest)(headers=headers)


_PASSING = {
    "40001",  # serialization_failure
    "40P01",  # deadlock_detected
    "55P03",  # lock_not_available
    "57014",  # query_canceled: the statement timeout
    "57P01",  # admin_shutdown
    "57P03",  # cannot_connect_now
    "53300",  # too_many_connections
}
_CONNECTION = "08"
_KNOWN: Mapping[str, type[Refusal]] = {
    "23503": errors.Conflict,  # foreign_key_violation: what it refers to has just gone, or is used
    "23505": errors.Conflict,  # unique_violation: somebody was faster
    "23P01": errors.Conflict,  # exclusion_violation
    "42501": errors.NotFound,  # row-level security: out of scope
}


def sqlstate_of(failure: Exception) -> str:
    """Return the database's code for a failure, of the driver or wrapped by the toolkit."""
    return str(getattr(getattr(failure, "orig", failure), "sqlstate", None))


def _closed(failure: Exception) -> Refusal:
    """Return the refusal of an edit within a closed period, which the database names."""
    raised = getattr(failure, "orig", failure)
    period = getattr(raised.__cause__, "detail", None) or getattr(raised, "detail", None)
    return errors.PeriodClosed(FieldError("", "period_closed", {"period": str(period)}))


_AWAY = (
    *(PoolTimeout, InterfaceError, OperationalError, OSError),
    *(asyncpg.InterfaceError, asyncpg.InternalClientError),
)
"""What is said when the database cannot be reached, or not any more."""


def from_database(failure: Exception) -> Refusal:
    """Tell a conflict from a database that is away or too slow (503) and a fault of ours (500)."""
    state = sqlstate_of(failure)
    if state == "NC001":  # raised by the trigger `refuse_closed_edit`
        return _closed(failure)
    if known := _KNOWN.get(state):
        return known()
    away = isinstance(failure, _AWAY)
    lost = isinstance(failure, DBAPIError) and failure.connection_invalidated
    if away or lost or state in _PASSING or state.startswith(_CONNECTION):
        return errors.Unavailable()
    return errors.Internal()
