"""`Idempotency-Key` on the POSTs that are not idempotent by ids (as the IETF's draft has it)."""

import inspect
import re
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Annotated, Any, Final

from fastapi import Depends, Header, Request, Response

from api.errors import FieldError, ValidationFailed
from api.routers.routes import Strict
from api.services import idempotency

REPLAYED: Final = "Idempotent-Replayed"
_FORM: Final = re.compile(r"[\x20-\x7e]{1,255}")
_KEPT: Final = ("content-type", "etag", "location")


class Keyed(Strict):
    """A route that, where it is a POST, takes an `Idempotency-Key`.

    For routers whose answers carry no secret. The endpoint's `session` and `caller` are where the
    key is taken and the answer kept; without a key nothing more is done. A POST without a `session`
    (a hot one, which is idempotent by the id that it is given) takes no key.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **how: Any) -> None:
        """Let the endpoint of a POST take a key."""
        takes = "session" in inspect.signature(endpoint).parameters
        self.keyed = "POST" in (how.get("methods") or ()) and takes
        super().__init__(path, _keyed(endpoint) if self.keyed else endpoint, **how)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Keep the answer to a request with a key, before its transaction is over."""
        handle = super().get_route_handler()

        async def handle_and_keep(request: Request) -> Response:
            response = await handle(request)
            key: idempotency.Key | None = getattr(request.state, "idempotency_key", None)
            if key:
                headers = {
                    name: response.headers[name] for name in _KEPT if name in response.headers
                }
                body = bytes(response.body).decode()
                await idempotency.keep(key, idempotency.Answer(response.status_code, headers, body))
            return response

        return handle_and_keep if self.keyed else handle


async def _given(
    request: Request,
    idempotency_key: Annotated[
        str | None,
        Header(
            description="Names this request: sent again within 24 hours it is not done again, and"
            " gets the first answer",
        ),
    ] = None,
) -> tuple[Request, str] | None:
    if idempotency_key is None:
        return None
    if not _FORM.fullmatch(idempotency_key):
        raise ValidationFailed(FieldError("/header/Idempotency-Key", "idempotency_key_invalid"))
    return request, idempotency_key


def _keyed(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """Return the endpoint with one more header: what it did under a key is not done again."""

    @wraps(endpoint)
    async def keyed(named: tuple[Request, str] | None, **given: Any) -> Any:
        if named is None:
            return await endpoint(**given)
        request, name = named
        key, first = await idempotency.take(
            given["session"], given["caller"], name, await _content(request)
        )
        if first is not None:
            return Response(first.body, first.status, {**first.headers, REPLAYED: "true"})
        done = await endpoint(**given)
        request.state.idempotency_key = key
        return done

    signature = inspect.signature(endpoint)
    named = inspect.Parameter(
        "named", inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[Any, Depends(_given)]
    )
    parameters = [*signature.parameters.values(), named]
    keyed.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return keyed


async def _content(request: Request) -> list[Any]:
    """Return what a repeat has in common with the first request, but for the order in objects."""
    sent = await request.json() if await request.body() else None
    return [request.url.path, request.url.query, request.headers.get("if-match"), sent]
