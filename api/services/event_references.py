"""What events refer to, and whether they may: teams, members, places, services, households.

References are read as sets, in a fixed number of statements; facts are judged against the tree of
their own day.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID

from api import clock
from api.auth.caller import Caller
from api.auth.permissions import Permission
from api.auth.scope import PlacedRow, Spot
from api.clock import reporting_day
from api.driver import ENTERED, Connection
from api.errors import FieldError, Refusal, ValidationFailed, not_found_at
from api.models.role_grants import Role
from api.models.types import Level
from api.services.event_campaigns import CAMPAIGNS, FOUND, Campaigns
from api.services.event_rows import entering
from api.services.places import (
    Asked,
    Found,
    Gone,
    Place,
    find_successors,
    read_places,
    refusal_of,
)

LEVELS = frozenset({Level.village, Level.commune})
CLOCK_SKEW = timedelta(hours=24)
"""How far ahead a phone's clock may run before its events are refused."""


class Team(NamedTuple):
    """What of a team its events need."""

    id: UUID
    unit_id: UUID
    unit_key: int
    commune_key: int | None
    province_key: int | None
    founded_on: date
    dissolved_on: date | None


class Service(NamedTuple):
    """What of a service its events need."""

    code: str
    status: str
    active_from: date | None
    active_to: date | None
    province_key: int | None


type Stay = tuple[UUID, UUID, date]
"""A team, a member that is said to be in it, and the day."""


@dataclass
class References:
    """What a set of events refers to, as far as the caller may refer to it."""

    teams: dict[UUID, Team] = field(default_factory=dict)
    households: set[UUID] = field(default_factory=set)
    services: dict[str, Service] = field(default_factory=dict)
    strangers: set[Stay] = field(default_factory=set)
    """Who was said to have taken part, and was not in the team on that day."""
    places: dict[Asked, Found] = field(default_factory=dict)
    successors: Mapping[UUID, list[dict[str, Any]]] = field(default_factory=dict)
    campaigns: Campaigns = field(default_factory=Campaigns)
    recalled: bool = False
    """Whether any of the places was known before."""


@dataclass(slots=True)
class Fact:
    """The references of one event, new or corrected."""

    team_id: UUID
    member_ids: Sequence[UUID]
    unit_id: UUID | None
    household_id: UUID | None
    service_type: str
    occurred_at: datetime
    campaign_id: UUID | None = None
    day: date = field(init=False)
    """The reporting day."""

    def __post_init__(self) -> None:
        """Work out the day."""
        self.day = reporting_day(self.occurred_at)

    @property
    def stays(self) -> list[Stay]:
        """The stays of its members that it rests on."""
        return [(self.team_id, member, self.day) for member in self.member_ids]


_REFERENCES = f"""
{ENTERED}, home as materialized (
    select t.* from entered cross join lateral (
        select id, unit_id, unit_key, commune_key, province_key, founded_on, dissolved_on
        from team
        where id = any ($3::uuid[]) and deleted_at is null
          and entered.scopes is not null offset 0) t
), house as (
    select h.* from entered cross join lateral (
        select id, unit_key, commune_key, province_key from household
        where id = any ($4::uuid[]) and deleted_at is null and redacted_at is null
          and entered.scopes is not null offset 0) h
), stranger as (
    select s.* from entered cross join lateral (
        select team_id, member_id, day
        from unnest($5::uuid[], $6::uuid[], $7::date[]) as said (team_id, member_id, day)
        where not exists (
            select from membership m
            where m.team_id = said.team_id and m.member_id = said.member_id
              and said.day between m.joined_on and coalesce(m.left_on, 'infinity'))
          and entered.scopes is not null offset 0) s
)
"""  # noqa: S608 - constants
_ROWS = """
select 'home' as kind, id, unit_id as other_id, founded_on as first, dissolved_on as last,
       null::text as name, unit_key, commune_key, province_key
from home
union all select 'house', id, null, null, null, null, unit_key, commune_key, province_key from house
union all select 'stranger', team_id, member_id, day, null, null, null, null, null from stranger
union all select status, null, null, active_from, active_to, code, null, null, province_key
from service_type where code = any ($8::text[]) and deleted_at is null
"""
_GATHER = _REFERENCES + _ROWS
_GATHER_CAMPAIGNS = f"{_REFERENCES}, {CAMPAIGNS} {_ROWS} union all {FOUND}"
"""The same with what few events name, and all would pay for."""


async def gather(
    database: Connection,
    caller: Caller,
    facts: Sequence[Fact],
    known: Mapping[Asked, Found] = MappingProxyType({}),
) -> References:
    """Read all that the facts refer to, in one statement, and one for places that are not known.

    (A third one tells what became of units that are gone.)
    """
    campaigns = list({fact.campaign_id for fact in facts} - {None})
    spots = [fact.team_id for fact in facts], [fact.unit_id for fact in facts]
    stays = {stay for fact in facts for stay in fact.stays}
    rows = await database.fetch(
        _GATHER_CAMPAIGNS if campaigns else _GATHER,
        *entering(database, caller),
        list({fact.team_id for fact in facts}),
        list({fact.household_id for fact in facts} - {None}),
        *(zip(*stays, strict=True) if stays else ((), (), ())),
        list({fact.service_type for fact in facts}),
        *((campaigns, *spots) if campaigns else ()),
    )
    found = References()
    teams, households = (
        caller.reach(permission)
        for permission in (Permission.events_write, Permission.households_read)
    )
    for row in rows:
        kind, id_, other_id, first, last, name, unit, commune, province = row
        if kind == "home":
            team = Team(id_, other_id, unit, commune, province, first, last)
            if teams.covers(team, id_):
                found.teams[id_] = team
        elif kind == "house":
            if households.covers(Spot(unit, commune, province)):
                found.households.add(id_)
        elif kind == "stranger":
            found.strangers.add((id_, other_id, first))
        elif kind in {"campaign", "inside"}:
            found.campaigns.learn(row)
        else:  # a service, by its status
            found.services[name] = Service(name, kind, first, last, province)
    await _place(database, facts, found, known)
    return found


async def _place(
    database: Connection, facts: Sequence[Fact], found: References, known: Mapping[Asked, Found]
) -> None:
    """Find where the facts' units, and their teams', lie on the facts' days."""
    wanted: set[Asked] = set()
    for fact in facts:
        if team := found.teams.get(fact.team_id):
            wanted.add((team.unit_id, fact.day))
            if fact.unit_id:
                wanted.add((fact.unit_id, fact.day))
    if any(service.province_key is not None for service in found.services.values()):
        wanted |= {(team.unit_id, clock.today()) for team in found.teams.values()}
    found.places = {asked: known[asked] for asked in wanted if asked in known}
    found.recalled = bool(found.places)
    if lacking := wanted - found.places.keys():
        found.places |= await read_places(database, lacking)
    found.successors = await find_successors(database, found.places.values())


def _spot(row: Mapping[str, Any]) -> Spot:
    return Spot(row["unit_key"], row["commune_key"], row["province_key"])


def event_places(row: Mapping[str, Any]) -> tuple[tuple[Spot, UUID], tuple[Spot, UUID]]:
    """Return where an event lies, and where its team was placed: it is in scope by either."""
    team = row["team_id"]
    home = Spot(row["team_unit_key"], row["team_commune_key"], row["province_key"])
    return (_spot(row), team), (home, team)


def may_write(caller: Caller, home: PlacedRow, team_id: UUID, members: Sequence[UUID]) -> bool:
    """Tell whether the caller may write an event of a team that is placed at `home`.

    By the team's place, as its leader, or as a plain member that took part.
    """
    reach = caller.reach(Permission.events_write)
    if reach.covers(home):
        return True
    leads = any(g.role is Role.team_leader and g.team_id == team_id for g in caller.grants)
    return team_id in reach.teams and (leads or caller.member_id in members)


def _check_service(fact: Fact, team: Team, found: References) -> FieldError | None:
    """Refuse a service of another province (as the tree stands today), or of other days."""
    service = found.services.get(fact.service_type)
    if service is None:
        return FieldError("/service_type", "not_found")
    if service.province_key is not None:
        home = found.places.get((team.unit_id, clock.today()))
        if service.province_key != getattr(home, "province_key", None):
            return FieldError("/service_type", "not_found")
    starts, ends = service.active_from or date.min, service.active_to or date.max
    if not starts <= fact.day <= ends or (service.status == "retired" and not service.active_to):
        return FieldError("/service_type", "service_inactive")
    return None


def _check_team(fact: Fact, team: Team) -> FieldError | None:
    if fact.day < team.founded_on:
        founded = {"founded_on": team.founded_on.isoformat()}
        return FieldError("/occurred_at", "before_founding", founded)
    if team.dissolved_on and fact.day > team.dissolved_on:
        dissolved = {"dissolved_on": team.dissolved_on.isoformat()}
        return FieldError("/occurred_at", "after_dissolution", dissolved)
    return None


def _check_members(fact: Fact, found: References) -> list[FieldError]:
    if not found.strangers:
        return []
    return [
        FieldError(f"/member_ids/{index}", "not_in_team")
        for index, stay in enumerate(fact.stays)
        if stay in found.strangers
    ]


def faults(caller: Caller, fact: Fact, team: Team, found: References) -> list[FieldError]:
    """Return what is wrong with a fact, its place aside."""
    errors = _check_members(fact, found)
    if fact.occurred_at > clock.now() + CLOCK_SKEW:
        errors.append(FieldError("/occurred_at", "in_the_future"))
    where = fact.unit_id or team.unit_id
    campaign = found.campaigns.fault(fact.campaign_id, fact.day, fact.service_type, where)
    errors += filter(None, (_check_team(fact, team), _check_service(fact, team, found), campaign))
    if fact.household_id and fact.household_id not in found.households:
        errors.append(FieldError("/household_id", "not_found"))
    if not errors and not may_write(caller, team, team.id, fact.member_ids):
        errors.append(FieldError("/member_ids", "not_participant"))
    return errors


def locate(fact: Fact, team: Team, found: References) -> Place | Refusal:
    """Return where a fact lies, in its team's province of that day, or why it cannot lie there."""
    unit_id = fact.unit_id or team.unit_id
    where = found.places.get((unit_id, fact.day))
    if not isinstance(where, Place):
        return refusal_of(where, found.successors, "/unit_id")
    home = where if unit_id == team.unit_id else found.places.get((team.unit_id, fact.day))
    province = home.province_key if isinstance(home, (Place, Gone)) else None
    if where.province_key != (team.province_key if province is None else province):
        return ValidationFailed(FieldError("/unit_id", "outside_province"))
    if where.level not in LEVELS:
        expected = {"expected": ", ".join(sorted(LEVELS))}
        return ValidationFailed(FieldError("/unit_id", "wrong_level", expected))
    return where


def judge(caller: Caller, fact: Fact, found: References) -> Refusal | tuple[Team, Place]:
    """Check one fact against what it refers to; return its team and its place, or the refusal."""
    team = found.teams.get(fact.team_id)
    if team is None:
        return not_found_at("/team_id")
    if wrong := faults(caller, fact, team, found):
        return ValidationFailed(*wrong)
    where = locate(fact, team, found)
    return where if isinstance(where, Refusal) else (team, where)
