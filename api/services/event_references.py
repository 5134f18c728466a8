"""What events refer to, and whether they may: teams, members, places, services, households.

References are read as sets, in a fixed number of statements; facts are judged against the tree of
their own day.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from api import clock
from api.auth.caller import Caller
from api.auth.permissions import Permission
from api.auth.scope import PlacedRow, visible
from api.clock import reporting_day
from api.errors import FieldError, Refusal, ValidationFailed, not_found_at
from api.models.households import Household
from api.models.members import Membership
from api.models.role_grants import Role
from api.models.service_types import ServiceType
from api.models.support_events import SupportEvent
from api.models.teams import Team
from api.models.types import Level
from api.services.places import Asked, Found, Gone, Place, find_places, find_successors, refusal_of

LEVELS = frozenset({Level.village, Level.commune})
CLOCK_SKEW = timedelta(hours=24)
"""How far ahead a phone's clock may run before its events are refused."""


class Home(NamedTuple):
    """Where a team is placed."""

    unit_key: int
    commune_key: int | None
    province_key: int | None


@dataclass
class References:
    """What a set of events refers to, as far as the caller may refer to it."""

    teams: dict[UUID, Team] = field(default_factory=dict)
    households: set[UUID] = field(default_factory=set)
    services: dict[str, ServiceType] = field(default_factory=dict)
    stays: dict[tuple[UUID, UUID], list[tuple[date, date]]] = field(default_factory=dict)
    places: dict[Asked, Found] = field(default_factory=dict)
    successors: Mapping[UUID, list[dict[str, Any]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Fact:
    """The references of one event, new or corrected."""

    team_id: UUID
    member_ids: Sequence[UUID]
    unit_id: UUID | None
    household_id: UUID | None
    service_type: str
    occurred_at: datetime

    @property
    def day(self) -> date:
        """The reporting day."""
        return reporting_day(self.occurred_at)


async def gather(session: AsyncSession, caller: Caller, facts: Sequence[Fact]) -> References:
    """Read all that the facts refer to: at most six statements, whatever their number."""
    teams = visible(Team, caller, Permission.events_write).where(
        col(Team.id).in_({fact.team_id for fact in facts})
    )
    found = References(teams={team.id: team for team in await session.scalars(teams)})
    if households := {fact.household_id for fact in facts} - {None}:
        known = (
            visible(Household, caller, Permission.households_read)
            .with_only_columns(col(Household.id))
            .where(col(Household.id).in_(households))
        )
        found.households = set(await session.scalars(known))
    services = select(ServiceType).where(
        col(ServiceType.code).in_({fact.service_type for fact in facts}),
        col(ServiceType.deleted_at).is_(None),
    )
    found.services = {service.code: service for service in await session.scalars(services)}
    if members := {member for fact in facts for member in fact.member_ids}:
        stays = select(Membership).where(
            col(Membership.member_id).in_(members), col(Membership.team_id).in_(found.teams)
        )
        for stay in await session.scalars(stays):
            life = (stay.joined_on, stay.left_on or date.max)
            found.stays.setdefault((stay.team_id, stay.member_id), []).append(life)
    asked: set[Asked] = set()
    for fact in facts:
        if team := found.teams.get(fact.team_id):
            asked |= {(fact.unit_id or team.unit_id, fact.day), (team.unit_id, fact.day)}
            asked.add((team.unit_id, clock.today()))
    found.places = await find_places(session, asked)
    found.successors = await find_successors(session, found.places.values())
    return found


def home_of(event: SupportEvent) -> PlacedRow:
    """Return where the event's team was placed, for the scope of writing."""
    return Home(event.team_unit_key, event.team_commune_key, event.province_key)


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
    home = found.places.get((team.unit_id, clock.today()))
    if service is None or service.province_key not in {None, getattr(home, "province_key", None)}:
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
    return [
        FieldError(f"/member_ids/{index}", "not_in_team")
        for index, member in enumerate(fact.member_ids)
        if not any(
            joined <= fact.day <= left
            for joined, left in found.stays.get((fact.team_id, member), ())
        )
    ]


def faults(caller: Caller, fact: Fact, team: Team, found: References) -> list[FieldError]:
    """Return what is wrong with a fact, its place aside."""
    errors = _check_members(fact, found)
    if fact.occurred_at > clock.now() + CLOCK_SKEW:
        errors.append(FieldError("/occurred_at", "in_the_future"))
    errors += filter(None, (_check_team(fact, team), _check_service(fact, team, found)))
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
    home = found.places.get((team.unit_id, fact.day))
    known = isinstance(home, Place | Gone) and home.province_key is not None
    province = home.province_key if isinstance(home, Place | Gone) and known else team.province_key
    if where.province_key != province:
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
