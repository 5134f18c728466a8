"""Campaigns: efforts of a unit between two days, with a baseline and a progress of their own."""

from datetime import date
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import Field as Bound
from sqlalchemy import Text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import Field, SQLModel

from api.models.base import Placed, Record
from api.models.observations import ObservationStatus
from api.models.pages import Page
from api.models.service_types import ServiceCode
from api.models.types import Creation, Day, Input, Name, Number, Output, PageQuery, Query

ServiceCodes = Annotated[list[ServiceCode], Bound(max_length=50)]


class CampaignFields(SQLModel):
    """What a campaign is."""

    name: Name
    starts_on: Day
    ends_on: Day = Field(description="The last day, included")
    service_types: ServiceCodes = Field(
        default_factory=list,
        sa_type=ARRAY(Text),
        description="Codes that it is about, their children included; none: every service",
    )
    baseline_on: Day | None = Field(
        default=None,
        description="The last day of the baseline, before `starts_on`; default: the day before",
    )


class Campaign(Record, Placed, CampaignFields, table=True):
    """A campaign, placed where its unit stood on its first day."""


class CampaignCreate(CampaignFields, Creation):
    """A campaign of a unit that stood on its first day."""

    unit_id: UUID


class CampaignUpdate(Input):
    """What may change."""

    name: Name | None = None
    unit_id: UUID | None = None
    starts_on: Day | None = None
    ends_on: Day | None = None
    service_types: ServiceCodes | None = None
    baseline_on: Day | None = None


class CampaignRead(Output):
    """A campaign as it is now."""

    name: str
    unit_id: UUID
    starts_on: date
    ends_on: date
    service_types: list[str]
    baseline_on: date | None


class CampaignPage(Page[CampaignRead]):
    """A page of campaigns."""


class CampaignSort(StrEnum):
    """Orders of the list of campaigns."""

    newest = "-starts_on"
    oldest = "starts_on"


class CampaignQuery(PageQuery):
    """Filters of the list of campaigns."""

    unit_id: list[UUID] = Field(
        default_factory=list,
        max_length=100,
        description="The whole subtree as it stands today, of a retired unit as on its last day",
    )
    running_on: Day | None = Field(default=None, description="Begun by, and not ended before")
    sort: CampaignSort = CampaignSort.newest


class CampaignProgressQuery(Query):
    """Where the progress is counted."""

    unit_id: UUID | None = Field(
        default=None, description="A unit whose totals the caller reads; default: the campaign's"
    )


class CampaignFigure(SQLModel):
    """What a campaign came to, of one service or of one unit of count."""

    service_type: str | None = Field(description="null: all services with this unit of count")
    unit_of_count: str | None
    value: Number | None
    baseline: Number | None
    status: ObservationStatus


class CampaignProgress(SQLModel):
    """Quantities completed or guided in the campaign, beside as many days of the baseline.

    The baseline counts every event of the services there, whatever campaign it belongs to.
    """

    campaign_id: UUID
    unit_id: UUID
    complete_through: date = Field(description="The last day that the figures take in")
    period: str
    baseline_period: str
    items: list[CampaignFigure]
