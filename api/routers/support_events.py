"""/v1/support-events."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from api.auth.dependencies import (
    EventReader,
    EventWriter,
    HotConnection,
    HotEventReader,
    HotEventWriter,
    Session,
)
from api.models.support_events import (
    SupportEventCreate,
    SupportEventPage,
    SupportEventQuery,
    SupportEventRead,
    SupportEventUpdate,
)
from api.routers.answers import IfMatch, created, paged, tagged
from api.services import support_events

router = APIRouter(prefix="/support-events", tags=["support-events"])


@router.get("", operation_id="list_support_events")
async def list_support_events(
    session: Session,
    caller: EventReader,
    query: Annotated[SupportEventQuery, Query()],
    request: Request,
    response: Response,
) -> SupportEventPage:
    """List the events in scope."""
    return paged(
        request, response, await support_events.list_support_events(session, caller, query)
    )


@router.post("", operation_id="create_support_event", status_code=201)
async def create_support_event(
    database: HotConnection,
    caller: HotEventWriter,
    body: SupportEventCreate,
    request: Request,
    response: Response,
) -> SupportEventRead:
    """Record one act of help by a team in the caller's scope."""
    return created(
        request, response, await support_events.create_support_event(database, caller, body)
    )


@router.get("/{support_event_id}", operation_id="get_support_event")
async def get_support_event(
    database: HotConnection, caller: HotEventReader, support_event_id: UUID, response: Response
) -> SupportEventRead:
    """Return an event."""
    return tagged(
        response, await support_events.get_support_event(database, caller, support_event_id)
    )


@router.patch("/{support_event_id}", operation_id="update_support_event")
async def update_support_event(
    session: Session,
    caller: EventWriter,
    support_event_id: UUID,
    if_match: IfMatch,
    body: SupportEventUpdate,
    response: Response,
) -> SupportEventRead:
    """Change an event. 412 when `If-Match` is not the current version."""
    support_event = await support_events.update_support_event(
        session, caller, support_event_id, if_match, body
    )
    return tagged(response, support_event)
