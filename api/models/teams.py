"""Community digital technology teams."""

from datetime import date
from enum import StrEnum
from uuid import UUID

from sqlalchemy import Column, Computed, Text
from sqlalchemy.dialects.postgresql import JSONB
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
    WebUrl,
    text_enum,
)


class TeamKind(StrEnum):
    """What a team is. Open: others may come."""

    community_team = "community_team"
    core_squad = "core_squad"
    expert_group = "expert_group"
    volunteer_squad = "volunteer_squad"


class EstablishingBody(StrEnum):
    """Who decided to found the team. Open: others may come."""

    commune = "commune"
    district = "district"
    province = "province"
    youth_union = "youth_union"


class TeamFields(SQLModel):
    """What a team is."""

    name: Name
    kind: TeamKind = Field(sa_type=text_enum(TeamKind))
    founded_on: Day
    decision_number: Name | None = None
    establishing_body: EstablishingBody | None = Field(
        default=None, sa_type=text_enum(EstablishingBody)
    )
    zalo_group_url: WebUrl | None = None
    dissolved_on: Day | None = Field(default=None, description="The last day, included")
    external_ids: ExternalIds = Field(default_factory=dict, sa_type=JSONB)


class Team(Record, Placed, TeamFields, table=True):
    """A team, placed where its village or commune stood on its founding day."""

    search: str | None = Field(
        default=None, sa_column=Column(Text, Computed("search_text(name)"), nullable=False)
    )


class TeamPut(TeamFields, Input):
    """A team under an external id: founded, or changed in the fields that are given."""

    unit_id: UUID


class TeamCreate(TeamPut, Creation):
    """A team to found in a village or a commune that stood on the day."""


class TeamUpdate(Input):
    """What may change; a leader changes the Zalo link only."""

    name: Name | None = None
    unit_id: UUID | None = None
    kind: TeamKind | None = None
    founded_on: Day | None = None
    decision_number: Name | None = None
    establishing_body: EstablishingBody | None = None
    zalo_group_url: WebUrl | None = None
    dissolved_on: Day | None = None
    external_ids: ExternalIdsPatch | None = None


class TeamRead(Output):
    """A team as it is now."""

    name: str
    unit_id: UUID
    kind: TeamKind
    founded_on: date
    decision_number: str | None
    establishing_body: EstablishingBody | None
    zalo_group_url: str | None
    dissolved_on: date | None
    external_ids: dict[str, str]
    member_count: int = Field(description="People with a membership today")
    leader_id: UUID | None


class TeamPage(Page[TeamRead]):
    """A page of teams."""


class TeamSort(StrEnum):
    """Orders of the list of teams; the default is the order of their ids."""

    id = "id"
    name = "name"
    name_desc = "-name"
    founded_on = "founded_on"
    founded_on_desc = "-founded_on"


class TeamQuery(RecordQuery):
    """Filters of the list of teams."""

    kind: list[TeamKind] = Field(default_factory=list, max_length=10)
    active_on: Day | None = None
    q: Name | None = Field(default=None, description="Part of the name, accents aside")
    sort: TeamSort = TeamSort.id
