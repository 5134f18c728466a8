"""/v1/activities."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from api.auth.dependencies import ActivityReader, ActivityWriter, HotActivityReader, Session, hot_of
from api.models.activities import (
    ActivityCreate,
    ActivityPage,
    ActivityPut,
    ActivityQuery,
    ActivityRead,
    ActivityUpdate,
)
from api.routers.answers import IfMatch, created, paged, tagged
from api.routers.external_ids import BY_EXTERNAL_ID, ExternalName, upserted
from api.routers.idempotency import Keyed
from api.services import activities, upserts

router = APIRouter(prefix="/v1/activities", tags=["activities"], route_class=Keyed)


@router.get("", operation_id="list_activities")
async def list_activities(
    session: Session,
    caller: ActivityReader,
    query: Annotated[ActivityQuery, Query()],
    request: Request,
    response: Response,
) -> ActivityPage:
    """List the activities in scope."""
    return paged(request, response, await activities.list_activities(session, caller, query))


@router.post("", operation_id="create_activity", status_code=201)
async def create_activity(
    session: Session,
    caller: ActivityWriter,
    body: ActivityCreate,
    request: Request,
    response: Response,
) -> ActivityRead:
    """Record an activity of a host that stood on its day."""
    return created(request, response, await activities.create_activity(session, caller, body))


@router.get("/{activity_id}", operation_id="get_activity")
async def get_activity(
    caller: HotActivityReader, activity_id: UUID, request: Request, response: Response
) -> ActivityRead:
    """Return an activity."""
    return tagged(response, await activities.get_activity(hot_of(request), caller, activity_id))


@router.patch("/{activity_id}", operation_id="update_activity")
async def update_activity(
    session: Session,
    caller: ActivityWriter,
    activity_id: UUID,
    if_match: IfMatch,
    body: ActivityUpdate,
    response: Response,
) -> ActivityRead:
    """Change an activity. 412 when `If-Match` is not the current version."""
    changed = await activities.update_activity(session, caller, activity_id, if_match, body)
    return tagged(response, changed)


@router.delete("/{activity_id}", operation_id="delete_activity", status_code=204)
async def delete_activity(
    session: Session, caller: ActivityWriter, activity_id: UUID, if_match: IfMatch
) -> None:
    """Hide an activity that was entered by mistake."""
    await activities.delete_activity(session, caller, activity_id, if_match)


@router.post("/{activity_id}:undelete", operation_id="undelete_activity")
async def undelete_activity(
    session: Session,
    caller: ActivityWriter,
    activity_id: UUID,
    if_match: IfMatch,
    response: Response,
) -> ActivityRead:
    """Bring back an activity that was deleted."""
    back = await activities.undelete_activity(session, caller, activity_id, if_match)
    return tagged(response, back)


@router.put(BY_EXTERNAL_ID, operation_id="put_activity_by_external_id")
async def put_activity(
    session: Session,
    caller: ActivityWriter,
    name: ExternalName,
    body: ActivityPut,
    request: Request,
    response: Response,
) -> ActivityRead:
    """Create the activity of an external id (201), or change what is given (200)."""
    outcome = await upserts.put(session, caller, upserts.ACTIVITIES, name, body)
    return upserted(request, response, outcome)
