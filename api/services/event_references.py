"""What events refer to: teams, members, places, services, households.

References are read as sets, in a fixed number of statements; `event_judgement` judges by them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, NamedTuple
from uuid import UUID

from api import clock
from api.auth.caller import Caller, entering
from api.auth.permissions import OF_EVENTS, Permission
from api.auth.scope import Spot
from api.clock import reporting_day
from api.driver import ENTERED, Connection
from api.services.event_campaigns import CAMPAIGNS, FOUND, Campaigns
from api.services.places import (
    Asked,
    Found,
    find_successors,
    read_places,
)


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

    places: dict[Asked, Found]
    teams: dict[UUID, Team] = field(default_factory=dict)
    households: set[UUID] = field(default_factory=set)
    services: dict[str, Service] = field(default_factory=dict)
    strangers: set[Stay] = field(default_factory=set)
    """Who was said to have taken part, and was not in the team on that day."""
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
    places: dict[Asked, Found],
) -> References:
    """Read all that the facts refer to, in one statement, and one for places that are not known.

    (A third one tells what became of units that are gone.) `places` are added to.
    """
    campaigns = list({fact.campaign_id for fact in facts} - {None})
    spots = [fact.team_id for fact in facts], [fact.unit_id for fact in facts]
    stays = {stay for fact in facts for stay in fact.stays}
    rows = await database.fetch(
        _GATHER_CAMPAIGNS if campaigns else _GATHER,
        *entering(database, caller, OF_EVENTS),
        list({fact.team_id for fact in facts}),
        list({fact.household_id for fact in facts} - {None}),
        *(zip(*stays, strict=True) if stays else ((), (), ())),
        list({fact.service_type for fact in facts}),
        *((campaigns, *spots) if campaigns else ()),
    )
    found = References(places)
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
    await _place(database, facts, found)
    return found


async def _place(database: Connection, facts: Sequence[Fact], found: References) -> None:
    """Find where the facts' units, and their teams', lie on the facts' days."""
    wanted: set[Asked] = set()
    for fact in facts:
        if team := found.teams.get(fact.team_id):
            wanted.add((team.unit_id, fact.day))
            if fact.unit_id:
                wanted.add((fact.unit_id, fact.day))
    if any(service.province_key is not None for service in found.services.values()):
        wanted |= {(team.unit_id, clock.today()) for team in found.teams.values()}
    lacking = [asked for asked in wanted if asked not in found.places]
    found.recalled = len(lacking) < len(wanted)
    if lacking:
        found.places |= await read_places(database, lacking)
    lying = [place for asked in wanted if (place := found.places.get(asked))]
    found.successors = await find_successors(database, lying)
