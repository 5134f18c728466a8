"""Principals: people who sign in (users) and systems (clients), and the keys that sign tokens."""

from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, StringConstraints
from pydantic import Field as Bound
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from api.models.identities import IdentityGiven
from api.models.sessions import GivenSecret
from api.models.types import Creation, Flag, Input, Level, Name, Output, clean, text_enum


class PrincipalKind(StrEnum):
    """A person, a system, or a member's device."""

    user = "user"
    client = "client"
    device = "device"


class Principal(SQLModel, table=True):
    """Whoever can hold grants. `login` is a user's name, a client's `client_id`."""

    __tablename__ = "principal"

    id: UUID = Field(primary_key=True)
    kind: PrincipalKind = Field(sa_type=text_enum(PrincipalKind))
    login: str = Field(unique=True)
    secret_hash: str | None = None
    """A device has none: its session is all it ever gets."""
    name: str
    member_id: UUID | None = None
    must_change_password: bool = False
    public_jwks: dict[str, Any] | None = Field(default=None, sa_type=JSONB(none_as_null=True))
    """A client's public keys (RFC 7517): it signs in by `private_key_jwt` and has no secret."""
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
"""What `auth/password_policy.py` then judges."""


class UserCreate(Creation):
    """A person. Grants are given apart, by `/role-grants`."""

    username: Username
    password: Password
    full_name: Name
    member_id: UUID | None = None
    must_change_password: Flag = False
    identities: list[IdentityGiven] = Field(
        default_factory=list,
        max_length=10,
        description="Who the person is at configured OpenID Connect issuers",
    )


class PasswordChange(Input):
    """A new password, chosen by the person."""

    current_password: GivenSecret
    new_password: Password


class UserRead(Output):
    """A person, without secrets."""

    username: str
    full_name: str
    member_id: UUID | None
    must_change_password: bool


class KeyType(StrEnum):
    """Kinds of public keys."""

    EC = "EC"
    RSA = "RSA"


def _base64url(shortest: int, longest: int) -> StringConstraints:
    return StringConstraints(min_length=shortest, max_length=longest, pattern=r"^[A-Za-z0-9_\-]+$")


Coordinate = Annotated[str, _base64url(43, 43)]
Modulus = Annotated[str, _base64url(342, 1366)]
Exponent = Annotated[str, _base64url(1, 8)]
KeyName = Annotated[str, Bound(min_length=1, max_length=255), AfterValidator(clean)]


class PublicKey(Input):
    """A public key (RFC 7517): EC P-256 for ES256, or RSA of 2048 bits or more for RS256."""

    kty: KeyType
    kid: KeyName | None = None
    use: Annotated[str, StringConstraints(pattern="^sig$")] | None = None
    alg: Annotated[str, StringConstraints(pattern="^(ES256|RS256)$")] | None = None
    crv: Annotated[str, StringConstraints(pattern="^P-256$")] | None = None
    x: Coordinate | None = None
    y: Coordinate | None = None
    n: Modulus | None = None
    e: Exponent | None = None


class PublicKeys(Input):
    """The public keys of a client; several while it replaces one."""

    keys: list[PublicKey] = Field(min_length=1, max_length=10)


class ClientCreate(Creation):
    """A system that signs in by client credentials (RFC 6749, section 4.4).

    With `jwks` it signs assertions (`private_key_jwt`, RFC 7523) and gets no secret.
    """

    name: Name
    jwks: PublicKeys | None = None


class ClientRead(Output):
    """A system, without its secret."""

    client_id: str
    name: str


class ClientSecret(ClientRead):
    """A system with its secret, which is shown this once; none when it has keys."""

    client_secret: str | None


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
    device_id: UUID | None = Field(description="The device, when it is one that acts")
    must_change_password: bool = Field(description="Until it is changed nothing else is allowed")
    totp_enabled: bool
    grants: list[GrantOfMe]
