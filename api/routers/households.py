"""/v1/households."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from api.auth.dependencies import (
    HotHouseholdReader,
    HouseholdReader,
    HouseholdWriter,
    Session,
    hot_of,
)
from api.models.consent_entries import ConsentEntryPage, ConsentEntryQuery
from api.models.households import (
    HouseholdCreate,
    HouseholdPage,
    HouseholdPut,
    HouseholdQuery,
    HouseholdRead,
    HouseholdUpdate,
)
from api.routers.answers import IfMatch, created, paged, tagged
from api.routers.external_ids import BY_EXTERNAL_ID, ExternalName, upserted
from api.routers.idempotency import Keyed
from api.services import consent_entries, households, upserts

router = APIRouter(prefix="/v1/households", tags=["households"], route_class=Keyed)


@router.get("", operation_id="list_households")
async def list_households(
    session: Session,
    caller: HouseholdReader,
    query: Annotated[HouseholdQuery, Query()],
    request: Request,
    response: Response,
) -> HouseholdPage:
    """List the households in scope."""
    return paged(request, response, await households.list_households(session, caller, query))


@router.post("", operation_id="create_household", status_code=201)
async def create_household(
    session: Session,
    caller: HouseholdWriter,
    body: HouseholdCreate,
    request: Request,
    response: Response,
) -> HouseholdRead:
    """Register a household in a village that stands today."""
    return created(request, response, await households.create_household(session, caller, body))


@router.get("/{household_id}", operation_id="get_household")
async def get_household(
    caller: HotHouseholdReader, household_id: UUID, request: Request, response: Response
) -> HouseholdRead:
    """Return a household."""
    return tagged(response, await households.get_household(hot_of(request), caller, household_id))


@router.patch("/{household_id}", operation_id="update_household")
async def update_household(
    session: Session,
    caller: HouseholdWriter,
    household_id: UUID,
    if_match: IfMatch,
    body: HouseholdUpdate,
    response: Response,
) -> HouseholdRead:
    """Change a household. 412 when `If-Match` is not the current version."""
    household = await households.update_household(session, caller, household_id, if_match, body)
    return tagged(response, household)


@router.delete("/{household_id}", operation_id="delete_household", status_code=204)
async def delete_household(
    session: Session, caller: HouseholdWriter, household_id: UUID, if_match: IfMatch
) -> None:
    """Hide a household that was entered by mistake."""
    await households.delete_household(session, caller, household_id, if_match)


@router.post("/{household_id}:undelete", operation_id="undelete_household")
async def undelete_household(
    session: Session,
    caller: HouseholdWriter,
    household_id: UUID,
    if_match: IfMatch,
    response: Response,
) -> HouseholdRead:
    """Bring back a household that was deleted."""
    return tagged(
        response, await households.undelete_household(session, caller, household_id, if_match)
    )


@router.get("/{household_id}/consent-entries", operation_id="list_consent_entries")
async def list_consent_entries(
    session: Session,
    caller: HouseholdReader,
    household_id: UUID,
    query: Annotated[ConsentEntryQuery, Query()],
    request: Request,
    response: Response,
) -> ConsentEntryPage:
    """List every legal basis that the household ever had, the oldest first."""
    page = await consent_entries.list_entries(session, caller, household_id, query)
    return paged(request, response, page)


@router.put(BY_EXTERNAL_ID, operation_id="put_household_by_external_id")
async def put_household(
    session: Session,
    caller: HouseholdWriter,
    name: ExternalName,
    body: HouseholdPut,
    request: Request,
    response: Response,
) -> HouseholdRead:
    """Create the household of an external id (201), or change what is given (200)."""
    outcome = await upserts.put(session, caller, upserts.HOUSEHOLDS, name, body)
    return upserted(request, response, outcome)
