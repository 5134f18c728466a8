"""Entries of the audit: who did or saw what, when, by which right."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import AwareDatetime
from pydantic import Field as Bound
from sqlalchemy import ARRAY, BigInteger, Column, Uuid
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from api.models.pages import Page
from api.models.types import Moment, PageQuery, ShortCode


class AuditEntry(SQLModel, table=True):
    """An entry, placed where its row stood; the nation where the row has no place.

    What is not known is null, as is the actor of a command. `xid` is the transaction that wrote it.
    """

    __tablename__ = "audit_entry"

    id: UUID = Field(primary_key=True)
    at: AwareDatetime = Field(primary_key=True)
    xid: int = Field(sa_type=BigInteger)
    actor_id: UUID | None
    grant_id: UUID | None
    client_id: UUID | None
    session_id: UUID | None
    device_id: UUID | None
    request_id: str | None
    action: str
    resource: str
    row_id: UUID | None
    unit_id: UUID | None
    unit_key: int | None
    commune_key: int | None
    province_key: int | None
    before: dict[str, Any] | None = Field(sa_type=JSONB)
    after: dict[str, Any] | None = Field(sa_type=JSONB)
    ids: list[UUID] | None = Field(sa_column=Column(ARRAY(Uuid)))
    query: dict[str, Any] | None = Field(sa_type=JSONB)


class AuditSeal(SQLModel, table=True):
    """What closes the entries of some finished transactions, chained to the seal before."""

    __tablename__ = "audit_seal"

    number: int = Field(sa_type=BigInteger, primary_key=True)
    from_xid: int = Field(sa_type=BigInteger)
    to_xid: int = Field(sa_type=BigInteger)
    sealed_at: AwareDatetime
    entries: int = Field(sa_type=BigInteger)
    root: bytes
    previous_root: bytes


class AuditEntryRead(SQLModel):
    """An entry. Personal values are `***`: that something was set shows, not what."""

    id: UUID
    at: datetime
    actor_id: UUID | None
    grant_id: UUID | None
    client_id: UUID | None
    session_id: UUID | None
    device_id: UUID | None
    request_id: str | None
    action: str = Field(
        description="create, update, delete, undelete, read, sign_in, sign_out, generate;"
        " others may come"
    )
    resource: str = Field(description="Plural name, e.g. households; others may come")
    row_id: UUID | None
    unit_id: UUID | None
    before: dict[str, Any] | None = Field(description="Of an update only what changed")
    after: dict[str, Any] | None = Field(description="Of an update only what changed")
    ids: list[UUID] | None = Field(description="Of a read: the rows shown with personal fields")
    query: dict[str, Any] | None = Field(description="Of a read: the filters of a list")


class AuditEntryPage(Page[AuditEntryRead]):
    """A page of entries, the newest first."""


Ids = Annotated[list[UUID], Bound(max_length=100)]
Names = Annotated[list[ShortCode], Bound(max_length=20)]


class AuditEntryQuery(PageQuery):
    """Filters of the list of entries."""

    unit_id: Ids = Field(default_factory=list, description="The whole subtree as it stands today")
    actor_id: Ids = Field(default_factory=list)
    row_id: Ids = Field(default_factory=list)
    resource: Names = Field(default_factory=list)
    action: Names = Field(default_factory=list)
    at_gte: Moment | None = None
    at_lt: Moment | None = None
