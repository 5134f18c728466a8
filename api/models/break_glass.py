"""Breaking the glass: reading people in clear for an hour, for a reason."""

from datetime import datetime
from uuid import UUID

from sqlmodel import Field

from api.models.pages import Page
from api.models.types import Creation, Output, PageQuery, Paragraph


class BreakGlassCreate(Creation):
    """The unit whose people one must see, and why."""

    unit_id: UUID
    reason: Paragraph = Field(description="Why; it names no person, since it is kept")


class BreakGlassRead(Output):
    """The right to read the people of a unit's subtree in clear, until it expires or is ended."""

    principal_id: UUID
    unit_id: UUID
    reason: str
    expires_at: datetime
    ended_at: datetime | None = Field(description="When it was ended early")


class BreakGlassPage(Page[BreakGlassRead]):
    """A page of broken glasses, the newest first."""


class BreakGlassQuery(PageQuery):
    """Filters of the list."""

    principal_id: list[UUID] = Field(default_factory=list, max_length=100)
