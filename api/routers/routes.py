"""What every route does before its dependencies: it refuses what it was not asked for."""

from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any, get_args, get_origin

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.routing import Match
from starlette.types import Scope

from api.errors import FieldError, ValidationFailed
from api.problems import pointer_of
from api.routers.straight import straight


class Strict(APIRoute):
    """A route that refuses unknown query parameters, and repeats of one that takes a single value.

    A typo is never ignored. Operations that have parameters declare them as one model, which
    refuses unknown ones itself.
    """

    def __init__(self, path: str, endpoint: Callable[..., Any], **how: Any) -> None:
        """Note what the path begins with."""
        self.front = path.partition("{")[0]
        super().__init__(path, endpoint, **how)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Look for the path's beginning before all of it: most routes are another path's."""
        if self.front not in scope["path"]:
            return Match.NONE, {}
        return super().matches(scope)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Look at the query first."""
        handle, answer = super().get_route_handler(), straight(self)

        async def handle_strictly(request: Request) -> Response:
            if request.scope["query_string"]:
                self._check(request)
            response = await answer(request) if answer else None
            return response or await handle(request)

        return handle_strictly

    def _check(self, request: Request) -> None:
        sent = Counter(name for name, _ in request.query_params.multi_items())
        wrong = sorted(name for name, times in sent.items() if times > 1)
        code = "duplicate"
        if not self.dependant.query_params:
            wrong, code = sorted(sent), "unknown_parameter"
        elif wrong:
            lists = self._lists()
            wrong = [name for name in wrong if name not in lists]
        if wrong:
            raise ValidationFailed(
                *(FieldError(pointer_of(["query", name]), code) for name in wrong[:20])
            )

    def _lists(self) -> set[str]:
        """Return the query parameters that may be repeated."""
        fields: dict[str, Any] = {}
        for parameter in self.dependant.query_params:
            kind: Any = parameter.field_info.annotation
            is_model = isinstance(kind, type) and issubclass(kind, BaseModel)
            fields |= kind.model_fields if is_model else {parameter.name: parameter.field_info}
        return {
            field.alias or name
            for name, field in fields.items()
            if any(get_origin(k) is list for k in (field.annotation, *get_args(field.annotation)))
        }
