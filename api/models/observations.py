"""Observations: what an indicator came to, by unit, period and at most one more dimension."""

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, Final
from uuid import UUID

from pydantic import AfterValidator, StringConstraints, TypeAdapter
from pydantic import Field as Bound
from pydantic_core import PydanticCustomError
from sqlmodel import Field

from api.models.activities import ActivityKind
from api.models.service_types import ServiceCode
from api.models.support_events import Channel
from api.models.teams import TeamKind
from api.models.types import EARLIEST, LATEST, Body, Level, Name, Number, Query


class By(StrEnum):
    """The one more dimension that an observation may be split by; `kind`: of team or activity."""

    service_type = "service_type"
    channel = "channel"
    outcome = "outcome"
    kind = "kind"


class Every(StrEnum):
    """The pieces that a period is cut into; weeks are ISO weeks."""

    day = "day"
    week = "week"
    month = "month"
    quarter = "quarter"
    year = "year"


class Boundary(StrEnum):
    """The tree that facts are added up in, where it is no day's: today's, or each fact's own."""

    current = "current"
    as_recorded = "as_recorded"


def _named_or_a_day(value: str) -> str:
    """Refuse what looks like a date and is none, or an absurd one."""
    if value in set(Boundary):
        return value
    try:
        day = date.fromisoformat(value)
    except ValueError as error:
        raise PydanticCustomError("date_invalid", "no such day") from error
    if not EARLIEST <= day <= LATEST:
        raise PydanticCustomError("date_out_of_range", "absurd date")
    return value


BoundaryOrDay = Annotated[
    str,
    StringConstraints(pattern=r"^(current|as_recorded|[0-9]{4}-[0-9]{2}-[0-9]{2})$", max_length=11),
    AfterValidator(_named_or_a_day),
]
"""One type for both, since the public document knows no unions."""


class ObservationFormat(StrEnum):
    """How the answer is written."""

    json = "json"
    csv = "csv"


class ObservationStatus(StrEnum):
    """What a value is worth. Open: others may come."""

    ok = "ok"
    suppressed = "suppressed"
    not_computable = "not_computable"
    unallocated = "unallocated"


class ObservationQuery(Query):
    """What is asked for; repeats mean OR."""

    indicator: list[Name] = Field(
        min_length=1, max_length=20, description="Codes, e.g. teams.active"
    )
    unit_id: UUID | None = Field(
        default=None, description="The root; default: the units that the caller's scope consists of"
    )
    level: Level | None = Field(
        default=None, description="Break the root down to this level; default: the root alone"
    )
    by: By | None = None
    service_type: list[ServiceCode] = Field(
        default_factory=list, max_length=50, description="Codes; a code includes its children"
    )
    channel: list[Channel] = Field(default_factory=list, max_length=20)
    team_kind: list[TeamKind] = Field(default_factory=list, max_length=20)
    activity_kind: list[ActivityKind] = Field(default_factory=list, max_length=20)
    campaign_id: list[UUID] = Field(default_factory=list, max_length=100)
    minimum_per_unit: Annotated[int, Bound(ge=1, le=10_000)] | None = Field(
        default=None, description="What `communes.` and `districts.min_activities` need"
    )
    period: Annotated[str, StringConstraints(max_length=40)] = Field(
        description="2023, 2023-Q1, 2023-03, 2023-W10, 2023-03-26 or 2023-01-01/2023-03-31"
    )
    every: Every | None = Field(default=None, description="Cut the period into a series")
    boundary: BoundaryOrDay = Field(
        default=Boundary.current.value,
        description="The tree to add up in: `current` (today's), `as_recorded` (each fact in that"
        " of its own day, stocks in that of the period's last day), or everything in that of a day,"
        " past or to come",
        schema_extra={"examples": ["current", "as_recorded", "2025-06-30"]},
    )
    format: ObservationFormat | None = Field(
        default=None, description="Default: by `Accept`, else JSON"
    )


@dataclass(slots=True)
class Observation:
    """One cell. `numerator` and `denominator` are a share's, whose value lies in 0-100."""

    indicator: str
    period: str
    unit_id: Annotated[
        UUID | None, Bound(description="null: inside the root, but untellable where")
    ]
    unit_code: str | None
    unit_name: str | None
    service_type: str | None
    channel: str | None
    outcome: str | None
    kind: str | None
    value: Number | None
    numerator: Number | None
    denominator: Number | None
    unit_of_count: str | None
    status: ObservationStatus


OBSERVATIONS: Final = TypeAdapter(list[Observation])
"""Writes them, and reads what was written."""


class ObservationMeta(Body):
    """What the figures rest on."""

    data_version: str = Field(description="Changes when any figure does; opaque")
    computed_at: datetime
    complete_through: date = Field(description="The last day that the figures take in")
    boundary: str = Field(description="As asked for: `current`, `as_recorded` or a date")
    definition_versions: dict[str, int]
    verified_share: float | None = Field(
        description="Verified ÷ counted events of root and period, 0-100; null without events.*"
    )


class ObservationAnswer(Body):
    """Dense over units and periods, sparse over `by`."""

    items: list[Observation]
    meta: ObservationMeta


class ObservationVersion(Body):
    """What a stream tells: the version of the newest answer's figures."""

    data_version: str
    computed_at: datetime
