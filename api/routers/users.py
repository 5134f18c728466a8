"""/v1/users: people who sign in."""

from fastapi import APIRouter, Request, Response

from api.auth.dependencies import PrincipalWriter, Session, issuers_of
from api.models.principals import UserCreate, UserRead
from api.routers.answers import created
from api.routers.idempotency import Keyed
from api.services import principals

router = APIRouter(prefix="/v1/users", tags=["identity"], route_class=Keyed)


@router.post("", operation_id="create_user", status_code=201)
async def create_user(
    session: Session,
    caller: PrincipalWriter,
    body: UserCreate,
    request: Request,
    response: Response,
) -> UserRead:
    """Create a person; roles are given at `/role-grants`. 409 when the name is taken.

    With `identities` the person may also sign in through those OpenID Connect issuers, which must
    be configured; 409 when one of them is somebody's already.
    """
    issuers = issuers_of(request)
    return created(request, response, await principals.create_user(session, caller, issuers, body))
