"""/v1/support-events."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Body, Query, Request, Response

from api.auth.dependencies import (
    EventReader,
    EventReopener,
    EventVerifier,
    EventVoider,
    EventWriter,
    HotEventReader,
    HotEventWriter,
    Session,
    hot_of,
)
from api.models.event_versions import (
    EventDecision,
    EventVerify,
    SupportEventVersionPage,
    SupportEventVersionQuery,
)
from api.models.support_events import (
    SupportEventCreate,
    SupportEventPage,
    SupportEventPut,
    SupportEventQuery,
    SupportEventRead,
    SupportEventUpdate,
)
from api.routers.answers import IfMatch, OptionalIfMatch, created, linked, paged, tagged
from api.routers.external_ids import BY_EXTERNAL_ID, ExternalName, upserted
from api.routers.idempotency import Keyed
from api.services import (
    event_corrections,
    event_life,
    event_lists,
    event_versions,
    support_events,
    upserts,
)

router = APIRouter(prefix="/v1/support-events", tags=["support-events"], route_class=Keyed)


@router.get("", operation_id="list_support_events", response_model=SupportEventPage)
async def list_support_events(
    caller: HotEventReader,
    query: Annotated[SupportEventQuery, Query()],
    request: Request,
) -> Response:
    """List the events in scope."""
    listed = await event_lists.list_support_events(hot_of(request), caller, query)
    response = Response(listed.body, media_type="application/json")
    return linked(request, response, listed.next_cursor)


@router.post("", operation_id="create_support_event", status_code=201)
async def create_support_event(
    caller: HotEventWriter,
    body: SupportEventCreate,
    request: Request,
    response: Response,
) -> SupportEventRead:
    """Record one act of help by a team in the caller's scope."""
    outcome = await support_events.create_support_event(hot_of(request), caller, body)
    return created(request, response, outcome)


@router.get("/{support_event_id}", operation_id="get_support_event")
async def get_support_event(
    caller: HotEventReader, support_event_id: UUID, request: Request, response: Response
) -> SupportEventRead:
    """Return an event."""
    database = hot_of(request)
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
    """Correct an event, which is `submitted` again. 412 when `If-Match` is not the current version.

    The version before is kept. A rejected or voided event is not corrected: 409 `conflict`.
    """
    support_event = await event_corrections.update_support_event(
        session, caller, support_event_id, if_match, body
    )
    return tagged(response, support_event)


@router.post("/{support_event_id}:verify", operation_id="verify_support_event")
async def verify_support_event(
    session: Session,
    caller: EventVerifier,
    support_event_id: UUID,
    if_match: OptionalIfMatch,
    body: Annotated[EventVerify, Body(default_factory=EventVerify)],
    response: Response,
) -> SupportEventRead:
    """Confirm a submitted event; nobody confirms their own (403 `own_event`).

    Send `If-Match`, so that what is confirmed is what was read. 409 `conflict` tells the status
    where it is another; the same verb sent again by the same person changes nothing.
    """
    done = await event_life.verify_support_event(session, caller, support_event_id, if_match, body)
    return tagged(response, done)


@router.post("/{support_event_id}:reject", operation_id="reject_support_event")
async def reject_support_event(
    session: Session,
    caller: EventVerifier,
    support_event_id: UUID,
    if_match: OptionalIfMatch,
    body: EventDecision,
    response: Response,
) -> SupportEventRead:
    """Refuse a submitted event, which is not counted any more; nobody refuses their own."""
    done = await event_life.reject_support_event(session, caller, support_event_id, if_match, body)
    return tagged(response, done)


@router.post("/{support_event_id}:void", operation_id="void_support_event")
async def void_support_event(
    session: Session,
    caller: EventVoider,
    support_event_id: UUID,
    if_match: OptionalIfMatch,
    body: EventDecision,
    response: Response,
) -> SupportEventRead:
    """Take an event back for good: by an officer, or by whoever may correct it."""
    done = await event_life.void_support_event(session, caller, support_event_id, if_match, body)
    return tagged(response, done)


@router.post("/{support_event_id}:reopen", operation_id="reopen_support_event")
async def reopen_support_event(
    session: Session,
    caller: EventReopener,
    support_event_id: UUID,
    if_match: OptionalIfMatch,
    body: EventDecision,
    response: Response,
) -> SupportEventRead:
    """Make a verified or rejected event `submitted` again."""
    done = await event_life.reopen_support_event(session, caller, support_event_id, if_match, body)
    return tagged(response, done)


@router.get("/{support_event_id}/versions", operation_id="list_support_event_versions")
async def list_support_event_versions(
    session: Session,
    caller: EventReader,
    support_event_id: UUID,
    query: Annotated[SupportEventVersionQuery, Query()],
    request: Request,
    response: Response,
) -> SupportEventVersionPage:
    """List what an event is and was, the newest version first: by whom, when, and why."""
    page = await event_versions.list_versions(session, caller, support_event_id, query)
    return paged(request, response, page)


@router.put(BY_EXTERNAL_ID, operation_id="put_support_event_by_external_id")
async def put_support_event(
    session: Session,
    caller: EventWriter,
    name: ExternalName,
    body: SupportEventPut,
    request: Request,
    response: Response,
) -> SupportEventRead:
    """Record the event of an external id (201), or correct what is given (200).

    Nothing changes, not even the status, when nothing is different. Its team stays.
    """
    outcome = await upserts.put(session, caller, upserts.SUPPORT_EVENTS, name, body)
    return upserted(request, response, outcome)
