"""Commendations, awarded or proposed: of a collective or of one person."""

from datetime import date
from enum import StrEnum
from uuid import UUID

from sqlmodel import Field, SQLModel

from api.models.base import Placed, Record
from api.models.pages import Page
from api.models.types import (
    Creation,
    Day,
    Input,
    Name,
    Number,
    Output,
    PageQuery,
    Paragraph,
    text_enum,
)
from api.models.types import Query as Parameters


class RecipientKind(StrEnum):
    """Who is commended. Open: others may come."""

    collective = "collective"
    individual = "individual"


class CommendationFields(SQLModel):
    """What a commendation is. An individual's `recipient_name` is personal."""

    recipient_kind: RecipientKind = Field(sa_type=text_enum(RecipientKind))
    recipient_name: Name
    team_id: UUID | None = Field(default=None, foreign_key="team.id")
    member_id: UUID | None = Field(default=None, foreign_key="member.id")
    awarded_on: Day | None = Field(default=None, description="null: it is a proposal")
    awarded_by: Name | None = None
    document: Name | None = None
    reason: Paragraph | None = None


class Commendation(Record, Placed, CommendationFields, table=True):
    """A commendation, placed where its unit stood on its day."""


class CommendationCreate(CommendationFields, Creation):
    """A commendation, or the proposal of one, in a unit that stands on its day."""

    unit_id: UUID


class CommendationUpdate(Input):
    """What may change."""

    recipient_kind: RecipientKind | None = None
    recipient_name: Name | None = None
    unit_id: UUID | None = None
    team_id: UUID | None = None
    member_id: UUID | None = None
    awarded_on: Day | None = None
    awarded_by: Name | None = None
    document: Name | None = None
    reason: Paragraph | None = None


class CommendationRead(Output):
    """A commendation; what the caller may not see of a person is null and named in `masked`."""

    recipient_kind: RecipientKind
    recipient_name: str | None
    unit_id: UUID
    team_id: UUID | None
    member_id: UUID | None
    awarded_on: date | None
    awarded_by: str | None
    document: str | None
    reason: str | None
    masked: list[str]


class CommendationPage(Page[CommendationRead]):
    """A page of commendations."""


class CommendationQuery(PageQuery):
    """Filters of the list of commendations."""

    unit_id: list[UUID] = Field(
        default_factory=list,
        max_length=100,
        description="The whole subtree as it stands today, of a retired unit as on its last day",
    )
    team_id: list[UUID] = Field(default_factory=list, max_length=100)
    member_id: list[UUID] = Field(default_factory=list, max_length=100)
    recipient_kind: list[RecipientKind] = Field(default_factory=list, max_length=5)
    awarded_on_gte: Day | None = None
    awarded_on_lt: Day | None = None


class CommendationFactsQuery(Parameters):
    """When the facts happened."""

    period: str | None = Field(
        default=None,
        max_length=40,
        description="As of observations; default: the year of `awarded_on`, of today in a proposal",
    )


class ServiceFigure(SQLModel):
    """How much was completed or guided of one service."""

    service_type: str
    unit_of_count: str
    quantity: int


class CommendationFacts(SQLModel):
    """What the recipient did, as far as the caller reads totals: its member, team, or unit."""

    commendation_id: UUID
    period: str
    complete_through: date
    events: int = Field(description="Counted events of any outcome")
    completed_share: Number | None = Field(description="0-100; null without events")
    verified_share: Number | None
    days_active: int = Field(description="Days with a counted event")
    quantities: list[ServiceFigure]
    activities: int
