"""Members, and their memberships in teams."""

from datetime import date, datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import AwareDatetime
from pydantic import Field as Bound
from sqlalchemy import ForeignKey
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from api.models.base import Placed, Record
from api.models.external_ids import ExternalIdsPatch
from api.models.pages import Page
from api.models.types import (
    Body,
    Creation,
    Day,
    ExternalIds,
    Flag,
    Input,
    Name,
    Output,
    Phone,
    RecordQuery,
    text_enum,
)


class Gender(StrEnum):
    """Open: others may come."""

    female = "female"
    male = "male"
    other = "other"
    unstated = "unstated"


class MembershipRole(StrEnum):
    """What a member is in a team. Open: others may come."""

    leader = "leader"
    deputy = "deputy"
    member = "member"


BirthYear = Annotated[int, Bound(ge=1900, le=2200, strict=True)]


class MemberFields(SQLModel):
    """What a member is. `full_name`, `birth_year` and `phone` are personal."""

    full_name: Name
    birth_year: BirthYear | None = None
    gender: Gender = Field(default=Gender.unstated, sa_type=text_enum(Gender))
    phone: Phone | None = Field(default=None, description="E.164, e.g. +84912345678")
    occupation: Name | None = None
    is_youth_union_member: Flag = False
    trained_on: Day | None = None
    external_ids: ExternalIds = Field(default_factory=dict, sa_type=JSONB)


class Member(Record, MemberFields, table=True):
    """A person; scope comes from the memberships."""

    restricted_at: AwareDatetime | None = None
    redacted_at: AwareDatetime | None = None


class MembershipFields(SQLModel):
    """A stay in a team; both days are included."""

    role: MembershipRole = Field(default=MembershipRole.member, sa_type=text_enum(MembershipRole))
    joined_on: Day
    left_on: Day | None = None


class Membership(Placed, MembershipFields, table=True):
    """A stay of one member in one team, placed where the team is."""

    team_id: UUID = Field(foreign_key="team.id", primary_key=True)
    member_id: UUID = Field(
        primary_key=True,
        sa_column_args=[ForeignKey("member.id", deferrable=True, initially="DEFERRED")],
    )
    joined_on: date = Field(primary_key=True)


class MembershipCreate(MembershipFields, Input):
    """A first membership of a new member."""

    team_id: UUID


class MembershipPut(MembershipFields, Input):
    """Joining a team, changing the role, or correcting the dates."""


class MembershipRead(Body):
    """A stay in a team."""

    team_id: UUID
    role: MembershipRole
    joined_on: date
    left_on: date | None


class Stay(MembershipRead):
    """The same with its place, by which it is in scope or not."""

    unit_id: UUID
    unit_key: int
    commune_key: int | None
    province_key: int | None


class MemberPut(MemberFields, Input):
    """A person under an external id: created, or changed in the fields and stays that are given."""

    memberships: list[MembershipCreate] = Field(min_length=1, max_length=20)


class MemberCreate(MemberPut, Creation):
    """A person who joins at least one team."""


class MemberUpdate(Input):
    """What may change; memberships have a path of their own."""

    full_name: Name | None = None
    birth_year: BirthYear | None = None
    gender: Gender | None = None
    phone: Phone | None = None
    occupation: Name | None = None
    is_youth_union_member: Flag | None = None
    trained_on: Day | None = None
    external_ids: ExternalIdsPatch | None = None


class MemberRewrite(MemberUpdate):
    """What an upsert changes: the fields, and the stays that it names."""

    memberships: list[MembershipCreate] = Field(max_length=20)


class MemberRead(Output):
    """A member; personal fields that the caller may not see are null and named in `masked`."""

    full_name: str | None
    birth_year: int | None
    gender: Gender
    phone: str | None
    occupation: str | None
    is_youth_union_member: bool
    is_youth: bool | None = Field(
        description="Union member, or aged 16-30 today; null when neither can be told"
    )
    trained_on: date | None
    external_ids: dict[str, str]
    memberships: list[MembershipRead]
    restricted_at: datetime | None = Field(
        description="Since when nobody reads the personal fields or changes anything"
    )
    redacted_at: datetime | None = Field(description="When the person was erased: it is final")
    masked: list[str]


class MemberPage(Page[MemberRead]):
    """A page of members."""


class MemberQuery(RecordQuery):
    """Filters of the list of members."""

    team_id: list[UUID] = Field(default_factory=list, max_length=100)
