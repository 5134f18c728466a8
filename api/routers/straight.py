"""Hot routes, answered straight: the framework's own way costs as much as all that they do.

Only what is plainly right goes this way: an id in its usual form, a JSON body that fits. Everything
else is left to the framework, which tells what is wrong with it; so is the document.
"""

import inspect
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final, get_args
from uuid import UUID

from fastapi import Request, Response
from fastapi.params import Depends
from fastapi.routing import APIRoute

from api.auth.dependencies import RequireHot
from api.models.types import Input

type Answer = Callable[[Request], Awaitable[Response | None]]
JSON: Final = "application/json"
_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_GIVEN: Final = {"caller", "request", "response", "body"}


def straight(route: APIRoute) -> Answer | None:
    """Return how a route is answered straight, or None where it cannot be.

    It can where the endpoint takes a hot caller, ids of its path, a body, and nothing else, and
    returns what the document says. The answer is None for a request that the framework must see.
    """
    taken = {name: p.annotation for name, p in inspect.signature(route.endpoint).parameters.items()}
    permit, model, field = _permit_of(taken.get("caller")), taken.get("body"), route.response_field
    ids = [name for name in taken if name not in _GIVEN]
    if permit is None or field is None or any(taken[name] is not UUID for name in ids):
        return None
    if "body" in taken and not (isinstance(model, type) and issubclass(model, Input)):
        return None

    async def answer(request: Request) -> Response | None:
        try:
            given: dict[str, Any] = {name: _id(request.path_params[name]) for name in ids}
            if model:
                given["body"] = model.model_validate_json(await _json(request))
            given["caller"] = await permit(request)
        except (ValueError, RecursionError):
            return None
        response = Response(status_code=route.status_code or 200, media_type=JSON)
        given |= {"request": request, "response": response}
        done = await route.endpoint(**{name: given[name] for name in taken})
        response.body = field.serialize_json(done)
        response.headers["content-length"] = str(len(response.body))
        return response

    return answer


def _id(text: str) -> UUID:
    if not _ID.fullmatch(text):
        raise ValueError
    return UUID(text)


async def _json(request: Request) -> bytes:
    if request.headers.get("content-type", "").partition(";")[0] != JSON:
        raise ValueError
    return await request.body()


def _permit_of(annotation: Any) -> RequireHot | None:
    """Return what lets a caller in without a transaction."""
    for part in get_args(annotation)[1:]:
        if isinstance(part, Depends) and isinstance(part.dependency, RequireHot):
            return part.dependency
    return None
