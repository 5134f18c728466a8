"""/v1/sessions: people sign in."""

from fastapi import APIRouter, Request

from api.auth.dependencies import Session, tokens_of
from api.models.principals import SessionCreate, TokenRead
from api.services import sessions

router = APIRouter(prefix="/sessions", tags=["identity"])


@router.post("", operation_id="create_session", status_code=201)
async def create_session(request: Request, session: Session, body: SessionCreate) -> TokenRead:
    """Sign a person in. 401 `invalid_credentials` does not say which of the two was wrong."""
    return await sessions.sign_in(session, tokens_of(request), body.username, body.password)
