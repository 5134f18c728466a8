"""Support events: acts of help, by a team, for a household or a passer-by."""

from datetime import date, datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime
from pydantic import Field as Bound
from pydantic_core import PydanticCustomError
from sqlalchemy import BigInteger, Column, Computed, Date, FetchedValue, SmallInteger, Uuid
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlmodel import Field, SQLModel

from api.models.base import Placed, Record
from api.models.external_ids import ExternalIdsPatch
from api.models.members import Gender
from api.models.pages import Page
from api.models.service_types import ServiceCode
from api.models.types import (
    Creation,
    ExternalIds,
    Identifier,
    Input,
    Latitude,
    Longitude,
    Moment,
    Output,
    Paragraph,
    Quantity,
    RecordQuery,
    text_enum,
)


class Outcome(StrEnum):
    """How the help ended; only completed and guided count as results. Open: others may come."""

    completed = "completed"
    guided = "guided"
    attempted = "attempted"
    referred = "referred"


class Mode(StrEnum):
    """Who did it in the end. Open: others may come."""

    self_served = "self_served"
    assisted = "assisted"
    on_behalf = "on_behalf"


class Channel(StrEnum):
    """Where the help was given. Open: others may come."""

    household_visit = "household_visit"
    market = "market"
    one_stop_desk = "one_stop_desk"
    meeting = "meeting"
    cooperative = "cooperative"
    campaign_day = "campaign_day"
    training = "training"
    online = "online"


class EventStatus(StrEnum):
    """The life of an event; submitted and verified ones are counted. Open: others may come."""

    submitted = "submitted"
    verified = "verified"
    rejected = "rejected"
    voided = "voided"


class AgeBand(StrEnum):
    """Age in bands. Open: others may come."""

    under_16 = "under_16"
    from_16_to_30 = "16_30"
    from_31_to_59 = "31_59"
    from_60 = "60_plus"


class SupportEventFields(SQLModel):
    """What an act of help is."""

    team_id: UUID
    service_type: ServiceCode
    occurred_at: Moment
    quantity: Quantity = 1
    outcome: Outcome = Field(sa_type=text_enum(Outcome))
    mode: Mode = Field(sa_type=text_enum(Mode))
    channel: Channel = Field(sa_type=text_enum(Channel))
    household_id: UUID | None = None
    campaign_id: UUID | None = Field(
        default=None, description="Of a campaign that ran there on that day, for that service"
    )
    lat: Latitude | None = None
    lon: Longitude | None = None
    note: Paragraph | None = None
    external_ids: ExternalIds = Field(default_factory=dict, sa_type=JSONB)


class EventAction(StrEnum):
    """What made a version of an event. Open: others may come."""

    create = "create"
    correct = "correct"
    verify = "verify"
    reject = "reject"
    void = "void"
    reopen = "reopen"
    erase = "erase"


class EventColumns(Record, Placed, SupportEventFields):
    """The columns of an event, and of each version that it had.

    Placed where its unit, and its team's, stood on its day.
    """

    unit_key: int
    commune_key: int | None = None
    province_key: int | None = None
    occurred_at: AwareDatetime
    occurred_on: date | None = Field(default=None, nullable=False)
    member_ids: list[UUID] = Field(sa_type=ARRAY(Uuid))
    status: EventStatus = Field(default=EventStatus.submitted, sa_type=text_enum(EventStatus))
    team_unit_key: int
    team_commune_key: int | None = None
    beneficiary_age_band: AgeBand | None = Field(default=None, sa_type=text_enum(AgeBand))
    beneficiary_gender: Gender | None = Field(default=None, sa_type=text_enum(Gender))
    beneficiary_hash: bytes | None = None
    beneficiary_key: int = Field(default=0, sa_type=SmallInteger)
    """The generation of the hash: how many keys of `NOIDAI_HASH_KEYS` wrap it."""
    xid: int = Field(
        default=None,
        nullable=False,
        sa_type=BigInteger,
        sa_column_kwargs={"server_default": FetchedValue()},
    )
    """The transaction that wrote the version; the database says it."""
    action: EventAction | None = Field(default=None, sa_type=text_enum(EventAction))
    """What made the version, if it is not the first."""
    changed_by: UUID | None = None
    """Who made it, if it is not the first; `reason` says why."""
    reason: str | None = None


class SupportEvent(EventColumns, table=True):
    """An act of help, as it stands."""

    __tablename__ = "support_event"

    occurred_on: date | None = Field(
        default=None,
        sa_column=Column(
            Date,
            Computed("(occurred_at at time zone 'Asia/Ho_Chi_Minh')::date"),
            nullable=False,
        ),
    )


class Beneficiary(Input):
    """Who was helped; the identifier is kept as a keyed hash only and never shown."""

    age_band: AgeBand | None = None
    gender: Gender | None = None
    identifier: Identifier | None = Field(default=None, description="Write-only")


def _distinct(members: list[UUID]) -> list[UUID]:
    for index, member in enumerate(members):
        if member in members[:index]:
            raise PydanticCustomError("duplicate", "given twice")
    return members


MemberIds = Annotated[list[UUID], Bound(max_length=20), AfterValidator(_distinct)]


class SupportEventPut(SupportEventFields, Input):
    """An act of help under an external id: recorded, or corrected in the fields that are given."""

    member_ids: MemberIds = Field(default_factory=list)
    unit_id: UUID | None = None
    beneficiary: Beneficiary | None = None


class SupportEventCreate(SupportEventPut, Creation):
    """An act of help to record; `unit_id` is where, by default the team's own unit."""


class SupportEventUpdate(Input):
    """A correction."""

    member_ids: MemberIds | None = None
    unit_id: UUID | None = None
    service_type: ServiceCode | None = None
    occurred_at: Moment | None = None
    quantity: Quantity | None = None
    outcome: Outcome | None = None
    mode: Mode | None = None
    channel: Channel | None = None
    household_id: UUID | None = None
    campaign_id: UUID | None = None
    beneficiary: Beneficiary | None = None
    lat: Latitude | None = None
    lon: Longitude | None = None
    note: Paragraph | None = None
    external_ids: ExternalIdsPatch | None = None
    reason: Paragraph | None = Field(default=None, description="Why it is corrected")


class SupportEventRewrite(SupportEventUpdate):
    """What an upsert corrects; the team is the one that the event has."""

    team_id: UUID


class BeneficiaryRead(SQLModel):
    """Who was helped, without the identifier."""

    age_band: AgeBand | None
    gender: Gender | None


class EventShown(Output):
    """An event, now or then; personal fields that the caller may not see are null and `masked`."""

    team_id: UUID
    member_ids: list[UUID]
    unit_id: UUID
    household_id: UUID | None
    service_type: str
    occurred_at: datetime
    recorded_at: datetime
    clock_skew: bool = Field(
        default=False,
        description="It is said to have happened after it was recorded: the sender's clock runs"
        " ahead, by at most 24 hours",
    )
    quantity: int
    outcome: Outcome
    mode: Mode
    channel: Channel
    campaign_id: UUID | None = None
    status: EventStatus
    external_ids: dict[str, str]
    beneficiary: BeneficiaryRead | None
    lat: float | None
    lon: float | None
    note: str | None
    masked: list[str]


class SupportEventRead(EventShown):
    """An event; personal fields that the caller may not see are null and named in `masked`."""

    possible_duplicate_of: UUID | None = Field(
        default=None,
        description="The earliest recorded event, counted and seen in clear, of the same service"
        " for the same household or person within a day; it may be right nevertheless",
    )


class SupportEventPage(Page[SupportEventRead]):
    """A page of events, the newest first."""


class EventSort(StrEnum):
    """Orders of the list of events."""

    newest = "-occurred_at"
    oldest = "occurred_at"


class SupportEventQuery(RecordQuery):
    """Filters of the list of events."""

    team_id: list[UUID] = Field(default_factory=list, max_length=100)
    member_id: list[UUID] = Field(default_factory=list, max_length=100)
    household_id: list[UUID] = Field(default_factory=list, max_length=100)
    campaign_id: list[UUID] = Field(default_factory=list, max_length=100)
    service_type: list[ServiceCode] = Field(default_factory=list, max_length=50)
    status: list[EventStatus] = Field(default_factory=list, max_length=5)
    outcome: list[Outcome] = Field(default_factory=list, max_length=5)
    occurred_at_gte: Moment | None = None
    occurred_at_lt: Moment | None = None
    sort: EventSort = EventSort.newest
