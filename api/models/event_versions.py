"""Versions of support events, and the verbs that make them."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger, FetchedValue
from sqlmodel import Field

from api.models.pages import Page
from api.models.support_events import EventAction, EventColumns, EventShown
from api.models.types import Input, PageQuery, Paragraph


class SupportEventVersion(EventColumns, table=True):
    """What an event was, kept by the database when it becomes something else."""

    __tablename__ = "support_event_version"

    version: int = Field(primary_key=True)
    ended_xid: int = Field(
        default=None,
        nullable=False,
        sa_type=BigInteger,
        sa_column_kwargs={"server_default": FetchedValue()},
    )
    """The transaction that made it something else."""


class EventVerify(Input):
    """What there is to say of an event that is right."""

    reason: Paragraph | None = None


class EventDecision(Input):
    """Why an event is rejected, voided or reopened."""

    reason: Paragraph = Field(description="It names no person")


class SupportEventVersionRead(EventShown):
    """An event as it was in one of its versions."""

    at: datetime
    actor_id: UUID | None = Field(description="The principal whose version it is")
    action: EventAction
    reason: str | None


class SupportEventVersionPage(Page[SupportEventVersionRead]):
    """A page of versions, the newest first."""


class SupportEventVersionQuery(PageQuery):
    """The parameters of the list of versions."""
