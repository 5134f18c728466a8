"""/v1/break-glass: reading people in clear for an hour, for a reason that is kept."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from api.auth.dependencies import GlassBreaker, Session
from api.models.break_glass import (
    BreakGlassCreate,
    BreakGlassPage,
    BreakGlassQuery,
    BreakGlassRead,
)
from api.routers.answers import IfMatch, created, paged, tagged
from api.routers.idempotency import Keyed
from api.services import break_glass

router = APIRouter(prefix="/v1/break-glass", tags=["identity"], route_class=Keyed)


@router.get("", operation_id="list_break_glass")
async def list_break_glass(
    session: Session,
    caller: GlassBreaker,
    query: Annotated[BreakGlassQuery, Query()],
    request: Request,
    response: Response,
) -> BreakGlassPage:
    """List what was broken in the caller's own subtree, the newest first."""
    return paged(request, response, await break_glass.list_broken(session, caller, query))


@router.post("", operation_id="create_break_glass", status_code=201)
async def create_break_glass(
    session: Session,
    caller: GlassBreaker,
    body: BreakGlassCreate,
    request: Request,
    response: Response,
) -> BreakGlassRead:
    """Read the people of a unit's subtree in clear for 60 minutes."""
    return created(request, response, await break_glass.break_glass(session, caller, body))


@router.get("/{break_glass_id}", operation_id="get_break_glass")
async def get_break_glass(
    session: Session, caller: GlassBreaker, break_glass_id: UUID, response: Response
) -> BreakGlassRead:
    """Return one of the caller's own subtree."""
    return tagged(response, await break_glass.get_broken(session, caller, break_glass_id))


@router.delete("/{break_glass_id}", operation_id="delete_break_glass", status_code=204)
async def delete_break_glass(
    session: Session, caller: GlassBreaker, break_glass_id: UUID, if_match: IfMatch
) -> None:
    """End one's own right before it expires."""
    await break_glass.mend(session, caller, break_glass_id, if_match)
