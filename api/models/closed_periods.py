"""Closed periods: a unit's figures of a month, quarter or year, frozen with a hash."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from pydantic import AwareDatetime
from sqlalchemy import Column
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field

from api.models.base import Placed, Record
from api.models.pages import Page
from api.models.types import Body, Creation, Number, Output, PageQuery, PeriodText


class ClosedPeriod(Record, Placed, table=True):
    """A closed period; its figures lie beside it (`closed_figures`), final like itself."""

    __tablename__ = "closed_period"

    period: str
    first_on: date
    last_on: date
    closed_at: AwareDatetime
    hash: str
    data_version: str
    verified_share: float | None = None
    definition_versions: dict[str, Any] = Field(sa_column=Column(JSONB, nullable=False))


class ClosedPeriodCreate(Creation):
    """A month, quarter or year that has ended, and the unit that closes it."""

    unit_id: UUID
    period: PeriodText = Field(
        description="A month, quarter or year", schema_extra={"examples": ["2026-03", "2026-Q1"]}
    )


class Revision(Body):
    """A frozen figure that has become another one since, by late or corrected facts."""

    at: datetime = Field(description="When it was first seen")
    indicator: str
    unit_id: UUID | None = Field(description="null: what lies in the unit, but untellable where")
    service_type: str | None
    was: Number | None = Field(description="Frozen, or as the revision before told")
    became: Number | None = Field(
        alias="is", description="As `/observations` told with boundary=as_recorded"
    )
    difference: Number | None = Field(description="`is` - `was`; null where either is")


class ClosedPeriodItem(Output):
    """A closed period, as a list shows it."""

    unit_id: UUID
    period: str
    first_on: date
    last_on: date
    closed_at: datetime
    hash: str = Field(
        description="SHA-256, in hex, of the JSON (RFC 8785) of {unit_id, period,"
        " definition_versions, figures}: of each item of its observations indicator, unit_id,"
        " service_type, unit_of_count, status, numerator, denominator, and value (null where"
        " there is a numerator), ordered by indicator, unit_id, service_type (null as empty);"
        " definition_versions of the indicators in it"
    )


class ClosedPeriodRead(ClosedPeriodItem):
    """A closed period with everything that its figures became since."""

    people_hash: str | None = Field(
        description="The same of the figures about people; null for whoever may not read these"
    )
    revision_count: int
    revisions: list[Revision] = Field(description="The newest 1,000, in order")


class ClosedPeriodPage(Page[ClosedPeriodItem]):
    """A page of closed periods, the last closed first."""


class ClosedPeriodQuery(PageQuery):
    """Filters of the list."""

    unit_id: list[UUID] = Field(
        default_factory=list,
        max_length=100,
        description="The whole subtree as it stands today, of a retired unit as on its last day",
    )
    period: list[PeriodText] = Field(default_factory=list, max_length=100)
