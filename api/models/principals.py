"""Principals: people who sign in (users) and systems (clients), and the keys that sign tokens."""

from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, StringConstraints
from pydantic import Field as Bound
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from api.models.types import Creation, Flag, Input, Level, Name, Output, clean, text_enum


class PrincipalKind(StrEnum):
    """A person or a system."""

    user = "user"
    client = "client"


class Principal(SQLModel, table=True):
    """Whoever can hold grants. `login` is a user's name or a client's `client_id`."""

    __tablename__ = "principal"

    id: UUID = Field(primary_key=True)
    kind: PrincipalKind = Field(sa_type=text_enum(PrincipalKind))
    login: str = Field(unique=True)
    secret_hash: str
    name: str
    member_id: UUID | None = None
    must_change_password: bool = False
    disabled_at: AwareDatetime | None = None
    version: int = 1
    created_at: AwareDatetime
    updated_at: AwareDatetime
    created_by: UUID | None = Field(default=None, foreign_key="principal.id")
    content_hash: bytes | None = None


class SigningKey(SQLModel, table=True):
    """A key pair for access tokens; the private half is encrypted."""

    __tablename__ = "signing_key"

    kid: str = Field(primary_key=True)
    created_at: AwareDatetime
    retired_at: AwareDatetime | None = None
    public_jwk: dict[str, str] = Field(sa_type=JSONB)
    private_pem: bytes


Username = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True,
        to_lower=True,
        min_length=3,
        max_length=64,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._@\-]*$",
    ),
]
Password = Annotated[str, Bound(min_length=8, max_length=256), AfterValidator(clean)]
GivenSecret = Annotated[str, Bound(min_length=1, max_length=256), AfterValidator(clean)]


class UserCreate(Creation):
    """A person. Grants are given apart, by `/role-grants`."""

    username: Username
    password: Password
    full_name: Name
    member_id: UUID | None = None
    must_change_password: Flag = False


class UserRead(Output):
    """A person, without secrets."""

    username: str
    full_name: str
    member_id: UUID | None
    must_change_password: bool


class ClientCreate(Creation):
    """A system that signs in by client credentials (RFC 6749, section 4.4)."""

    name: Name


class ClientRead(Output):
    """A system, without its secret."""

    client_id: str
    name: str


class ClientSecret(ClientRead):
    """A system with its secret, which is shown this once."""

    client_secret: str


class SessionCreate(Input):
    """A person's sign-in."""

    username: GivenSecret
    password: GivenSecret


class TokenRead(SQLModel):
    """An access token (RFC 9068); send it as `Authorization: Bearer …`."""

    access_token: str
    token_type: str = "Bearer"  # noqa: S105 - the scheme's name
    expires_in: int


class GrantOfMe(SQLModel):
    """A grant of the caller that holds today."""

    id: UUID
    role: str
    unit_id: UUID
    unit_name: str
    unit_level: Level
    team_id: UUID | None


class MeRead(SQLModel):
    """The principal behind the token."""

    id: UUID
    kind: PrincipalKind
    name: str
    member_id: UUID | None
    grants: list[GrantOfMe]
