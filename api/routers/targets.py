"""/v1/targets, their progress and their allocation."""

from typing import Annotated, cast
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from api.auth.dependencies import (
    HotTargetReader,
    Session,
    TargetAllocator,
    TargetReader,
    TargetWriter,
)
from api.models.allocations import Allocations, TargetAllocate
from api.models.target_progress import (
    ProgressQuery,
    TargetProgress,
    TargetProgressPage,
    TargetProgressQuery,
)
from api.models.targets import (
    TargetCreate,
    TargetPage,
    TargetQuery,
    TargetRead,
    TargetUpdate,
    TargetVersionPage,
    TargetVersionQuery,
)
from api.routers.answers import IfMatch, created, linked, paged, tagged
from api.routers.idempotency import Keyed
from api.services import allocations, target_progress, targets
from api.services.target_answers import TargetAnswers

router = APIRouter(prefix="/v1/targets", tags=["targets"], route_class=Keyed)


@router.get("", operation_id="list_targets")
async def list_targets(
    session: Session,
    caller: TargetReader,
    query: Annotated[TargetQuery, Query()],
    request: Request,
    response: Response,
) -> TargetPage:
    """List the targets in scope."""
    return paged(request, response, await targets.list_targets(session, caller, query))


@router.post("", operation_id="create_target", status_code=201)
async def create_target(
    session: Session,
    caller: TargetWriter,
    body: TargetCreate,
    request: Request,
    response: Response,
) -> TargetRead:
    """Set a target for a unit that stands on its period's last day."""
    return created(request, response, await targets.create_target(session, caller, body))


@router.get("/progress", operation_id="list_target_progress", response_model=TargetProgressPage)
async def list_target_progress(
    session: Session,
    caller: HotTargetReader,
    query: Annotated[TargetProgressQuery, Query()],
    request: Request,
) -> Response:
    """Tell how far all targets in scope have come, up to 5,000 in one answer."""
    answers = cast("TargetAnswers", request.app.state.target_answers)
    told = await answers.answer(session, caller, query)
    return linked(request, Response(told.body, media_type="application/json"), told.next_cursor)


@router.get("/{target_id}", operation_id="get_target")
async def get_target(
    session: Session, caller: TargetReader, target_id: UUID, response: Response
) -> TargetRead:
    """Return a target."""
    return tagged(response, await targets.get_target(session, caller, target_id))


@router.patch("/{target_id}", operation_id="update_target")
async def update_target(
    session: Session,
    caller: TargetWriter,
    target_id: UUID,
    if_match: IfMatch,
    body: TargetUpdate,
    response: Response,
) -> TargetRead:
    """Change a target. 412 when `If-Match` is not the current version."""
    return tagged(response, await targets.update_target(session, caller, target_id, if_match, body))


@router.delete("/{target_id}", operation_id="delete_target", status_code=204)
async def delete_target(
    session: Session, caller: TargetWriter, target_id: UUID, if_match: IfMatch
) -> None:
    """Hide a target that was set by mistake."""
    await targets.delete_target(session, caller, target_id, if_match)


@router.post("/{target_id}:undelete", operation_id="undelete_target")
async def undelete_target(
    session: Session, caller: TargetWriter, target_id: UUID, if_match: IfMatch, response: Response
) -> TargetRead:
    """Bring back a target that was deleted."""
    return tagged(response, await targets.undelete_target(session, caller, target_id, if_match))


@router.get("/{target_id}/versions", operation_id="list_target_versions")
async def list_target_versions(
    session: Session,
    caller: TargetReader,
    target_id: UUID,
    query: Annotated[TargetVersionQuery, Query()],
    request: Request,
    response: Response,
) -> TargetVersionPage:
    """List what a target is and was, the newest version first."""
    return paged(request, response, await targets.list_versions(session, caller, target_id, query))


@router.get("/{target_id}/progress", operation_id="get_target_progress")
async def get_target_progress(
    session: Session,
    caller: TargetReader,
    target_id: UUID,
    query: Annotated[ProgressQuery, Query()],
) -> TargetProgress:
    """Tell how far a target has come."""
    return await target_progress.get_progress(session, caller, target_id, query)


@router.post("/{target_id}:allocate", operation_id="allocate_target")
async def allocate_target(
    session: Session, caller: TargetAllocator, target_id: UUID, body: TargetAllocate
) -> Allocations:
    """Share a target out over units below it, in place of what was shared out before."""
    return await allocations.allocate(session, caller, target_id, body)
