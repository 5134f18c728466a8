"""/v1/closed-periods: a unit's figures of a month, quarter or year, frozen."""

from collections.abc import AsyncIterator
from typing import Annotated, cast
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response

from api.auth.dependencies import AggregateReader, PeriodCloser, Session
from api.models.closed_periods import (
    ClosedPeriodCreate,
    ClosedPeriodPage,
    ClosedPeriodQuery,
    ClosedPeriodRead,
)
from api.models.observations import ObservationAnswer
from api.routers.answers import PRIVATE, created, holds, paged, tagged
from api.routers.idempotency import Keyed
from api.services import closed_periods
from api.services.closed_revisions import Revisions

router = APIRouter(prefix="/v1/closed-periods", tags=["closed-periods"], route_class=Keyed)


async def _take_turn(request: Request) -> AsyncIterator[None]:
    """Wait for one's turn before any connection is taken: closing a period takes two of them."""
    async with request.app.state.closing:
        yield


async def _revisions(request: Request) -> Revisions:
    return cast("Revisions", request.app.state.revisions)


@router.get("", operation_id="list_closed_periods")
async def list_closed_periods(
    session: Session,
    caller: AggregateReader,
    query: Annotated[ClosedPeriodQuery, Query()],
    request: Request,
    response: Response,
) -> ClosedPeriodPage:
    """List the closed periods in scope, the last closed first; each tells its revisions itself."""
    page = await closed_periods.list_closed_periods(session, caller, query)
    return paged(request, response, page)


@router.post(
    "", operation_id="create_closed_period", status_code=201, dependencies=[Depends(_take_turn)]
)
async def create_closed_period(
    session: Session,
    caller: PeriodCloser,
    body: ClosedPeriodCreate,
    request: Request,
    response: Response,
) -> ClosedPeriodRead:
    """Close a period of a unit, for good: its figures are frozen, those directly below with it.

    Late facts are still taken and show as revisions; targets and statistics within refuse edits.
    """
    engine = request.app.state.engine
    outcome = await closed_periods.close_period(session, engine, caller, body)
    return created(request, response, outcome)


@router.get("/{closed_period_id}", operation_id="get_closed_period")
async def get_closed_period(
    session: Session,
    caller: AggregateReader,
    closed_period_id: UUID,
    revisions: Annotated[Revisions, Depends(_revisions)],
    response: Response,
) -> ClosedPeriodRead:
    """Return a closed period, with what its figures have become by now."""
    found = await closed_periods.get_closed_period(session, revisions, caller, closed_period_id)
    return tagged(response, found)


@router.get(
    "/{closed_period_id}/observations",
    operation_id="get_closed_observations",
    response_model=ObservationAnswer,
    responses={304: {"description": "They never change"}},
)
async def get_closed_observations(
    session: Session, caller: AggregateReader, closed_period_id: UUID, request: Request
) -> Response:
    """Return the frozen figures: of the unit (also by service) and of those directly below.

    Those about people are left out for whoever may not read the people of the whole unit.
    """
    answer, tag = await closed_periods.frozen_observations(session, caller, closed_period_id)
    headers = {"ETag": tag, **PRIVATE}
    if holds(request, tag):
        return Response(status_code=304, headers=headers)
    return Response(answer.model_dump_json(), headers=headers, media_type="application/json")
