"""Devices: phones that act as a member of a team, enrolled by its leader."""

from uuid import UUID

from pydantic import AwareDatetime
from sqlalchemy import ARRAY, ForeignKey, Uuid
from sqlmodel import Field

from api.models.base import Record
from api.models.pages import Page
from api.models.types import Creation, Output, PageQuery


class Device(Record, table=True):
    """A device, and the code that enrols it; its id is its principal's, `deleted_at` its end."""

    id: UUID = Field(primary_key=True, sa_column_args=[ForeignKey("principal.id")])
    member_id: UUID = Field(foreign_key="member.id")
    team_ids: list[UUID] = Field(sa_type=ARRAY(Uuid))
    """Where it may act at most: the teams within the scope of whoever enrolled it."""
    name: str | None = None
    code_hash: bytes
    code_expires_at: AwareDatetime
    enrolled_at: AwareDatetime | None = None


class DeviceCreate(Creation):
    """A device for a member of a team in the caller's scope."""

    member_id: UUID


class DeviceRead(Output):
    """A device. It is enrolled once `enrolled_at` is set."""

    member_id: UUID
    name: str | None = Field(description="As the device calls itself; null until it is enrolled")
    code_expires_at: AwareDatetime
    enrolled_at: AwareDatetime | None


class DeviceEnrolment(DeviceRead):
    """A device with the code that enrols it, which is shown this once."""

    enrolment_code: str = Field(description="For `POST /v1/sessions`; clients show it as a QR")


class DevicePage(Page[DeviceRead]):
    """A page of devices."""


class DeviceQuery(PageQuery):
    """Filters of the list of devices."""

    member_id: list[UUID] = Field(default_factory=list, max_length=100)
