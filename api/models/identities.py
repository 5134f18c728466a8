"""Identities of people at other OpenID Connect issuers."""

from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, StringConstraints
from pydantic import Field as Bound
from sqlmodel import Field, SQLModel

from api.models.pages import Page
from api.models.types import Input, PageQuery, clean

IdToken = Annotated[
    str,
    Bound(min_length=1, max_length=8192, description="A fresh ID token, made for this service"),
    AfterValidator(clean),
]
IssuerName = Annotated[str, Bound(min_length=1, max_length=500), AfterValidator(clean)]
Subject = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[\x20-\x7e]+$")]


class ExternalIdentity(SQLModel, table=True):
    """Who somebody is at an issuer: a citizen's number perhaps, so only its keyed hash is kept."""

    __tablename__ = "external_identity"

    id: UUID = Field(primary_key=True)
    principal_id: UUID = Field(foreign_key="principal.id")
    issuer: str
    subject_hash: bytes
    """Of issuer and subject: the same subject elsewhere is somebody else."""
    created_at: AwareDatetime
    created_by: UUID | None = None


class IdentityGiven(Input):
    """Who a person is at a configured issuer."""

    issuer: IssuerName
    subject: Subject


class IdTokenGiven(Input):
    """An ID token that tells who the caller is elsewhere."""

    id_token: IdToken


class IdentityRead(SQLModel):
    """A link of a person to an issuer; who they are there is not shown."""

    id: UUID
    issuer: str
    created_at: AwareDatetime


class IdentityPage(Page[IdentityRead]):
    """A page of identities."""


class IdentityQuery(PageQuery):
    """The list of one's own identities has no filters."""
