"""/v1/campaigns."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from api.auth.dependencies import AggregateReader, CampaignReader, CampaignWriter, Session
from api.models.campaigns import (
    CampaignCreate,
    CampaignPage,
    CampaignProgress,
    CampaignProgressQuery,
    CampaignQuery,
    CampaignRead,
    CampaignUpdate,
)
from api.routers.answers import IfMatch, created, paged, tagged
from api.routers.idempotency import Keyed
from api.services import campaign_progress, campaigns

router = APIRouter(prefix="/v1/campaigns", tags=["campaigns"], route_class=Keyed)


@router.get("", operation_id="list_campaigns")
async def list_campaigns(
    session: Session,
    caller: CampaignReader,
    query: Annotated[CampaignQuery, Query()],
    request: Request,
    response: Response,
) -> CampaignPage:
    """List the campaigns in scope, and those of the units above it."""
    return paged(request, response, await campaigns.list_campaigns(session, caller, query))


@router.post("", operation_id="create_campaign", status_code=201)
async def create_campaign(
    session: Session,
    caller: CampaignWriter,
    body: CampaignCreate,
    request: Request,
    response: Response,
) -> CampaignRead:
    """Begin a campaign of a unit that stood on its first day."""
    return created(request, response, await campaigns.create_campaign(session, caller, body))


@router.get("/{campaign_id}", operation_id="get_campaign")
async def get_campaign(
    session: Session, caller: CampaignReader, campaign_id: UUID, response: Response
) -> CampaignRead:
    """Return a campaign."""
    return tagged(response, await campaigns.get_campaign(session, caller, campaign_id))


@router.get("/{campaign_id}/progress", operation_id="get_campaign_progress")
async def get_campaign_progress(
    session: Session,
    caller: AggregateReader,
    campaign_id: UUID,
    query: Annotated[CampaignProgressQuery, Query()],
) -> CampaignProgress:
    """Count what a campaign came to, by service and by unit of count, beside its baseline.

    In the tree of its first day. 404 for a unit whose totals the caller may not read.
    """
    return await campaign_progress.get_progress(session, caller, campaign_id, query)


@router.patch("/{campaign_id}", operation_id="update_campaign")
async def update_campaign(
    session: Session,
    caller: CampaignWriter,
    campaign_id: UUID,
    if_match: IfMatch,
    body: CampaignUpdate,
    response: Response,
) -> CampaignRead:
    """Change a campaign. 412 when `If-Match` is not the current version."""
    changed = await campaigns.update_campaign(session, caller, campaign_id, if_match, body)
    return tagged(response, changed)


@router.delete("/{campaign_id}", operation_id="delete_campaign", status_code=204)
async def delete_campaign(
    session: Session, caller: CampaignWriter, campaign_id: UUID, if_match: IfMatch
) -> None:
    """Hide a campaign that was entered by mistake."""
    await campaigns.delete_campaign(session, caller, campaign_id, if_match)


@router.post("/{campaign_id}:undelete", operation_id="undelete_campaign")
async def undelete_campaign(
    session: Session,
    caller: CampaignWriter,
    campaign_id: UUID,
    if_match: IfMatch,
    response: Response,
) -> CampaignRead:
    """Bring back a campaign that was deleted."""
    back = await campaigns.undelete_campaign(session, caller, campaign_id, if_match)
    return tagged(response, back)
