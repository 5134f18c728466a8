"""Sessions of people: signing in, refreshing."""

from typing import Annotated

from pydantic import AfterValidator
from pydantic import Field as Bound
from sqlmodel import SQLModel

from api.models.identities import IdToken
from api.models.totp import Otp
from api.models.types import Input, Name, clean

GivenSecret = Annotated[str, Bound(min_length=1, max_length=256), AfterValidator(clean)]


class SessionCreate(Input):
    """A person's name and password or ID token (and `otp`), or a device's code and name."""

    username: GivenSecret | None = None
    password: GivenSecret | None = None
    otp: Otp | None = None
    enrolment_code: GivenSecret | None = None
    device_name: Name | None = None
    id_token: IdToken | None = None


class SessionRefresh(Input):
    """The refresh token that the last answer gave."""

    refresh_token: GivenSecret


class TokenRead(SQLModel):
    """An access token (RFC 9068), sent as `Authorization: Bearer …`, and what renews it."""

    access_token: str
    refresh_token: str
    token_type: str = "Bearer"  # noqa: S105 - the scheme's name
    expires_in: int
