"""The headers that resources share: `ETag`, `Location`, `Link`; and `If-Match` on the way in."""

import re
from typing import Annotated, Any

from fastapi import Depends, Header, Request, Response

from api.errors import FieldError, PreconditionRequired, ValidationFailed
from api.models.pages import Page
from api.models.types import Output
from api.services.writing import ANY_VERSION

NO_STORE = {"Cache-Control": "no-store"}
"""For answers that carry a secret."""
PRIVATE = {"Cache-Control": "private, no-cache", "Vary": "Accept, Accept-Language"}
"""For answers that are asked for again and again, by their ETag."""


def _expected(
    if_match: Annotated[str | None, Header(description='The ETag that was read, or "*"')] = None,
) -> int:
    if if_match is None:
        raise PreconditionRequired
    if if_match.strip() == "*":
        return ANY_VERSION
    match = re.fullmatch(r'\s*"([0-9]{1,9})"\s*', if_match)
    if match is None:
        raise ValidationFailed(FieldError("/header/If-Match", "version_invalid"))
    return int(match[1])


IfMatch = Annotated[int, Depends(_expected)]


def _expected_if_any(
    if_match: Annotated[str | None, Header(description='The ETag that was read, or "*"')] = None,
) -> int:
    return ANY_VERSION if if_match is None else _expected(if_match)


OptionalIfMatch = Annotated[int, Depends(_expected_if_any)]
"""For what may be done without having read the row; who has read it sends its ETag."""


def preferred(request: Request, *offered: str) -> str:
    """Return the media type that the client likes best (RFC 9110, 12.5.1), else the first."""
    weights = dict.fromkeys(offered, 0.0)
    for part in request.headers.get("accept", "").lower().split(","):
        media_type, *parameters = (piece.strip() for piece in part.split(";"))
        quality = next((p.removeprefix("q=") for p in parameters if p.startswith("q=")), "1")
        if media_type in weights:
            weights[media_type] = _weight(quality)
    return max(offered, key=weights.__getitem__)


def _weight(quality: str) -> float:
    try:
        return float(quality)
    except ValueError:
        return 0.0


def known_tags(request: Request) -> set[str]:
    """Return the ETags of answers that the client has (weak comparison, RFC 9110, 13.1.2)."""
    given = request.headers.get("if-none-match", "")
    return {part.strip().removeprefix("W/") for part in given.split(",")} - {""}


def holds(request: Request, tag: str) -> bool:
    """Tell whether the client has this very answer."""
    return bool(known_tags(request) & {tag, "*"})


def tagged[Resource: Output](response: Response, resource: Resource) -> Resource:
    """Give the answer its `ETag`."""
    response.headers["ETag"] = f'"{resource.version}"'
    return resource


def created[Resource: Output](
    request: Request, response: Response, outcome: tuple[Resource, bool]
) -> Resource:
    """Answer 201 with `Location`, or 200 when the same create was accepted before."""
    resource, is_new = outcome
    response.status_code = 201 if is_new else 200
    response.headers["Location"] = f"{request.scope['path'].rstrip('/')}/{resource.id}"
    return tagged(response, resource)


def paged[P: Page[Any]](request: Request, response: Response, page: P) -> P:
    """Give the answer its `Link` to the next page (RFC 8288)."""
    linked(request, response, page.next_cursor)
    return page


def linked(request: Request, response: Response, next_cursor: str | None) -> Response:
    """Give an answer that is written already its `Link` to the next page."""
    if next_cursor:
        following = request.url.include_query_params(cursor=next_cursor)
        response.headers["Link"] = f'<{following.path}?{following.query}>; rel="next"'
    return response
