"""The ways to begin a session: a person's password, or the code that enrols a device."""

from sqlalchemy.ext.asyncio import AsyncSession

from api.auth.tokens import Tokens
from api.errors import FieldError, ValidationFailed
from api.models.sessions import SessionCreate, TokenRead
from api.services import devices, sessions

_WAYS = (("username", "password", "otp"), ("enrolment_code", "device_name"))
_OPTIONAL = {"otp"}


def _check_way(given: SessionCreate) -> None:
    """Refuse a mixture of the ways, and half of one, at each field."""
    sent = {name for way in _WAYS for name in way if getattr(given, name) is not None}
    by_code = not sent.isdisjoint(_WAYS[1]) and sent.isdisjoint(_WAYS[0])
    way, other = (_WAYS[1], _WAYS[0]) if by_code else _WAYS
    faults = [
        FieldError(f"/{name}", "not_together", {"other": way[0]}) for name in other if name in sent
    ]
    faults += [
        FieldError(f"/{name}", "missing")
        for name in way
        if name not in sent and name not in _OPTIONAL
    ]
    if faults:
        raise ValidationFailed(*faults)


async def sign_in(
    session: AsyncSession, tokens: Tokens, given: SessionCreate, address: str
) -> TokenRead:
    """Sign a person in, or enrol a device; 422 for anything else. `address` is the client's."""
    _check_way(given)
    if given.enrolment_code is not None and given.device_name is not None:
        code, name = given.enrolment_code, given.device_name
        return await devices.enrol(session, tokens, code, name, address)
    username, password = given.username or "", given.password or ""
    return await sessions.sign_in(session, tokens, username, password, given.otp, address)
