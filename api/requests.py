"""What every request goes through: its id, the headers of every answer, refusals as problems."""

import logging
import re

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from sqlalchemy.exc import SQLAlchemyError
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import ids
from api.errors import FieldError, Internal, Refusal, ValidationFailed
from api.problems import (
    MEDIA_TYPE,
    body_of,
    from_database,
    from_status,
    from_validation,
    language_of,
)

log = logging.getLogger("noidai")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._\-]{1,64}")
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "strict-transport-security": "max-age=31536000",
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

        try:
            await self.app(scope, receive, send_with_headers)
        except Exception:
            log.exception("request %s failed", request_id)
            if started:
                raise
            await answer(Request(scope), Internal())(scope, receive, send_with_headers)


def strict_query(request: Request) -> None:
    """Refuse query parameters where an operation has none: a typo is never ignored.

    Operations that have some declare them as one model, which refuses unknown ones itself.
    """
    route = request.scope.get("route")
    if not isinstance(route, APIRoute) or route.dependant.query_params:
        return
    if unknown := sorted(set(request.query_params)):
        raise ValidationFailed(
            *(FieldError(f"/query/{name[:100]}", "unknown_parameter") for name in unknown[:20])
        )


def answer(request: Request, refusal: Refusal) -> Response:
    """Return a refusal as a problem, in the client's language."""
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
        return answer(request, from_validation(failure.errors()))

    @app.exception_handler(HTTPException)
    async def framework(request: Request, failure: HTTPException) -> Response:
        return answer(request, from_status(failure.status_code, failure.headers))

    @app.exception_handler(SQLAlchemyError)
    @app.exception_handler(OSError)
    async def database(request: Request, failure: Exception) -> Response:
        refusal = from_database(failure)
        if refusal.status >= Internal.status:
            log.error("request %s failed", request.state.request_id, exc_info=failure)
        return answer(request, refusal)
