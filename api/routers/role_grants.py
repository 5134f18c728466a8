"""/v1/role-grants: who may act as what, where and until when."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from api.auth.dependencies import PrincipalWriter, Session
from api.models.role_grants import RoleGrantCreate, RoleGrantPage, RoleGrantQuery, RoleGrantRead
from api.routers.answers import IfMatch, created, paged, tagged
from api.routers.idempotency import Keyed
from api.services import role_grants

router = APIRouter(prefix="/v1/role-grants", tags=["identity"], route_class=Keyed)


@router.get("", operation_id="list_role_grants")
async def list_role_grants(
    session: Session,
    caller: PrincipalWriter,
    query: Annotated[RoleGrantQuery, Query()],
    request: Request,
    response: Response,
) -> RoleGrantPage:
    """List the grants inside the caller's own subtree."""
    return paged(request, response, await role_grants.list_grants(session, caller, query))


@router.post("", operation_id="create_role_grant", status_code=201)
async def create_role_grant(
    session: Session,
    caller: PrincipalWriter,
    body: RoleGrantCreate,
    request: Request,
    response: Response,
) -> RoleGrantRead:
    """Give a role inside the caller's own subtree and dates, never to itself."""
    return created(request, response, await role_grants.create_grant(session, caller, body))


@router.get("/{grant_id}", operation_id="get_role_grant")
async def get_role_grant(
    session: Session, caller: PrincipalWriter, grant_id: UUID, response: Response
) -> RoleGrantRead:
    """Return a grant inside the caller's own subtree."""
    return tagged(response, await role_grants.read_grant(session, caller, grant_id))


@router.delete("/{grant_id}", operation_id="delete_role_grant", status_code=204)
async def delete_role_grant(
    session: Session, caller: PrincipalWriter, grant_id: UUID, if_match: IfMatch
) -> None:
    """End a grant at once."""
    await role_grants.end_grant(session, caller, grant_id, if_match)
