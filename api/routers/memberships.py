"""/v1/memberships: joining a team, changing the role, leaving."""

from uuid import UUID

from fastapi import APIRouter, Response

from api.auth.dependencies import MemberWriter, Session
from api.models.members import MembershipPut, MembershipRead
from api.routers.routes import Strict
from api.services import memberships

router = APIRouter(prefix="/v1/memberships", tags=["members"], route_class=Strict)


@router.put("/{team_id}/{member_id}", operation_id="put_membership")
async def put_membership(
    session: Session,
    caller: MemberWriter,
    team_id: UUID,
    member_id: UUID,
    body: MembershipPut,
    response: Response,
) -> MembershipRead:
    """Join a team (201), or change the stay that began on the same day (200)."""
    stay, is_new = await memberships.put_membership(session, caller, team_id, member_id, body)
    response.status_code = 201 if is_new else 200
    return stay


@router.delete("/{team_id}/{member_id}", operation_id="delete_membership", status_code=204)
async def delete_membership(
    session: Session, caller: MemberWriter, team_id: UUID, member_id: UUID
) -> None:
    """Leave a team: today is the last day."""
    await memberships.leave(session, caller, team_id, member_id)
