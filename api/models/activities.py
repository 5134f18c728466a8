"""Activities: trainings, contests, launches and the like, that a unit hosts."""

from datetime import date
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator
from pydantic import Field as Bound
from pydantic_core import PydanticCustomError
from sqlalchemy import Column, Computed, Uuid
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlmodel import Field, SQLModel

from api.models.base import Placed, Record
from api.models.external_ids import ExternalIdsPatch
from api.models.pages import Page
from api.models.types import (
    Creation,
    Day,
    ExternalIds,
    Input,
    Name,
    Output,
    RecordQuery,
    text_enum,
)


class ActivityKind(StrEnum):
    """What an activity is; members are trained by `training` and `course`. Open: more may come."""

    training = "training"
    outreach = "outreach"
    contest = "contest"
    course = "course"
    meeting = "meeting"
    launch = "launch"
    festival = "festival"
    club = "club"


class Organiser(StrEnum):
    """Who holds an activity. Open: others may come."""

    government = "government"
    youth_union = "youth_union"
    team = "team"


class Partner(StrEnum):
    """Who helps to hold it. Open: others may come."""

    police = "police"
    health = "health"
    telecom = "telecom"
    bank = "bank"
    other = "other"


def _distinct[T](values: list[T]) -> list[T]:
    if len(set(values)) < len(values):
        raise PydanticCustomError("duplicate", "given twice")
    return values


Partners = Annotated[list[Partner], Bound(max_length=5), AfterValidator(_distinct)]
AttendeeIds = Annotated[list[UUID], Bound(max_length=500), AfterValidator(_distinct)]
Participants = Annotated[int, Bound(ge=0, le=1_000_000, strict=True)]


class ActivityFields(SQLModel):
    """What an activity is."""

    kind: ActivityKind = Field(sa_type=text_enum(ActivityKind))
    title: Name
    organiser: Organiser = Field(sa_type=text_enum(Organiser))
    partners: Partners = Field(default_factory=list, sa_type=ARRAY(text_enum(Partner)))
    team_id: UUID | None = Field(default=None, foreign_key="team.id")
    held_on: Day
    participants: Participants | None = Field(
        default=None, description="People who came; default: the attendees listed"
    )
    attendee_ids: AttendeeIds = Field(
        default_factory=list, sa_type=ARRAY(Uuid), description="Members of teams who came"
    )
    campaign_id: UUID | None = Field(default=None, foreign_key="campaign.id")
    external_ids: ExternalIds = Field(default_factory=dict, sa_type=JSONB)


class Activity(Record, Placed, ActivityFields, table=True):
    """An activity, placed where its host stood on its day: `unit_id` is the host."""

    host_unit_id: UUID | None = Field(
        default=None, sa_column=Column(Uuid, Computed("unit_id"), nullable=False)
    )


class TrainingAttended(SQLModel, table=True):
    """A member at a training: worked out by the database from the lists of attendees."""

    __tablename__ = "training_attended"

    activity_id: UUID = Field(primary_key=True, foreign_key="activity.id")
    member_id: UUID = Field(primary_key=True)
    held_on: date


class ActivityPut(ActivityFields, Input):
    """An activity under an external id: recorded, or changed in the fields that are given."""

    host_unit_id: UUID


class ActivityCreate(ActivityPut, Creation):
    """An activity to record, of a host that stood on its day."""


class ActivityUpdate(Input):
    """What may change."""

    kind: ActivityKind | None = None
    title: Name | None = None
    host_unit_id: UUID | None = None
    organiser: Organiser | None = None
    partners: Partners | None = None
    team_id: UUID | None = None
    held_on: Day | None = None
    participants: Participants | None = None
    attendee_ids: AttendeeIds | None = None
    campaign_id: UUID | None = None
    external_ids: ExternalIdsPatch | None = None


class ActivityRead(Output):
    """An activity; `attendee_ids` is null and named in `masked` for whoever reads no members."""

    kind: ActivityKind
    title: str
    host_unit_id: UUID
    organiser: Organiser
    partners: list[Partner]
    team_id: UUID | None
    held_on: date
    participants: int | None
    attendee_ids: list[UUID] | None
    campaign_id: UUID | None
    external_ids: dict[str, str]
    masked: list[str]


class ActivityPage(Page[ActivityRead]):
    """A page of activities."""


class ActivitySort(StrEnum):
    """Orders of the list of activities."""

    newest = "-held_on"
    oldest = "held_on"


class ActivityQuery(RecordQuery):
    """Filters of the list of activities."""

    team_id: list[UUID] = Field(default_factory=list, max_length=100)
    kind: list[ActivityKind] = Field(default_factory=list, max_length=20)
    campaign_id: list[UUID] = Field(default_factory=list, max_length=100)
    held_on_gte: Day | None = None
    held_on_lt: Day | None = None
    sort: ActivitySort = ActivitySort.newest
