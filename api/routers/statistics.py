"""/v1/statistics."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from api.auth.dependencies import Session, StatisticReader, StatisticWriter
from api.models.statistics import (
    StatisticCreate,
    StatisticPage,
    StatisticPut,
    StatisticQuery,
    StatisticRead,
    StatisticUpdate,
)
from api.routers.answers import IfMatch, created, paged, tagged
from api.routers.external_ids import BY_EXTERNAL_ID, ExternalName, upserted
from api.routers.idempotency import Keyed
from api.services import statistics, upserts

router = APIRouter(prefix="/v1/statistics", tags=["statistics"], route_class=Keyed)


@router.get("", operation_id="list_statistics")
async def list_statistics(
    session: Session,
    caller: StatisticReader,
    query: Annotated[StatisticQuery, Query()],
    request: Request,
    response: Response,
) -> StatisticPage:
    """List the statistics in scope: every source for itself."""
    return paged(request, response, await statistics.list_statistics(session, caller, query))


@router.post("", operation_id="create_statistic", status_code=201)
async def create_statistic(
    session: Session,
    caller: StatisticWriter,
    body: StatisticCreate,
    request: Request,
    response: Response,
) -> StatisticRead:
    """Declare a figure that was measured elsewhere."""
    return created(request, response, await statistics.create_statistic(session, caller, body))


@router.get("/{statistic_id}", operation_id="get_statistic")
async def get_statistic(
    session: Session, caller: StatisticReader, statistic_id: UUID, response: Response
) -> StatisticRead:
    """Return a statistic."""
    return tagged(response, await statistics.get_statistic(session, caller, statistic_id))


@router.patch("/{statistic_id}", operation_id="update_statistic")
async def update_statistic(
    session: Session,
    caller: StatisticWriter,
    statistic_id: UUID,
    if_match: IfMatch,
    body: StatisticUpdate,
    response: Response,
) -> StatisticRead:
    """Correct a statistic. 412 when `If-Match` is not the current version."""
    statistic = await statistics.update_statistic(session, caller, statistic_id, if_match, body)
    return tagged(response, statistic)


@router.delete("/{statistic_id}", operation_id="delete_statistic", status_code=204)
async def delete_statistic(
    session: Session, caller: StatisticWriter, statistic_id: UUID, if_match: IfMatch
) -> None:
    """Hide a statistic that was entered by mistake."""
    await statistics.delete_statistic(session, caller, statistic_id, if_match)


@router.post("/{statistic_id}:undelete", operation_id="undelete_statistic")
async def undelete_statistic(
    session: Session,
    caller: StatisticWriter,
    statistic_id: UUID,
    if_match: IfMatch,
    response: Response,
) -> StatisticRead:
    """Bring back a statistic that was deleted."""
    return tagged(
        response, await statistics.undelete_statistic(session, caller, statistic_id, if_match)
    )


@router.put(BY_EXTERNAL_ID, operation_id="put_statistic_by_external_id")
async def put_statistic(
    session: Session,
    caller: StatisticWriter,
    name: ExternalName,
    body: StatisticPut,
    request: Request,
    response: Response,
) -> StatisticRead:
    """Declare the statistic of an external id (201), or change what is given (200)."""
    outcome = await upserts.put(session, caller, upserts.STATISTICS, name, body)
    return upserted(request, response, outcome)
