"""/v1/me: the principal behind the token."""

from fastapi import APIRouter

from api.auth.dependencies import Session, SignedIn
from api.models.principals import MeRead
from api.services import principals

router = APIRouter(prefix="/me", tags=["identity"])


@router.get("", operation_id="get_me")
async def get_me(session: Session, caller: SignedIn) -> MeRead:
    """Return who is signed in, with the grants that hold today."""
    return await principals.who_am_i(session, caller)
