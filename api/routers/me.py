"""/v1/me: the principal behind the token, its password and its second factor."""

from fastapi import APIRouter, Response

from api.auth.dependencies import Oneself, Session, TotpOwner
from api.models.principals import MeRead, PasswordChange
from api.models.totp import OtpGiven, RecoveryCodes, TotpStart
from api.routers.answers import NO_STORE
from api.services import me, totp

router = APIRouter(prefix="/me", tags=["identity"])


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
