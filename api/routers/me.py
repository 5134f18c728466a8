"""/v1/me: the principal behind the token: its password, second factor and identities elsewhere."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from api.auth.dependencies import Oneself, Session, SignedIn, Somebody, TotpOwner, issuers_of
from api.models.identities import IdentityPage, IdentityQuery, IdentityRead, IdTokenGiven
from api.models.principals import MeRead, PasswordChange
from api.models.totp import OtpGiven, RecoveryCodes, TotpStart
from api.routers.answers import NO_STORE, paged
from api.routers.routes import Strict
from api.services import identities, me, totp

router = APIRouter(prefix="/v1/me", tags=["identity"], route_class=Strict)


@router.get("", operation_id="get_me")
async def get_me(session: Session, caller: Oneself) -> MeRead:
    """Return who is signed in, with the grants that hold today."""
    return await me.who_am_i(session, caller)


@router.post("/password", operation_id="change_password", status_code=204)
async def change_password(session: Session, caller: Oneself, body: PasswordChange) -> None:
    """Change one's password; all other sessions of the person end.

    422 `password_common` for one that is guessed early: breached, a name, a repetition.
    """
    await me.change_password(session, caller, body)


@router.post("/totp", operation_id="start_totp", status_code=201)
async def start_totp(response: Response, session: Session, caller: TotpOwner) -> TotpStart:
    """Begin to enrol an authenticator (RFC 6238); `:confirm` switches it on. 409 when it is on."""
    response.headers.update(NO_STORE)
    return await totp.start(session, caller)


@router.post("/totp:confirm", operation_id="confirm_totp")
async def confirm_totp(
    response: Response, session: Session, caller: TotpOwner, body: OtpGiven
) -> RecoveryCodes:
    """Switch TOTP on by a first number; the recovery codes are shown this once.

    From now on `POST /v1/sessions` asks for `otp`. All other sessions of the person end.
    """
    response.headers.update(NO_STORE)
    return await totp.confirm(session, caller, body.otp)


@router.post("/totp:disable", operation_id="disable_totp", status_code=204)
async def disable_totp(session: Session, caller: TotpOwner, body: OtpGiven) -> None:
    """Switch TOTP off, by a number or a recovery code; its recovery codes end with it."""
    await totp.disable(session, caller, body.otp)


@router.get("/identities", operation_id="list_my_identities")
async def list_my_identities(
    session: Session,
    caller: SignedIn,
    query: Annotated[IdentityQuery, Query()],
    request: Request,
    response: Response,
) -> IdentityPage:
    """List through which other issuers one may sign in."""
    return paged(request, response, await identities.list_own(session, caller, query))


@router.post("/identities", operation_id="create_my_identity", status_code=201)
async def create_my_identity(
    session: Session, caller: Somebody, body: IdTokenGiven, request: Request, response: Response
) -> IdentityRead:
    """Link one's identity at a configured OpenID Connect issuer, by a fresh ID token.

    200 when it is linked already; 422 `id_token_invalid` for a token that does not hold or was
    used; 409 when the identity is somebody else's; 503 when the issuer's keys cannot be read.
    """
    identity, is_new = await identities.link(session, caller, issuers_of(request), body.id_token)
    response.status_code = 201 if is_new else 200
    return identity


@router.delete("/identities/{identity_id}", operation_id="delete_my_identity", status_code=204)
async def delete_my_identity(session: Session, caller: SignedIn, identity_id: UUID) -> None:
    """Remove one's identity elsewhere; the sessions that began with it end."""
    await identities.unlink(session, caller, identity_id)
