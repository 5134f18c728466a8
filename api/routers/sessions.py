"""/v1/sessions: people sign in, stay signed in, and sign out."""

from fastapi import APIRouter, Request, Response

from api.auth.dependencies import Oneself, Session, issuers_of, tokens_of
from api.models.sessions import SessionCreate, SessionRefresh, TokenRead
from api.routers.answers import NO_STORE
from api.routers.routes import Strict
from api.services import sessions, signing_in

router = APIRouter(prefix="/v1", tags=["identity"], route_class=Strict)


@router.post("/sessions", operation_id="create_session", status_code=201)
async def create_session(
    request: Request, response: Response, session: Session, body: SessionCreate
) -> TokenRead:
    """Sign in a person (`username`, `password`, `otp`) or enrol a device (`enrolment_code`).

    A device sends its `device_name` along, and then acts as its member. A person whose identity at
    a configured OpenID Connect issuer is linked may send an `id_token` of that issuer (and `otp`)
    instead: it holds for ten minutes, once; 503 when the issuer's keys cannot be read.
    401 `invalid_credentials` does not say whether the name or the password was wrong; 401
    `otp_required` comes after a right password. An enrolment code works once, for 15 minutes.
    Whoever guesses is slowed down: 429 `rate_limited` with `Retry-After`.
    """
    response.headers.update(NO_STORE)
    address = request.client.host if request.client else ""
    return await signing_in.sign_in(session, tokens_of(request), issuers_of(request), body, address)


@router.post("/sessions:refresh", operation_id="refresh_session")
async def refresh_session(
    request: Request, response: Response, session: Session, body: SessionRefresh
) -> TokenRead:
    """Give new tokens for the refresh token; each is used once.

    The last one may be repeated until its successor is used: an answer may have been lost. Any
    older one was copied, and ends the session: 401 `unauthenticated`, also after 90 idle days.
    """
    response.headers.update(NO_STORE)
    return await sessions.refresh(session, tokens_of(request), body.refresh_token)


@router.delete("/sessions/current", operation_id="delete_current_session", status_code=204)
async def delete_current_session(session: Session, caller: Oneself) -> None:
    """Sign out: this session's tokens end at once. 404 for a system, which has no session."""
    await sessions.sign_out(session, caller)


@router.delete("/sessions", operation_id="delete_sessions", status_code=204)
async def delete_sessions(session: Session, caller: Oneself) -> None:
    """Sign out everywhere: the tokens of all the caller's sessions end at once."""
    await sessions.sign_out_everywhere(session, caller)
