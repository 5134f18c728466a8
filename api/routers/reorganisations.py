"""/v1/reorganisations: merging, splitting, moving and renaming units by a legal document."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from api.auth.dependencies import Reorganiser, Session, SignedIn
from api.models.reorganisations import (
    ReorganisationCreate,
    ReorganisationPage,
    ReorganisationPreview,
    ReorganisationQuery,
    ReorganisationRead,
    ReorganisationRevert,
)
from api.routers.answers import created, paged, tagged
from api.routers.idempotency import Keyed
from api.services import reorganisation_reverts, reorganisations

router = APIRouter(prefix="/v1/reorganisations", tags=["admin-units"], route_class=Keyed)


@router.get("", operation_id="list_reorganisations")
async def list_reorganisations(
    session: Session,
    caller: SignedIn,
    query: Annotated[ReorganisationQuery, Query()],
    request: Request,
    response: Response,
) -> ReorganisationPage:
    """List the reorganisations that were applied here, taken-back ones among them."""
    page = await reorganisations.list_reorganisations(session, caller, query)
    return paged(request, response, page)


@router.post(
    "",
    operation_id="create_reorganisation",
    status_code=201,
    response_model=ReorganisationRead,
    responses={200: {"model": ReorganisationPreview, "description": "`dry_run`, or known before"}},
)
async def create_reorganisation(
    session: Session,
    caller: Reorganiser,
    body: ReorganisationCreate,
    request: Request,
    response: Response,
) -> ReorganisationRead | JSONResponse:
    """Apply a reorganisation, all or nothing; with `dry_run` only tell what it would do.

    A province's administrator reorganises the villages of its province.
    """
    outcome = await reorganisations.create_reorganisation(session, caller, body)
    if isinstance(outcome, ReorganisationPreview):
        return JSONResponse(outcome.model_dump(mode="json"))
    return created(request, response, outcome)


@router.get("/{reorganisation_id}", operation_id="get_reorganisation")
async def get_reorganisation(
    session: Session, _caller: SignedIn, reorganisation_id: UUID, response: Response
) -> ReorganisationRead:
    """Return a reorganisation."""
    found = await reorganisations.get_reorganisation(session, reorganisation_id)
    return tagged(response, found)


@router.post("/{reorganisation_id}:revert", operation_id="revert_reorganisation")
async def revert_reorganisation(
    session: Session,
    caller: Reorganiser,
    reorganisation_id: UUID,
    body: ReorganisationRevert,
    response: Response,
) -> ReorganisationRead:
    """Take a reorganisation back, while nothing rests on it: names, tree and reach as before."""
    done = await reorganisation_reverts.revert_reorganisation(
        session, caller, reorganisation_id, body
    )
    return tagged(response, done)
