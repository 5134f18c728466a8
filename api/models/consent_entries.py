"""The ledger of consent: every legal basis that a household's data was ever kept on."""

from datetime import datetime
from uuid import UUID

from pydantic import AwareDatetime
from sqlmodel import Field, SQLModel

from api.models.households import LegalBasis
from api.models.pages import Page
from api.models.types import PageQuery, text_enum


class ConsentEntry(SQLModel, table=True):
    """One entry, written by the database with the change of the household that it tells of."""

    __tablename__ = "consent_entry"

    id: UUID = Field(primary_key=True)
    household_id: UUID = Field(foreign_key="household.id")
    basis: LegalBasis | None = Field(default=None, sa_type=text_enum(LegalBasis))
    notice_version: str | None = None
    method: str | None = None
    given_at: AwareDatetime | None = None
    withdrawn_at: AwareDatetime | None = None
    recorded_at: AwareDatetime
    recorded_by: UUID | None = None


class ConsentEntryRead(SQLModel):
    """An entry; it never changes."""

    id: UUID
    household_id: UUID
    basis: LegalBasis | None = Field(description="Null where the recorded basis was removed")
    notice_version: str | None
    method: str | None
    given_at: datetime | None
    withdrawn_at: datetime | None
    recorded_at: datetime
    recorded_by: UUID | None = Field(description="The principal whose change it was")
    masked: list[str]


class ConsentEntryPage(Page[ConsentEntryRead]):
    """A page of entries, the oldest first."""


class ConsentEntryQuery(PageQuery):
    """The parameters of the list."""
