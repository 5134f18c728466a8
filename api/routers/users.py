"""/v1/users: people who sign in."""

from fastapi import APIRouter, Request, Response

from api.auth.dependencies import PrincipalWriter, Session
from api.models.principals import UserCreate, UserRead
from api.routers.answers import created
from api.services import principals

router = APIRouter(prefix="/users", tags=["identity"])


@router.post("", operation_id="create_user", status_code=201)
async def create_user(
    session: Session,
    caller: PrincipalWriter,
    body: UserCreate,
    request: Request,
    response: Response,
) -> UserRead:
    """Create a person; roles are given at `/role-grants`. 409 when the name is taken."""
    return created(request, response, await principals.create_user(session, caller, body))
