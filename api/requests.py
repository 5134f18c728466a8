"""What every request goes through: its id, the headers of every answer, refusals as problems."""

import logging
import re

import asyncpg
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import ids
from api.errors import (
    Internal,
    MethodNotAllowed,
    NotFound,
    Refusal,
    UnsupportedMediaType,
)
from api.problems import (
    MEDIA_TYPE,
    body_of,
    from_database,
    from_status,
    from_validation,
    language_of,
)

log = logging.getLogger("noidai")
SUSPECT = frozenset({"invalid_credentials", "otp_required", "insufficient_role", "rate_limited"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._\-]{1,64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"strict-transport-security", b"max-age=31536000"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"private, no-cache"),
)
"""Of every answer that does not say otherwise."""


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
                said = {name for name, _ in message["headers"]}
                ours = [header for header in _HEADERS if header[0] not in said]
                named = (b"x-request-id", request_id.encode())
                message["headers"] = [*message["headers"], *ours, named]
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
    @app.exception_handler(asyncpg.InternalClientError)
    @app.exception_handler(OSError)
    async def database(request: Request, failure: Exception) -> Response:
        refusal = from_database(failure)
        if refusal.status >= Internal.status:
            log.error("request %s failed", request.state.request_id, exc_info=failure)
        return answer(request, refusal)
