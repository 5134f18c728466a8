"""/v1/teams."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from api.auth.dependencies import (
    HotTeamReader,
    Session,
    TeamLinkWriter,
    TeamReader,
    TeamWriter,
    hot_of,
)
from api.models.teams import TeamCreate, TeamPage, TeamPut, TeamQuery, TeamRead, TeamUpdate
from api.routers.answers import IfMatch, created, paged, tagged
from api.routers.external_ids import BY_EXTERNAL_ID, ExternalName, upserted
from api.routers.idempotency import Keyed
from api.services import teams, upserts

router = APIRouter(prefix="/v1/teams", tags=["teams"], route_class=Keyed)


@router.get("", operation_id="list_teams")
async def list_teams(
    session: Session,
    caller: TeamReader,
    query: Annotated[TeamQuery, Query()],
    request: Request,
    response: Response,
) -> TeamPage:
    """List the teams in scope."""
    return paged(request, response, await teams.list_teams(session, caller, query))


@router.post("", operation_id="create_team", status_code=201)
async def create_team(
    session: Session, caller: TeamWriter, body: TeamCreate, request: Request, response: Response
) -> TeamRead:
    """Found a team in a village or commune that stood on its founding day."""
    return created(request, response, await teams.create_team(session, caller, body))


@router.get("/{team_id}", operation_id="get_team")
async def get_team(
    caller: HotTeamReader, team_id: UUID, request: Request, response: Response
) -> TeamRead:
    """Return a team."""
    return tagged(response, await teams.get_team(hot_of(request), caller, team_id))


@router.patch("/{team_id}", operation_id="update_team")
async def update_team(
    session: Session,
    caller: TeamLinkWriter,
    team_id: UUID,
    if_match: IfMatch,
    body: TeamUpdate,
    response: Response,
) -> TeamRead:
    """Change a team. 412 when `If-Match` is not the current version."""
    return tagged(response, await teams.update_team(session, caller, team_id, if_match, body))


@router.delete("/{team_id}", operation_id="delete_team", status_code=204)
async def delete_team(
    session: Session, caller: TeamWriter, team_id: UUID, if_match: IfMatch
) -> None:
    """Hide a team that was entered by mistake."""
    await teams.delete_team(session, caller, team_id, if_match)


@router.post("/{team_id}:undelete", operation_id="undelete_team")
async def undelete_team(
    session: Session, caller: TeamWriter, team_id: UUID, if_match: IfMatch, response: Response
) -> TeamRead:
    """Bring back a team that was deleted."""
    return tagged(response, await teams.undelete_team(session, caller, team_id, if_match))


@router.put(BY_EXTERNAL_ID, operation_id="put_team_by_external_id")
async def put_team(
    session: Session,
    caller: TeamWriter,
    name: ExternalName,
    body: TeamPut,
    request: Request,
    response: Response,
) -> TeamRead:
    """Create the team of an external id (201), or change what is given (200)."""
    outcome = await upserts.put(session, caller, upserts.TEAMS, name, body)
    return upserted(request, response, outcome)
