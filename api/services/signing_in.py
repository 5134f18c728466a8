"""The ways to begin a session: a password, an ID token, or the code that enrols a device."""

from sqlalchemy.ext.asyncio import AsyncSession

from api.auth.issuers import Issuers
from api.auth.tokens import Tokens
from api.errors import FieldError, ValidationFailed
from api.models.sessions import SessionCreate, TokenRead
from api.services import devices, identities, sessions

_WAYS = (
    ("username", "password", "otp"),
    ("id_token", "otp"),
    ("enrolment_code", "device_name"),
)
_OPTIONAL = {"otp"}


def _check_way(given: SessionCreate) -> None:
    """Refuse a mixture of the ways, and half of one, at each field."""
    sent = {name: None for way in _WAYS for name in way if getattr(given, name) is not None}
    way = next((way for way in _WAYS if not sent.keys().isdisjoint({*way} - _OPTIONAL)), _WAYS[0])
    faults = [
        FieldError(f"/{name}", "not_together", {"other": way[0]})
        for name in sent
        if name not in way
    ]
    faults += [
        FieldError(f"/{name}", "missing")
        for name in way
        if name not in sent and name not in _OPTIONAL
    ]
    if faults:
        raise ValidationFailed(*faults)


async def sign_in(
    session: AsyncSession, tokens: Tokens, issuers: Issuers, given: SessionCreate, address: str
) -> TokenRead:
    """Sign a person in, or enrol a device; 422 for anything else. `address` is the client's."""
    _check_way(given)
    if given.id_token is not None:
        return await identities.sign_in(
            session, tokens, issuers, given.id_token, given.otp, address
        )
    if given.enrolment_code is not None and given.device_name is not None:
        code, name = given.enrolment_code, given.device_name
        return await devices.enrol(session, tokens, code, name, address)
    username, password = given.username or "", given.password or ""
    return await sessions.sign_in(session, tokens, username, password, given.otp, address)
