"""Indicator definitions: what a figure counts, in which unit, and whether it adds up."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import AwareDatetime, StringConstraints
from sqlmodel import Field, SQLModel

from api.models.base import Record
from api.models.pages import Page
from api.models.types import Creation, Flag, Input, Name, Output, PageQuery, Paragraph, text_enum

IndicatorCode = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True, max_length=80, pattern=r"^[a-z][a-z0-9_]*(\.[a-z0-9_]+)+$"
    ),
]


class IndicatorKind(StrEnum):
    """Counted from facts here, or measured elsewhere. Open: others may come."""

    computed = "computed"
    declared = "declared"


class IndicatorFields(SQLModel):
    """What an indicator says."""

    name_vi: Name
    name_en: Name
    unit_of_count: Name
    additive: Flag = Field(default=False, description="Whether it adds up over units")
    formula: Paragraph | None = None


class Indicator(Record, IndicatorFields, table=True):
    """A definition; each change counts up `definition_version`."""

    code: str = Field(unique=True)
    kind: IndicatorKind = Field(sa_type=text_enum(IndicatorKind))
    definition_version: int = 1


class IndicatorCreate(IndicatorFields, Creation):
    """A declared indicator: its values are statistics with a source."""

    code: IndicatorCode


class IndicatorUpdate(Input):
    """A new definition of a declared indicator."""

    name_vi: Name | None = None
    name_en: Name | None = None
    unit_of_count: Name | None = None
    additive: Flag | None = None
    formula: Paragraph | None = None


class IndicatorRead(Output):
    """A definition."""

    code: str
    kind: IndicatorKind
    name_vi: str
    name_en: str
    unit_of_count: str
    additive: bool
    formula: str | None
    definition_version: int


class IndicatorVersion(SQLModel, table=True):
    """A former definition, kept by the database when another takes its place."""

    __tablename__ = "indicator_version"

    id: UUID = Field(primary_key=True, foreign_key="indicator.id")
    definition_version: int = Field(primary_key=True)
    name_vi: str
    name_en: str
    unit_of_count: str
    additive: bool
    formula: str | None = None
    ended_at: AwareDatetime


class IndicatorVersionRead(SQLModel):
    """A definition, and since when it was the one in force."""

    definition_version: int
    name_vi: str
    name_en: str
    unit_of_count: str
    additive: bool
    formula: str | None
    since: datetime


class IndicatorVersionPage(Page[IndicatorVersionRead]):
    """A page of definitions, the newest first."""


class IndicatorVersionQuery(PageQuery):
    """The parameters of the list of versions."""


class IndicatorPage(Page[IndicatorRead]):
    """A page of definitions."""


class IndicatorQuery(PageQuery):
    """Filters of the definitions."""

    code: list[IndicatorCode] = Field(default_factory=list, max_length=100)
    kind: list[IndicatorKind] = Field(default_factory=list, max_length=5)
