"""Households that teams visit."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from pydantic import AwareDatetime
from pydantic import Field as Bound
from sqlalchemy import Column, Computed, Text
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from api.models.base import Placed, Record
from api.models.external_ids import ExternalIdsPatch
from api.models.pages import Page
from api.models.types import (
    Creation,
    ExternalIds,
    Flag,
    Input,
    Line,
    Moment,
    Name,
    Output,
    Phone,
    RecordQuery,
    ShortCode,
)


class LegalBasis(StrEnum):
    """Why the household's data may be kept (Law 91/2025/QH15). Open: others may come."""

    consent = "consent"
    state_management = "state_management"


class Consent(Input):
    """The recorded legal basis: which notice, how and when, withdrawn or not."""

    basis: LegalBasis
    notice_version: Name | None = None
    method: Name | None = None
    given_at: Moment | None = None
    withdrawn_at: Moment | None = None


class ConsentUpdate(Input):
    """What changed in the legal basis, e.g. its withdrawal; the rest of it stays."""

    basis: LegalBasis | None = None
    notice_version: Name | None = None
    method: Name | None = None
    given_at: Moment | None = None
    withdrawn_at: Moment | None = None


PeopleCount = Annotated[int, Bound(ge=1, le=100, strict=True)]


class HouseholdFields(SQLModel):
    """What a household is. `head_name`, `address` and `phone` are personal."""

    head_name: Name
    address: Line | None = None
    phone: Phone | None = Field(default=None, description="E.164, e.g. +84912345678")
    people_count: PeopleCount | None = None
    is_business: Flag = False
    business_name: Name | None = None
    external_ids: ExternalIds = Field(default_factory=dict, sa_type=JSONB)


class Household(Record, Placed, HouseholdFields, table=True):
    """A household, placed where its village stood when it was registered."""

    consent: dict[str, Any] | None = Field(default=None, sa_type=JSONB)
    restricted_at: AwareDatetime | None = None
    redacted_at: AwareDatetime | None = None
    search: str | None = Field(
        default=None, sa_column=Column(Text, Computed("search_text(head_name)"), nullable=False)
    )


class HouseholdPut(HouseholdFields, Input):
    """A household under an external id: registered, or changed in the fields that are given."""

    unit_id: UUID
    consent: Consent | None = None


class HouseholdCreate(HouseholdPut, Creation):
    """A household to register in a village that stands today."""


class HouseholdUpdate(Input):
    """What may change."""

    unit_id: UUID | None = None
    head_name: Name | None = None
    address: Line | None = None
    phone: Phone | None = None
    people_count: PeopleCount | None = None
    is_business: Flag | None = None
    business_name: Name | None = None
    consent: ConsentUpdate | None = None
    external_ids: ExternalIdsPatch | None = None


class ConsentRead(SQLModel):
    """The recorded legal basis."""

    basis: LegalBasis
    notice_version: str | None
    method: str | None
    given_at: datetime | None
    withdrawn_at: datetime | None


class HouseholdRead(Output):
    """A household; personal fields that the caller may not see are null and named in `masked`."""

    unit_id: UUID
    head_name: str | None
    address: str | None
    phone: str | None
    people_count: int | None
    is_business: bool
    business_name: str | None
    consent: ConsentRead | None
    external_ids: dict[str, str]
    services_reached: list[str] = Field(description="Codes of completed or guided services")
    restricted_at: datetime | None = Field(
        description="Since when nobody reads the personal fields or changes anything"
    )
    redacted_at: datetime | None = Field(description="When the household was erased: it is final")
    masked: list[str]


class HouseholdPage(Page[HouseholdRead]):
    """A page of households."""


class HouseholdQuery(RecordQuery):
    """Filters of the list of households."""

    reached_by: list[ShortCode] = Field(default_factory=list, max_length=50)
    not_reached_by: list[ShortCode] = Field(default_factory=list, max_length=50)
    q: Name | None = Field(
        default=None, description="Part of the head's name, for whoever may see it"
    )
