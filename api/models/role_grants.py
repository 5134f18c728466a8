"""Role grants: a role, in a unit's subtree or a team, between two dates."""

from datetime import date, datetime
from enum import StrEnum
from uuid import UUID

from pydantic import AwareDatetime
from sqlmodel import Field

from api.models.base import Placed, Record
from api.models.pages import Page
from api.models.types import Creation, Day, Output, PageQuery, text_enum


class Role(StrEnum):
    """What a grant makes of a principal."""

    national_admin = "national_admin"
    province_admin = "province_admin"
    commune_admin = "commune_admin"
    youth_coordinator = "youth_coordinator"
    team_leader = "team_leader"
    team_member = "team_member"
    ioc_reader = "ioc_reader"
    portal_client = "portal_client"
    partner = "partner"
    auditor = "auditor"
    dpo = "dpo"
    break_glass = "break_glass"


class RoleGrant(Record, Placed, table=True):
    """A role that a principal holds; it follows its unit's successor."""

    __tablename__ = "role_grant"

    principal_id: UUID = Field(foreign_key="principal.id")
    role: Role = Field(sa_type=text_enum(Role))
    team_id: UUID | None = Field(default=None, foreign_key="team.id")
    valid_from: date | None = None
    valid_to: date | None = None
    expires_at: AwareDatetime | None = None
    """The moment at which a broken glass is whole again."""
    reason: str | None = None


class RoleGrantCreate(Creation):
    """A grant to give: inside the grantor's own subtree and dates, never to itself."""

    principal_id: UUID
    role: Role
    unit_id: UUID
    team_id: UUID | None = None
    valid_from: Day | None = None
    valid_to: Day | None = None


class RoleGrantRead(Output):
    """A grant."""

    principal_id: UUID
    role: Role
    unit_id: UUID
    team_id: UUID | None
    valid_from: date | None
    valid_to: date | None
    expires_at: datetime | None = Field(description="The end of a broken glass")
    reason: str | None = Field(description="Why the glass was broken")


class RoleGrantPage(Page[RoleGrantRead]):
    """A page of grants."""


class RoleGrantQuery(PageQuery):
    """Filters of the list of grants."""

    principal_id: list[UUID] = Field(default_factory=list, max_length=100)
    role: list[Role] = Field(default_factory=list, max_length=len(Role))
