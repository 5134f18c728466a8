"""How the items of a batch are written, by resource."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from api.auth.permissions import Permission
from api.models.base import Record
from api.models.households import Household, HouseholdCreate, HouseholdUpdate
from api.models.members import Member, MemberCreate, MemberUpdate
from api.models.support_events import SupportEvent, SupportEventCreate, SupportEventUpdate
from api.models.teams import Team, TeamCreate, TeamUpdate
from api.models.types import Creation, Input, Output
from api.services import households, members, support_events, teams


@dataclass(frozen=True)
class Noun:
    """How the items of one resource are written, and what each of it needs."""

    table: type[Record]
    reading: Permission
    writing: Permission
    changing: Permission
    creation: type[Creation]
    change: type[Input]
    create: Callable[..., Awaitable[tuple[Output, bool]]]
    update: Callable[..., Awaitable[Output]]
    delete: Callable[..., Awaitable[None]] | None


NOUNS = {
    "teams": Noun(
        Team,
        Permission.teams_read,
        Permission.teams_write,
        Permission.team_link_write,
        TeamCreate,
        TeamUpdate,
        teams.create_team,
        teams.update_team,
        teams.delete_team,
    ),
    "members": Noun(
        Member,
        Permission.members_read,
        Permission.members_write,
        Permission.members_write,
        MemberCreate,
        MemberUpdate,
        members.create_member,
        members.update_member,
        members.delete_member,
    ),
    "households": Noun(
        Household,
        Permission.households_read,
        Permission.households_write,
        Permission.households_write,
        HouseholdCreate,
        HouseholdUpdate,
        households.create_household,
        households.update_household,
        households.delete_household,
    ),
    "support_events": Noun(
        SupportEvent,
        Permission.events_read,
        Permission.events_write,
        Permission.events_write,
        SupportEventCreate,
        SupportEventUpdate,
        support_events.create_support_event,
        support_events.update_support_event,
        None,
    ),
}
