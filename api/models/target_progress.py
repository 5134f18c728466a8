"""How far targets have come."""

from datetime import date
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import Field as Bound
from sqlmodel import Field

from api.models.pages import Page
from api.models.targets import TargetFilters
from api.models.types import Body, Day, Number, Query


class ProgressStatus(StrEnum):
    """How a target stands: the first two once its period is over. Open: others may come."""

    met = "met"
    missed = "missed"
    ahead = "ahead"
    on_track = "on_track"
    behind = "behind"
    not_computable = "not_computable"
    suppressed = "suppressed"


class TargetProgress(Body):
    """How far a target has come."""

    target_id: UUID
    as_of: date
    numerator: Number | None
    denominator: Number | None = Field(description="Of a share or a growth")
    value: Number | None
    attainment: float | None = Field(
        description="value ÷ target, not capped; for `lte` and `lt` 1 if it holds, else 0"
    )
    expected: float = Field(description="The part of the period that has passed, 0-1")
    status: ProgressStatus
    missing: Number | None = Field(description="What the value still has to gain, or to lose")


class TargetProgressPage(Page[TargetProgress]):
    """The progress of many targets."""


class ProgressQuery(Query):
    """The day as of which progress is told."""

    as_of: Day | None = Field(default=None, description="Default: today")


class TargetProgressQuery(TargetFilters):
    """Filters of the list of targets, whose progress comes in one answer."""

    limit: Annotated[int, Bound(ge=1, le=5_000)] = 5_000
    as_of: Day | None = Field(default=None, description="Default: today")
