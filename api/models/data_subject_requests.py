"""Requests of data subjects (Law 91/2025/QH15): access, erasure, withdrawal, restriction."""

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic import AwareDatetime
from sqlalchemy import Column, ForeignKey, LargeBinary
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import Field, SQLModel

from api.models.base import Placed, Record
from api.models.pages import Page
from api.models.types import (
    Creation,
    Identifier,
    Input,
    Moment,
    Output,
    PageQuery,
    Paragraph,
    text_enum,
)


class RequestKind(StrEnum):
    """What the person asks for. Open: others may come."""

    access = "access"
    erasure = "erasure"
    withdrawal = "withdrawal"
    restriction = "restriction"


class RequestStatus(StrEnum):
    """Whether it was answered. Open: others may come."""

    open = "open"
    fulfilled = "fulfilled"


class DataSubjectRequest(Record, Placed, table=True):
    """A request, placed at the office of the officer who opened it; it names a person by ids."""

    __tablename__ = "data_subject_request"

    kind: RequestKind = Field(sa_type=text_enum(RequestKind))
    member_id: UUID | None = Field(
        default=None,
        sa_column_args=[ForeignKey("member.id", deferrable=True, initially="DEFERRED")],
    )
    household_id: UUID | None = Field(
        default=None,
        sa_column_args=[ForeignKey("household.id", deferrable=True, initially="DEFERRED")],
    )
    identifier_hashes: list[bytes] = Field(sa_column=Column(ARRAY(LargeBinary), nullable=False))
    """Keyed hashes of a beneficiary; once the request is fulfilled, random."""
    note: str | None = None
    due_at: AwareDatetime
    fulfilled_at: AwareDatetime | None = None
    fulfilled_by: UUID | None = None
    outcome: str | None = None


class Subject(Input):
    """The person who asks: a member, a household or a beneficiary; exactly one of the three."""

    member_id: UUID | None = None
    household_id: UUID | None = None
    identifier: Identifier | None = Field(
        default=None, description="Write-only: a beneficiary's, kept as a keyed hash"
    )


class DataSubjectRequestCreate(Creation):
    """A request that was received."""

    person: Subject
    kind: RequestKind
    note: Paragraph | None = Field(default=None, description="Removed by an erasure")


class DataSubjectRequestFulfil(Input):
    """How the request was answered."""

    reason: Paragraph | None = Field(default=None, description="Kept: it must name no person")


class SubjectRead(SQLModel):
    """Whom a request names, by ids only; all null for a beneficiary."""

    member_id: UUID | None
    household_id: UUID | None


class DataSubjectRequestRead(Output):
    """A request; it never shows what is known of the person (see its `export`)."""

    person: SubjectRead
    kind: RequestKind
    status: RequestStatus
    note: str | None
    due_at: datetime
    fulfilled_at: datetime | None
    outcome: str | None


class DataSubjectRequestPage(Page[DataSubjectRequestRead]):
    """A page of requests, the most urgent first."""


class DataSubjectRequestQuery(PageQuery):
    """Filters of the list of requests."""

    status: list[RequestStatus] = Field(default_factory=list, max_length=2)
    kind: list[RequestKind] = Field(default_factory=list, max_length=4)
    due_at_lt: Moment | None = None


class SubjectExport(SQLModel):
    """Everything that is held on the person whom an open request names, each row with its id."""

    request_id: UUID
    members: list[dict[str, Any]] = Field(description="As in `/members`, in clear")
    memberships: list[dict[str, Any]]
    households: list[dict[str, Any]] = Field(description="As in `/households`, in clear")
    consent_entries: list[dict[str, Any]]
    support_events: list[dict[str, Any]]
    support_event_versions: list[dict[str, Any]] = Field(
        description="What events that named the person were before they were corrected"
    )
    activities: list[dict[str, Any]] = Field(description="That a member came to")
    commendations: list[dict[str, Any]] = Field(description="Of a member, in clear")
    devices: list[dict[str, Any]]
    accounts: list[dict[str, Any]] = Field(description="The person's own sign-in, if any")
    identities: list[dict[str, Any]] = Field(
        description="Other issuers through which the person signs in"
    )
