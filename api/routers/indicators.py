"""/v1/indicators."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from api.auth.dependencies import IndicatorWriter, Session, SignedIn
from api.models.indicators import (
    IndicatorCreate,
    IndicatorPage,
    IndicatorQuery,
    IndicatorRead,
    IndicatorUpdate,
    IndicatorVersionPage,
    IndicatorVersionQuery,
)
from api.routers.answers import IfMatch, created, paged, tagged
from api.routers.idempotency import Keyed
from api.services import indicators

router = APIRouter(prefix="/v1/indicators", tags=["indicators"], route_class=Keyed)


@router.get("", operation_id="list_indicators")
async def list_indicators(
    session: Session,
    caller: SignedIn,
    query: Annotated[IndicatorQuery, Query()],
    request: Request,
    response: Response,
) -> IndicatorPage:
    """List the definitions in scope."""
    return paged(request, response, await indicators.list_indicators(session, caller, query))


@router.post("", operation_id="create_indicator", status_code=201)
async def create_indicator(
    session: Session,
    caller: IndicatorWriter,
    body: IndicatorCreate,
    request: Request,
    response: Response,
) -> IndicatorRead:
    """Define a declared indicator, whose values are statistics with a source."""
    return created(request, response, await indicators.create_indicator(session, caller, body))


@router.get("/{indicator_id}", operation_id="get_indicator")
async def get_indicator(
    session: Session, caller: SignedIn, indicator_id: UUID, response: Response
) -> IndicatorRead:
    """Return a definition."""
    return tagged(response, await indicators.get_indicator(session, caller, indicator_id))


@router.patch("/{indicator_id}", operation_id="update_indicator")
async def update_indicator(
    session: Session,
    caller: IndicatorWriter,
    indicator_id: UUID,
    if_match: IfMatch,
    body: IndicatorUpdate,
    response: Response,
) -> IndicatorRead:
    """Change a definition. 412 when `If-Match` is not the current version."""
    indicator = await indicators.update_indicator(session, caller, indicator_id, if_match, body)
    return tagged(response, indicator)


@router.delete("/{indicator_id}", operation_id="delete_indicator", status_code=204)
async def delete_indicator(
    session: Session, caller: IndicatorWriter, indicator_id: UUID, if_match: IfMatch
) -> None:
    """Hide a definition that was entered by mistake."""
    await indicators.delete_indicator(session, caller, indicator_id, if_match)


@router.get("/{indicator_id}/versions", operation_id="list_indicator_versions")
async def list_indicator_versions(
    session: Session,
    caller: SignedIn,
    indicator_id: UUID,
    query: Annotated[IndicatorVersionQuery, Query()],
    request: Request,
    response: Response,
) -> IndicatorVersionPage:
    """List what an indicator means and meant, the present definition first."""
    page = await indicators.list_versions(session, caller, indicator_id, query)
    return paged(request, response, page)
