"""Taking events in: references are checked as sets, then one statement inserts what holds.

A fixed number of statements, whatever the number of events. Facts are validated against the tree
of their own day; the team must be in the caller's write scope.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from api import clock, ids
from api.auth.caller import Caller
from api.auth.permissions import Permission
from api.auth.scope import PlacedRow, visible
from api.clock import reporting_day
from api.errors import FieldError, IdConflict, Refusal, ValidationFailed, not_found_at
from api.models.households import Household
from api.models.members import Membership
from api.models.role_grants import Role
from api.models.service_types import ServiceType
from api.models.support_events import (
    Beneficiary,
    EventStatus,
    SupportEvent,
    SupportEventCreate,
    SupportEventUpdate,
)
from api.models.teams import Team
from api.services import external_ids
from api.services.places import Asked, Place, find_places, refusal_of

CLOCK_SKEW = timedelta(hours=24)
"""How far ahead a phone's clock may run before its events are refused."""


class Home(NamedTuple):
    """Where a team is placed."""

    unit_key: int
    commune_key: int | None
    province_key: int | None


type Taken = tuple[SupportEvent, bool]


@dataclass
class References:
    """What a set of events refers to, as far as the caller may refer to it."""

    teams: dict[UUID, Team] = field(default_factory=dict)
    households: set[UUID] = field(default_factory=set)
    services: dict[str, ServiceType] = field(default_factory=dict)
    stays: dict[tuple[UUID, UUID], list[tuple[date, date]]] = field(default_factory=dict)
    places: dict[Asked, Place | date | str] = field(default_factory=dict)


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


async def _gather(session: AsyncSession, caller: Caller, facts: Sequence[Fact]) -> References:
    """Read all that the facts refer to: five statements whatever their number."""
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
    found.places = await find_places(session, asked)
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


def _check_service(fact: Fact, service: ServiceType | None) -> FieldError | None:
    if service is None:
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


async def _place(
    session: AsyncSession, caller: Caller, fact: Fact, found: References
) -> Refusal | tuple[Team, Place]:
    """Check one fact against what it refers to; return its team and its place, or the refusal."""
    team = found.teams.get(fact.team_id)
    if team is None:
        return not_found_at("/team_id")
    errors = _check_members(fact, found)
    if fact.occurred_at > clock.now() + CLOCK_SKEW:
        errors.append(FieldError("/occurred_at", "in_the_future"))
    errors += filter(
        None,
        (_check_team(fact, team), _check_service(fact, found.services.get(fact.service_type))),
    )
    if fact.household_id and fact.household_id not in found.households:
        errors.append(FieldError("/household_id", "not_found"))
    if not errors and not may_write(caller, team, team.id, fact.member_ids):
        errors.append(FieldError("/member_ids", "not_participant"))
    if errors:
        return ValidationFailed(*errors)
    unit_id = fact.unit_id or team.unit_id
    where = found.places.get((unit_id, fact.day))
    if refusal := await refusal_of(session, unit_id, where, "/unit_id"):
        return refusal
    home = found.places.get((team.unit_id, fact.day))
    province = home.province_key if isinstance(home, Place) else team.province_key
    if not isinstance(where, Place) or (isinstance(home, Place) and where.province_key != province):
        return ValidationFailed(FieldError("/unit_id", "outside_province"))
    if where.level not in {"village", "commune"}:
        expected = {"expected": "commune, village"}
        return ValidationFailed(FieldError("/unit_id", "wrong_level", expected))
    return team, where


def _columns(
    caller: Caller, team: Team, where: Place, beneficiary: Beneficiary | None
) -> dict[str, Any]:
    identifier = beneficiary and beneficiary.identifier
    return where.columns() | {
        "team_unit_key": team.unit_key,
        "team_commune_key": team.commune_key,
        "beneficiary_age_band": beneficiary and beneficiary.age_band,
        "beneficiary_gender": beneficiary and beneficiary.gender,
        "beneficiary_hash": caller.secrets.hash_beneficiary(identifier) if identifier else None,
    }


def _fact(given: SupportEventCreate) -> Fact:
    return Fact(
        given.team_id,
        given.member_ids,
        given.unit_id,
        given.household_id,
        given.service_type,
        given.occurred_at,
    )


async def insert_events(
    session: AsyncSession, caller: Caller, given: Sequence[SupportEventCreate]
) -> list[Taken | Refusal]:
    """Insert what holds; return each event as it is now and whether it is new, or its refusal."""
    found = await _gather(session, caller, [_fact(item) for item in given])
    outcomes: list[Taken | Refusal | None] = [None] * len(given)
    rows: dict[UUID, dict[str, Any]] = {}
    row_ids = [item.id or ids.new_id() for item in given]
    contents = [caller.secrets.hash_content(item.model_dump(exclude={"id"})) for item in given]
    now = clock.now()
    for index, (row_id, item) in enumerate(zip(row_ids, given, strict=True)):
        placed = await _place(session, caller, _fact(item), found)
        if isinstance(placed, Refusal):
            outcomes[index] = placed
        elif row_id not in rows:  # the second of a pair with one id finds the first below
            rows[row_id] = {
                **item.model_dump(exclude={"id", "beneficiary", "unit_id"}),
                **_columns(caller, *placed, item.beneficiary),
                "id": row_id,
                "version": 1,
                "created_at": now,
                "updated_at": now,
                "created_by": caller.id,
                "content_hash": contents[index],
                "status": EventStatus.submitted,
            }
    new = await _insert(session, caller, rows)
    wanted = {row_id for row_id, outcome in zip(row_ids, outcomes, strict=True) if outcome is None}
    known = select(SupportEvent).where(col(SupportEvent.id).in_(wanted))
    events = {event.id: event for event in await session.scalars(known)} if wanted else {}
    result: list[Taken | Refusal] = []
    for row_id, content, outcome in zip(row_ids, contents, outcomes, strict=True):
        if outcome is not None:
            result.append(outcome)
        elif row_id in new and isinstance(new[row_id], Refusal):
            result.append(new[row_id])  # type: ignore[arg-type]
        elif row_id not in events or events[row_id].content_hash != content:
            result.append(IdConflict())
        else:
            result.append((events[row_id], new.pop(row_id, None) is True))
    return result


async def _insert(
    session: AsyncSession, caller: Caller, rows: dict[UUID, dict[str, Any]]
) -> dict[UUID, Refusal | bool]:
    """Insert rows whose id is free; return `True` for each new one, or why it was not taken.

    A row whose external id is another's must not stay: the savepoint is rolled back and the rest
    inserted again.
    """
    refused: dict[UUID, Refusal] = {}
    while rows:
        async with session.begin_nested() as savepoint:
            statement = insert(SupportEvent).values(list(rows.values()))
            statement = statement.on_conflict_do_nothing(index_elements=["id"])
            made = set(await session.scalars(statement.returning(col(SupportEvent.id))))
            named = {row_id: rows[row_id]["external_ids"] for row_id in made}
            taken = await external_ids.claim_all(session, caller, "support_events", named)
            if not taken:
                return refused | dict.fromkeys(made, True)
            await savepoint.rollback()
        refused |= taken
        rows = {row_id: row for row_id, row in rows.items() if row_id not in taken}
    return dict(refused)


async def correct(
    session: AsyncSession,
    caller: Caller,
    event: SupportEvent,
    values: dict[str, Any],
    change: SupportEventUpdate,
) -> None:
    """Apply a correction to a locked event, after the checks that a new one passes."""
    wanted = event.model_dump() | values
    fact = Fact(
        event.team_id,
        wanted["member_ids"],
        wanted["unit_id"],
        wanted["household_id"],
        wanted["service_type"],
        wanted["occurred_at"],
    )
    found = await _gather(session, caller, [fact])
    placed = await _place(session, caller, fact, found)
    if isinstance(placed, Refusal):
        raise placed
    columns = _columns(caller, *placed, change.beneficiary)
    if "beneficiary" not in change.model_fields_set:
        columns = {k: v for k, v in columns.items() if not k.startswith("beneficiary")}
    for name, value in (values | columns).items():
        if name != "beneficiary":
            setattr(event, name, value)
