"""What every request goes through: its id, the headers of every answer, refusals as problems."""

import logging
import re
from collections import Counter
from typing import Any, get_args, get_origin

import asyncpg
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import ids
from api.errors import (
    FieldError,
    Internal,
    MethodNotAllowed,
    NotFound,
    Refusal,
    UnsupportedMediaType,
    ValidationFailed,
)
from api.problems import (
    MEDIA_TYPE,
    body_of,
    from_database,
    from_status,
    from_validation,
    language_of,
    pointer_of,
)

log = logging.getLogger("noidai")
SUSPECT = frozenset({"invalid_credentials", "otp_required", "insufficient_role", "rate_limited"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._\-]{1,64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "strict-transport-security": "max-age=31536000",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}


class Trace:
    """Gives each request its id, and each answer that id and the security headers."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap `app`."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take a well-formed `X-Request-Id` from the client, else make one."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
        request_id = given if _REQUEST_ID.fullmatch(given) else str(ids.new_id())
        scope.setdefault("state", {})["request_id"] = request_id

        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            started = True
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "private, no-cache")
            await send(message)

        if _CONTROL.search(scope["path"]):  # no path has one, and not every handler bears one
            await answer(Request(scope), NotFound())(scope, receive, send_with_headers)
            return
        try:
            await self.app(scope, receive, send_with_headers)
        except Exception:
            log.exception("request %s failed", request_id)
            if started:
                raise
            await answer(Request(scope), Internal())(scope, receive, send_with_headers)


async def strict_query(request: Request) -> None:
    """Refuse unknown query parameters, and repeats of one that takes a single value.

    A typo is never ignored. Operations that have parameters declare them as one model, which
    refuses unknown ones itself.
    """
    route = request.scope.get("route")
    if not isinstance(route, APIRoute) or not request.query_params:
        return
    sent = Counter(name for name, _ in request.query_params.multi_items())
    wrong = sorted(name for name, times in sent.items() if times > 1)
    code = "duplicate"
    if not route.dependant.query_params:
        wrong, code = sorted(sent), "unknown_parameter"
    elif wrong:
        lists = _lists(route)
        wrong = [name for name in wrong if name not in lists]
    if wrong:
        raise ValidationFailed(
            *(FieldError(pointer_of(["query", name]), code) for name in wrong[:20])
        )


def _lists(route: APIRoute) -> set[str]:
    """Return the query parameters that may be repeated."""
    fields: dict[str, Any] = {}
    for parameter in route.dependant.query_params:
        kind: Any = parameter.field_info.annotation
        is_model = isinstance(kind, type) and issubclass(kind, BaseModel)
        fields |= kind.model_fields if is_model else {parameter.name: parameter.field_info}
    return {
        field.alias or name
        for name, field in fields.items()
        if any(get_origin(k) is list for k in (field.annotation, *get_args(field.annotation)))
    }


def _allowed(request: Request) -> str:
    """Return every method of a path, for `Allow`; the framework tells those of one route only."""
    return ", ".join(
        method
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    )


def answer(request: Request, refusal: Refusal) -> Response:
    """Return a refusal as a problem, in the client's language; guesses and trespasses are logged.

    A line names the route, never what filled its path or its body.
    """
    if refusal.code in SUSPECT:
        route = getattr(request.scope.get("route"), "path", "-")
        name = getattr(request.state, "request_id", None)
        log.warning("%s %s refused: %s, request %s", request.method, route, refusal.code, name)
    language = language_of(request.headers.get("accept-language", ""))
    problem = body_of(refusal, language, getattr(request.state, "request_id", None))
    headers = refusal.headers | {"content-language": language, "vary": "Accept-Language"}
    return JSONResponse(problem, refusal.status, headers, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Answer every refusal and every failure as a problem."""

    @app.exception_handler(Refusal)
    async def refused(request: Request, refusal: Refusal) -> Response:
        return answer(request, refusal)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, failure: RequestValidationError) -> Response:
        if isinstance(failure.body, bytes):  # left as it came: not of a media type that is read
            return answer(request, UnsupportedMediaType())
        return answer(request, from_validation(failure.errors()))

    @app.exception_handler(HTTPException)
    async def framework(request: Request, failure: HTTPException) -> Response:
        headers = dict(failure.headers or {})
        if failure.status_code == MethodNotAllowed.status:
            headers["Allow"] = _allowed(request)
        return answer(request, from_status(failure.status_code, headers))

    @app.exception_handler(SQLAlchemyError)
    @app.exception_handler(asyncpg.PostgresError)
    @app.exception_handler(asyncpg.InterfaceError)
    @app.exception_handler(OSError)
    async def database(request: Request, failure: Exception) -> Response:
        refusal = from_database(failure)
        if refusal.status >= Internal.status:
            log.error("request %s failed", request.state.request_id, exc_info=failure)
        return answer(request, refusal)
