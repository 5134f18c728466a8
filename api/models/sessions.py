"""Sessions of people: signing in, refreshing."""

from typing import Annotated

from pydantic import AfterValidator
from pydantic import Field as Bound
from sqlmodel import SQLModel

from api.models.types import Input, clean

GivenSecret = Annotated[str, Bound(min_length=1, max_length=256), AfterValidator(clean)]


class SessionCreate(Input):
    """A person's sign-in."""

    username: GivenSecret
    password: GivenSecret


class SessionRefresh(Input):
    """The refresh token that the last answer gave."""

    refresh_token: GivenSecret


class TokenRead(SQLModel):
    """An access token (RFC 9068), sent as `Authorization: Bearer …`, and what renews it."""

    access_token: str
    refresh_token: str
    token_type: str = "Bearer"  # noqa: S105 - the scheme's name
    expires_in: int
