"""Targets: what is to be reached, where, by when, and how far it has come."""

from datetime import date
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import Field as Bound
from sqlalchemy import Numeric, Text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlmodel import Field, SQLModel

from api.models.activities import ActivityKind
from api.models.base import Placed, Record
from api.models.indicators import IndicatorCode
from api.models.pages import Page
from api.models.service_types import ServiceCode
from api.models.support_events import Channel
from api.models.teams import TeamKind
from api.models.types import (
    Creation,
    Figure,
    Input,
    Line,
    Number,
    Output,
    PageQuery,
    PeriodText,
    text_enum,
)

Decimals = Numeric(18, 4, asdecimal=False)
ServiceCodes = Annotated[list[ServiceCode], Bound(max_length=50)]
Minimum = Annotated[int, Bound(ge=1, le=10_000, strict=True)]


class TargetOwner(StrEnum):
    """Whose target it is. Open: others may come."""

    government = "government"
    youth_union = "youth_union"


class TargetMeasure(StrEnum):
    """What is held against the value.

    The period's figure; `baseline` and what the period added; or the growth in percent.
    """

    period = "period"
    cumulative = "cumulative"
    growth = "growth"


class Comparator(StrEnum):
    """How the value is compared with the target's."""

    gte = "gte"
    gt = "gt"
    lte = "lte"
    lt = "lt"
    eq = "eq"


class TargetFields(SQLModel):
    """What a target says."""

    indicator: IndicatorCode = Field(foreign_key="indicator.code")
    owner: TargetOwner = Field(default=TargetOwner.government, sa_type=text_enum(TargetOwner))
    unit_id: UUID
    team_id: UUID | None = Field(
        default=None, foreign_key="team.id", description="Only what this team does in the unit"
    )
    period: PeriodText = Field(description="E.g. 2026, 2026-Q1 or 2026-01-01/2026-06-30")
    measure: TargetMeasure = Field(default=TargetMeasure.period, sa_type=text_enum(TargetMeasure))
    baseline: Figure | None = Field(
        default=None,
        sa_type=Decimals,
        description="`cumulative`: what there was before the period (default 0); `growth`: instead"
        " of a `baseline_period`",
    )
    baseline_period: PeriodText | None = Field(default=None, description="What `growth` is against")
    denominator: IndicatorCode | None = Field(
        default=None,
        foreign_key="indicator.code",
        description="A declared indicator: the value is then a share of it, in percent",
    )
    comparator: Comparator = Field(default=Comparator.gte, sa_type=text_enum(Comparator))
    value: Figure = Field(sa_type=Decimals)
    minimum_per_unit: Minimum | None = None
    service_types: ServiceCodes = Field(
        default_factory=list, sa_type=ARRAY(Text), description="Codes; a code includes its children"
    )
    team_kind: TeamKind | None = Field(default=None, sa_type=text_enum(TeamKind))
    activity_kind: ActivityKind | None = Field(default=None, sa_type=text_enum(ActivityKind))
    channel: Channel | None = Field(default=None, sa_type=text_enum(Channel))
    campaign_id: UUID | None = Field(default=None, foreign_key="campaign.id")
    document: Line | None = Field(default=None, description="The plan or decision that sets it")


class TargetColumns(Record, Placed, TargetFields):
    """All that is kept of a target and of each of its versions."""

    first_on: date
    last_on: date
    allocated_from_id: UUID | None = Field(default=None, foreign_key="target.id")


class Target(TargetColumns, table=True):
    """A target, placed where its unit stands on its period's last day (today, if that comes)."""


class TargetVersion(TargetColumns, table=True):
    """What a target was, kept by the database when it becomes something else."""

    __tablename__ = "target_version"

    version: int = Field(primary_key=True)
    indicator: str
    denominator: str | None = None
    team_id: UUID | None = None
    campaign_id: UUID | None = None
    unit_key: int
    commune_key: int | None = None
    province_key: int | None = None
    allocated_from_id: UUID | None = None


class TargetCreate(TargetFields, Creation):
    """A target to set; several may share indicator, unit and period."""


class TargetUpdate(Input):
    """What may change."""

    indicator: IndicatorCode | None = None
    owner: TargetOwner | None = None
    unit_id: UUID | None = None
    team_id: UUID | None = None
    period: PeriodText | None = None
    measure: TargetMeasure | None = None
    baseline: Figure | None = None
    baseline_period: PeriodText | None = None
    denominator: IndicatorCode | None = None
    comparator: Comparator | None = None
    value: Figure | None = None
    minimum_per_unit: Minimum | None = None
    service_types: ServiceCodes | None = None
    team_kind: TeamKind | None = None
    activity_kind: ActivityKind | None = None
    channel: Channel | None = None
    campaign_id: UUID | None = None
    document: Line | None = None


class TargetRead(Output):
    """A target."""

    indicator: str
    owner: TargetOwner
    unit_id: UUID
    team_id: UUID | None
    period: str
    measure: TargetMeasure
    baseline: Number | None
    baseline_period: str | None
    denominator: str | None
    comparator: Comparator
    value: Number
    minimum_per_unit: int | None
    service_types: list[str]
    team_kind: TeamKind | None
    activity_kind: ActivityKind | None
    channel: Channel | None
    campaign_id: UUID | None
    document: str | None
    allocated_from_id: UUID | None


class TargetPage(Page[TargetRead]):
    """A page of targets."""


class TargetVersionPage(Page[TargetRead]):
    """A page of a target's versions, the newest first."""


class TargetVersionQuery(PageQuery):
    """The parameters of the list of versions."""


class TargetFilters(PageQuery):
    """What lists of targets are narrowed by."""

    unit_id: list[UUID] = Field(
        default_factory=list,
        max_length=100,
        description="The whole subtree as it stands today, of a retired unit as on its last day",
    )
    period: PeriodText | None = Field(
        default=None, description="Targets whose period is this one or lies in it"
    )
    indicator: list[IndicatorCode] = Field(default_factory=list, max_length=100)
    owner: list[TargetOwner] = Field(default_factory=list, max_length=5)
    team_id: list[UUID] = Field(default_factory=list, max_length=100)
    allocated_from_id: list[UUID] = Field(default_factory=list, max_length=100)


class TargetQuery(TargetFilters):
    """Filters of the list of targets."""
