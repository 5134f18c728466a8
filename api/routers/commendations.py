"""/v1/commendations."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from api.auth.dependencies import CommendationReader, CommendationWriter, Session
from api.models.commendations import (
    CommendationCreate,
    CommendationFacts,
    CommendationFactsQuery,
    CommendationPage,
    CommendationQuery,
    CommendationRead,
    CommendationUpdate,
)
from api.routers.answers import IfMatch, created, paged, tagged
from api.routers.idempotency import Keyed
from api.services import commendation_facts, commendations

router = APIRouter(prefix="/v1/commendations", tags=["commendations"], route_class=Keyed)


@router.get("", operation_id="list_commendations")
async def list_commendations(
    session: Session,
    caller: CommendationReader,
    query: Annotated[CommendationQuery, Query()],
    request: Request,
    response: Response,
) -> CommendationPage:
    """List the commendations in scope."""
    return paged(request, response, await commendations.list_commendations(session, caller, query))


@router.post("", operation_id="create_commendation", status_code=201)
async def create_commendation(
    session: Session,
    caller: CommendationWriter,
    body: CommendationCreate,
    request: Request,
    response: Response,
) -> CommendationRead:
    """Record a commendation, or propose one: without `awarded_on`."""
    return created(
        request, response, await commendations.create_commendation(session, caller, body)
    )


@router.get("/{commendation_id}", operation_id="get_commendation")
async def get_commendation(
    session: Session, caller: CommendationReader, commendation_id: UUID, response: Response
) -> CommendationRead:
    """Return a commendation."""
    return tagged(response, await commendations.get_commendation(session, caller, commendation_id))


@router.get("/{commendation_id}/facts", operation_id="get_commendation_facts")
async def get_commendation_facts(
    session: Session,
    caller: CommendationReader,
    commendation_id: UUID,
    query: Annotated[CommendationFactsQuery, Query()],
) -> CommendationFacts:
    """Count the facts behind a commendation or its proposal, as far as the caller reads totals."""
    return await commendation_facts.get_facts(session, caller, commendation_id, query)


@router.patch("/{commendation_id}", operation_id="update_commendation")
async def update_commendation(
    session: Session,
    caller: CommendationWriter,
    commendation_id: UUID,
    if_match: IfMatch,
    body: CommendationUpdate,
    response: Response,
) -> CommendationRead:
    """Change a commendation. 412 when `If-Match` is not the current version."""
    changed = await commendations.update_commendation(
        session, caller, commendation_id, if_match, body
    )
    return tagged(response, changed)


@router.delete("/{commendation_id}", operation_id="delete_commendation", status_code=204)
async def delete_commendation(
    session: Session, caller: CommendationWriter, commendation_id: UUID, if_match: IfMatch
) -> None:
    """Hide a commendation that was entered by mistake."""
    await commendations.delete_commendation(session, caller, commendation_id, if_match)


@router.post("/{commendation_id}:undelete", operation_id="undelete_commendation")
async def undelete_commendation(
    session: Session,
    caller: CommendationWriter,
    commendation_id: UUID,
    if_match: IfMatch,
    response: Response,
) -> CommendationRead:
    """Bring back a commendation that was deleted."""
    back = await commendations.undelete_commendation(session, caller, commendation_id, if_match)
    return tagged(response, back)
