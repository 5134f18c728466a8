"""How the items of a batch are written, by resource."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement
from sqlmodel import col

from api.auth.permissions import Permission
from api.models.activities import Activity, ActivityCreate, ActivityPut, ActivityUpdate
from api.models.base import Record
from api.models.event_versions import EventDecision
from api.models.households import Household, HouseholdCreate, HouseholdPut, HouseholdUpdate
from api.models.members import Member, MemberCreate, MemberPut, MemberUpdate
from api.models.support_events import (
    EventStatus,
    SupportEvent,
    SupportEventCreate,
    SupportEventPut,
    SupportEventUpdate,
)
from api.models.teams import Team, TeamCreate, TeamPut, TeamUpdate
from api.models.types import Creation, Input, Output
from api.services import (
    activities,
    event_corrections,
    event_life,
    households,
    members,
    support_events,
    teams,
    upserts,
)


@dataclass(frozen=True)
class Noun:
    """How the items of one resource are written, and what each of it needs."""

    resource: str
    table: type[Record]
    reading: Permission
    writing: Permission
    changing: Permission
    creation: type[Creation]
    change: type[Input]
    create: Callable[..., Awaitable[tuple[Output, bool]]]
    update: Callable[..., Awaitable[Output]]
    delete: Callable[..., Awaitable[Output | None]]
    deleting: Permission
    removal: type[Input] | None
    """What a deletion must say; where it is none, `data` is not looked at."""
    gone: ColumnElement[bool]
    given: type[Input]
    """What an upsert takes."""
    upsert: upserts.Noun[Any]


NOUNS = {
    "teams": Noun(
        "teams",
        Team,
        Permission.teams_read,
        Permission.teams_write,
        Permission.team_link_write,
        TeamCreate,
        TeamUpdate,
        teams.create_team,
        teams.update_team,
        teams.delete_team,
        Permission.teams_write,
        None,
        col(Team.deleted_at).is_not(None),
        TeamPut,
        upserts.TEAMS,
    ),
    "members": Noun(
        "members",
        Member,
        Permission.members_read,
        Permission.members_write,
        Permission.members_write,
        MemberCreate,
        MemberUpdate,
        members.create_member,
        members.update_member,
        members.delete_member,
        Permission.members_write,
        None,
        col(Member.deleted_at).is_not(None),
        MemberPut,
        upserts.MEMBERS,
    ),
    "households": Noun(
        "households",
        Household,
        Permission.households_read,
        Permission.households_write,
        Permission.households_write,
        HouseholdCreate,
        HouseholdUpdate,
        households.create_household,
        households.update_household,
        households.delete_household,
        Permission.households_write,
        None,
        col(Household.deleted_at).is_not(None),
        HouseholdPut,
        upserts.HOUSEHOLDS,
    ),
    "support_events": Noun(
        "support_events",
        SupportEvent,
        Permission.events_read,
        Permission.events_write,
        Permission.events_write,
        SupportEventCreate,
        SupportEventUpdate,
        support_events.create_support_event,
        event_corrections.update_support_event,
        event_life.void_support_event,
        Permission.events_void,
        EventDecision,
        col(SupportEvent.status) == EventStatus.voided,
        SupportEventPut,
        upserts.SUPPORT_EVENTS,
    ),
    "activities": Noun(
        "activities",
        Activity,
        Permission.activities_read,
        Permission.activities_write,
        Permission.activities_write,
        ActivityCreate,
        ActivityUpdate,
        activities.create_activity,
        activities.update_activity,
        activities.delete_activity,
        Permission.activities_write,
        None,
        col(Activity.deleted_at).is_not(None),
        ActivityPut,
        upserts.ACTIVITIES,
    ),
}
