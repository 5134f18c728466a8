"""The catalogue of services that teams help with."""

from datetime import date
from enum import StrEnum
from typing import Annotated

from pydantic import StringConstraints
from sqlmodel import Field, SQLModel

from api.models.base import Record
from api.models.pages import Page
from api.models.types import Creation, Day, Input, Name, Output, PageQuery, text_enum

ServiceCode = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True, max_length=40, pattern=r"^[A-Z][A-Z0-9]*(\.[A-Z0-9]+)*$"
    ),
]


class ServiceStatus(StrEnum):
    """Whether a service is offered. Open: others may come."""

    active = "active"
    retired = "retired"


class ServiceTypeFields(SQLModel):
    """What a service is."""

    name_vi: Name
    name_en: Name
    platform: Name | None = None
    status: ServiceStatus = Field(default=ServiceStatus.active, sa_type=text_enum(ServiceStatus))
    active_from: Day | None = None
    active_to: Day | None = Field(default=None, description="The last day, included")


class ServiceType(Record, ServiceTypeFields, table=True):
    """A service; a province's child keeps its parent's category and unit of count."""

    __tablename__ = "service_type"

    code: str = Field(unique=True)
    parent_code: str | None = Field(default=None, foreign_key="service_type.code")
    category: str
    unit_of_count: str
    province_key: int | None = Field(default=None, foreign_key="admin_unit.key")


class ServiceTypeCreate(ServiceTypeFields, Creation):
    """A service: a province names a `parent_code`, the nation a category and a unit of count."""

    code: ServiceCode
    parent_code: ServiceCode | None = None
    category: Name | None = None
    unit_of_count: Name | None = None


class ServiceTypeUpdate(Input):
    """What may change: never the code, nor what is counted."""

    name_vi: Name | None = None
    name_en: Name | None = None
    platform: Name | None = None
    status: ServiceStatus | None = None
    active_from: Day | None = None
    active_to: Day | None = None


class ServiceTypeRead(Output):
    """A service of the catalogue."""

    code: str
    parent_code: str | None
    category: str
    unit_of_count: str
    name_vi: str
    name_en: str
    platform: str | None
    status: ServiceStatus
    active_from: date | None
    active_to: date | None


class ServiceTypePage(Page[ServiceTypeRead]):
    """A page of the catalogue."""


class ServiceTypeQuery(PageQuery):
    """Filters of the catalogue."""

    code: list[ServiceCode] = Field(default_factory=list, max_length=100)
    category: list[Name] = Field(default_factory=list, max_length=20)
    parent_code: list[ServiceCode] = Field(default_factory=list, max_length=100)
    status: list[ServiceStatus] = Field(default_factory=list, max_length=5)
