"""Every permission and the one matrix of roles."""

from enum import StrEnum
from typing import Final

from api.models.role_grants import Role


class Permission(StrEnum):
    """What a route asks for. `open` is everybody's who is signed in."""

    open = "open"
    activities_read = "activities_read"
    activities_write = "activities_write"
    aggregates_read = "aggregates_read"
    all_statistics_read = "all_statistics_read"
    all_statistics_write = "all_statistics_write"
    all_targets_allocate = "all_targets_allocate"
    all_targets_write = "all_targets_write"
    audit_read = "audit_read"
    batch_write = "batch_write"
    campaigns_read = "campaigns_read"
    campaigns_write = "campaigns_write"
    catalogue_extend = "catalogue_extend"
    catalogue_write = "catalogue_write"
    commendations_read = "commendations_read"
    commendations_write = "commendations_write"
    devices_write = "devices_write"
    events_read = "events_read"
    events_reopen = "events_reopen"
    events_verify = "events_verify"
    events_void = "events_void"
    events_write = "events_write"
    glass_break = "glass_break"
    households_read = "households_read"
    households_write = "households_write"
    indicators_write = "indicators_write"
    members_read = "members_read"
    members_write = "members_write"
    names_read = "names_read"
    national_targets_write = "national_targets_write"
    own_people_read = "own_people_read"
    own_statistics_write = "own_statistics_write"
    people_read = "people_read"
    periods_close = "periods_close"
    principals_write = "principals_write"
    reorganise = "reorganise"
    reorganise_villages = "reorganise_villages"
    statistics_read = "statistics_read"
    statistics_write = "statistics_write"
    subjects_write = "subjects_write"
    targets_allocate = "targets_allocate"
    targets_read = "targets_read"
    targets_write = "targets_write"
    team_link_write = "team_link_write"
    teams_read = "teams_read"
    teams_write = "teams_write"
    villages_write = "villages_write"
    youth_union_write = "youth_union_write"


P = Permission
_FIGURES: Final = {
    P.aggregates_read,
    P.statistics_read,
    P.all_statistics_read,
    P.targets_read,
}
_READS: Final = _FIGURES | {
    P.teams_read,
    P.members_read,
    P.households_read,
    P.events_read,
    P.activities_read,
    P.campaigns_read,
}
_DECLARES: Final = {P.statistics_write, P.all_statistics_write}
"""The second of each pair is for what others declared, too."""

MATRIX: Final[dict[Role, frozenset[Permission]]] = {
    Role.national_admin: frozenset(
        _FIGURES
        | _DECLARES
        | {
            P.teams_read,
            P.members_read,
            P.campaigns_read,
            P.catalogue_extend,
            P.catalogue_write,
            P.indicators_write,
            P.targets_write,
            P.national_targets_write,
            P.targets_allocate,
            P.periods_close,
            P.principals_write,
            P.reorganise,
            P.reorganise_villages,
        }
    ),
    Role.province_admin: frozenset(
        _READS
        | _DECLARES
        | {
            P.activities_write,
            P.campaigns_write,
            P.commendations_read,
            P.commendations_write,
            P.villages_write,
            P.reorganise_villages,
            P.catalogue_extend,
            P.targets_write,
            P.all_targets_write,
            P.targets_allocate,
            P.all_targets_allocate,
            P.glass_break,
            P.periods_close,
            P.batch_write,
            P.events_reopen,
            P.events_verify,
            P.events_void,
            P.teams_write,
            P.team_link_write,
            P.members_write,
            P.principals_write,
            P.devices_write,
        }
    ),
    Role.commune_admin: frozenset(
        _READS
        | _DECLARES
        | {
            P.people_read,
            P.activities_write,
            P.campaigns_write,
            P.commendations_read,
            P.targets_allocate,
            P.all_targets_allocate,
            P.villages_write,
            P.batch_write,
            P.events_verify,
            P.events_void,
            P.teams_write,
            P.team_link_write,
            P.members_write,
            P.households_write,
            P.principals_write,
            P.devices_write,
        }
    ),
    Role.youth_coordinator: frozenset(
        _FIGURES
        | {
            P.teams_read,
            P.members_read,
            P.names_read,
            P.activities_read,
            P.activities_write,
            P.campaigns_read,
            P.campaigns_write,
            P.commendations_read,
            P.commendations_write,
            P.statistics_write,
            P.targets_write,
            P.targets_allocate,
            P.youth_union_write,
        }
    ),
    Role.team_leader: frozenset(
        {
            P.teams_read,
            P.members_read,
            P.households_read,
            P.events_read,
            P.people_read,
            P.activities_read,
            P.activities_write,
            P.campaigns_read,
            P.batch_write,
            P.team_link_write,
            P.households_write,
            P.events_void,
            P.events_write,
            P.devices_write,
        }
    ),
    Role.team_member: frozenset(
        {
            P.teams_read,
            P.households_read,
            P.events_read,
            P.people_read,
            P.campaigns_read,
            P.batch_write,
            P.households_write,
            P.events_void,
            P.events_write,
        }
    ),
    Role.ioc_reader: frozenset(_FIGURES | {P.campaigns_read}),
    Role.portal_client: frozenset(
        _READS
        | _DECLARES
        | {
            P.own_people_read,
            P.activities_write,
            P.batch_write,
            P.teams_write,
            P.team_link_write,
            P.members_write,
            P.households_write,
            P.events_void,
            P.events_write,
        }
    ),
    Role.partner: frozenset({P.statistics_read, P.statistics_write, P.own_statistics_write}),
    Role.auditor: frozenset(_READS | {P.audit_read, P.commendations_read}),
    Role.dpo: frozenset({P.audit_read, P.subjects_write}),
    Role.break_glass: frozenset({P.people_read}),
}
"""Role -> permissions: the one place where a right is given.

`break_glass` only unmasks what its holder reads by another grant; nobody may grant it (see
`services/break_glass.py`)."""

FACT_READS: Final = _READS - _FIGURES - {P.campaigns_read}
"""What totals are counted from: reading totals is not reading these rows."""

OF_EVENTS: Final = frozenset(
    {
        P.campaigns_read,
        P.events_read,
        P.events_write,
        P.households_read,
        P.members_read,
        P.people_read,
        P.teams_read,
    }
)
"""What the database asks for where an event is read or recorded, with all that it refers to."""

CHANGES_RIGHTS: Final = frozenset(
    {
        P.open,
        P.principals_write,
        P.devices_write,
        P.teams_write,
        P.villages_write,
        P.reorganise_villages,
        P.members_write,
    }
)
"""What is done under these may change who reaches what: grants, sessions, the tree."""

TEAM_ROLES: Final = frozenset({Role.team_leader, Role.team_member})
"""Roles that hold in one team, and in the households of that team's unit."""

ADMINISTER: Final = frozenset(
    {Role.national_admin, Role.province_admin, Role.commune_admin, Role.dpo}
)
"""Roles whose holders need a second factor (see `auth/duties.py`)."""

_STAFF: Final = {
    Role.auditor,
    Role.ioc_reader,
    Role.portal_client,
    Role.partner,
    Role.youth_coordinator,
}
MAY_GRANT: Final[dict[Role, frozenset[Role]]] = {
    Role.national_admin: frozenset(_STAFF | {Role.national_admin, Role.province_admin, Role.dpo}),
    Role.province_admin: frozenset(_STAFF | {Role.commune_admin} | TEAM_ROLES),
    Role.commune_admin: TEAM_ROLES,
}
"""Role -> the roles that it may grant, inside its own subtree and dates."""

GRANT_LEVELS: Final[dict[Role, frozenset[str]]] = {
    Role.national_admin: frozenset({"nation"}),
    Role.province_admin: frozenset({"province"}),
    Role.commune_admin: frozenset({"commune"}),
    Role.team_leader: frozenset({"commune", "village"}),
    Role.team_member: frozenset({"commune", "village"}),
}
"""Role -> the levels at which it is granted; the others at any from the nation to the commune."""
OFFICIAL_LEVELS: Final = frozenset({"nation", "province", "commune"})
