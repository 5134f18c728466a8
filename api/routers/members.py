"""/v1/members."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from api.auth.dependencies import HotMemberReader, MemberReader, MemberWriter, Session, hot_of
from api.models.members import (
    MemberCreate,
    MemberPage,
    MemberPut,
    MemberQuery,
    MemberRead,
    MemberUpdate,
)
from api.routers.answers import IfMatch, created, paged, tagged
from api.routers.external_ids import BY_EXTERNAL_ID, ExternalName, upserted
from api.routers.idempotency import Keyed
from api.services import members, upserts

router = APIRouter(prefix="/v1/members", tags=["members"], route_class=Keyed)


@router.get("", operation_id="list_members")
async def list_members(
    session: Session,
    caller: MemberReader,
    query: Annotated[MemberQuery, Query()],
    request: Request,
    response: Response,
) -> MemberPage:
    """List the members in scope."""
    return paged(request, response, await members.list_members(session, caller, query))


@router.post("", operation_id="create_member", status_code=201)
async def create_member(
    session: Session,
    caller: MemberWriter,
    body: MemberCreate,
    request: Request,
    response: Response,
) -> MemberRead:
    """Create a person who joins at least one team."""
    return created(request, response, await members.create_member(session, caller, body))


@router.get("/{member_id}", operation_id="get_member")
async def get_member(
    caller: HotMemberReader, member_id: UUID, request: Request, response: Response
) -> MemberRead:
    """Return a member."""
    return tagged(response, await members.get_member(hot_of(request), caller, member_id))


@router.patch("/{member_id}", operation_id="update_member")
async def update_member(
    session: Session,
    caller: MemberWriter,
    member_id: UUID,
    if_match: IfMatch,
    body: MemberUpdate,
    response: Response,
) -> MemberRead:
    """Change a member. 412 when `If-Match` is not the current version."""
    member = await members.update_member(session, caller, member_id, if_match, body)
    return tagged(response, member)


@router.delete("/{member_id}", operation_id="delete_member", status_code=204)
async def delete_member(
    session: Session, caller: MemberWriter, member_id: UUID, if_match: IfMatch
) -> None:
    """Hide a member that was entered by mistake."""
    await members.delete_member(session, caller, member_id, if_match)


@router.post("/{member_id}:undelete", operation_id="undelete_member")
async def undelete_member(
    session: Session, caller: MemberWriter, member_id: UUID, if_match: IfMatch, response: Response
) -> MemberRead:
    """Bring back a member that was deleted."""
    return tagged(response, await members.undelete_member(session, caller, member_id, if_match))


@router.put(BY_EXTERNAL_ID, operation_id="put_member_by_external_id")
async def put_member(
    session: Session,
    caller: MemberWriter,
    name: ExternalName,
    body: MemberPut,
    request: Request,
    response: Response,
) -> MemberRead:
    """Create the member of an external id (201), or change what is given (200)."""
    outcome = await upserts.put(session, caller, upserts.MEMBERS, name, body)
    return upserted(request, response, outcome)
