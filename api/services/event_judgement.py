"""Whether an event may refer to what it refers to, and lie where it lies, on its day."""

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any
from uuid import UUID

from api import clock
from api.auth.caller import Caller
from api.auth.permissions import Permission
from api.auth.scope import PlacedRow, Spot, spot_of
from api.errors import FieldError, Refusal, ValidationFailed, not_found_at
from api.models.role_grants import Role
from api.models.types import Level
from api.services.event_references import Fact, References, Team
from api.services.places import Gone, Place, refusal_of

LEVELS = frozenset({Level.village, Level.commune})
CLOCK_SKEW = timedelta(hours=24)
"""How far ahead a phone's clock may run before its events are refused."""


def event_places(row: Mapping[str, Any]) -> tuple[tuple[Spot, UUID], tuple[Spot, UUID]]:
    """Return where an event lies, and where its team was placed: it is in scope by either."""
    team = row["team_id"]
    home = Spot(row["team_unit_key"], row["team_commune_key"], row["province_key"])
    return (spot_of(row), team), (home, team)


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
