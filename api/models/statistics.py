"""Statistics: figures that somebody else measured, each with its source and its day."""

from datetime import date
from enum import StrEnum
from uuid import UUID

from sqlalchemy import Numeric
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from api.models.base import Placed, Record
from api.models.external_ids import ExternalIdsPatch
from api.models.indicators import IndicatorCode
from api.models.pages import Page
from api.models.types import (
    Creation,
    Day,
    ExternalIds,
    Figure,
    Input,
    Line,
    Number,
    Output,
    PeriodText,
    RecordQuery,
    text_enum,
)


class Precision(StrEnum):
    """How exact a published figure is. Open: others may come."""

    exact = "exact"
    approximate = "approximate"
    at_least = "at_least"
    at_most = "at_most"
    more_than = "more_than"


class Attribution(StrEnum):
    """Whose doing or measuring it is: what a bank did, no team did. Open: others may come."""

    team = "team"
    youth_union = "youth_union"
    government = "government"
    police = "police"
    bank = "bank"
    telecom = "telecom"
    survey = "survey"
    press = "press"


class StatisticFields(SQLModel):
    """What a statistic says."""

    indicator: IndicatorCode = Field(foreign_key="indicator.code")
    as_of: Day | None = Field(default=None, description="The day of a stock or a running total")
    period: PeriodText | None = Field(
        default=None, description="When a flow happened, e.g. 2023; this or `as_of`"
    )
    value: Figure = Field(sa_type=Numeric(18, 4, asdecimal=False))
    precision: Precision = Field(default=Precision.exact, sa_type=text_enum(Precision))
    attribution: Attribution = Field(sa_type=text_enum(Attribution))
    source: Line | None = Field(default=None, description="Document, newspaper or office")
    external_ids: ExternalIds = Field(default_factory=dict, sa_type=JSONB)


class Statistic(Record, Placed, StatisticFields, table=True):
    """A figure, placed where its unit stood on its own day (`last_on`)."""

    first_on: date | None = None
    """The first day of a flow; a stock has none."""
    last_on: date


class StatisticPut(StatisticFields, Input):
    """A statistic under an external id: declared, or changed in the fields that are given."""

    unit_id: UUID


class StatisticCreate(StatisticPut, Creation):
    """A statistic of a declared indicator, for a unit that stood on its day."""


class StatisticUpdate(Input):
    """What may change."""

    indicator: IndicatorCode | None = None
    unit_id: UUID | None = None
    as_of: Day | None = None
    period: PeriodText | None = None
    value: Figure | None = None
    precision: Precision | None = None
    attribution: Attribution | None = None
    source: Line | None = None
    external_ids: ExternalIdsPatch | None = None


class StatisticRead(Output):
    """A statistic."""

    indicator: str
    unit_id: UUID
    as_of: date | None
    period: str | None
    value: Number
    precision: Precision
    attribution: Attribution
    source: str | None
    external_ids: dict[str, str]


class StatisticPage(Page[StatisticRead]):
    """A page of statistics."""


class StatisticQuery(RecordQuery):
    """Filters of the list of statistics."""

    indicator: list[IndicatorCode] = Field(default_factory=list, max_length=100)
    attribution: list[Attribution] = Field(default_factory=list, max_length=20)
    as_of_gte: Day | None = Field(default=None, description="By the last day of a flow")
    as_of_lt: Day | None = None
