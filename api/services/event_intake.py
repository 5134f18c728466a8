"""Taking events in: references are checked as sets, then one statement inserts what holds.

A fixed number of statements, whatever the number of events. Facts are validated against the tree
of their own day; the team must be in the caller's write scope.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from pydantic_core import to_jsonable_python
from sqlalchemy import Uuid, text
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
)
from api.models.teams import Team
from api.models.types import Level
from api.services import external_ids
from api.services.places import Asked, Found, Gone, Place, find_places, find_successors, refusal_of

RESOURCE = "support_events"
LEVELS = frozenset({Level.village, Level.commune})
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


async def _gather(session: AsyncSession, caller: Caller, facts: Sequence[Fact]) -> References:
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


def _faults(caller: Caller, fact: Fact, team: Team, found: References) -> list[FieldError]:
    """Return what is wrong with a fact, its place aside."""
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
    return errors


def _locate(fact: Fact, team: Team, found: References) -> Place | Refusal:
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


def _judge(caller: Caller, fact: Fact, found: References) -> Refusal | tuple[Team, Place]:
    """Check one fact against what it refers to; return its team and its place, or the refusal."""
    team = found.teams.get(fact.team_id)
    if team is None:
        return not_found_at("/team_id")
    if faults := _faults(caller, fact, team, found):
        return ValidationFailed(*faults)
    where = _locate(fact, team, found)
    return where if isinstance(where, Refusal) else (team, where)


def _hashed(caller: Caller, beneficiary: Beneficiary | None) -> bytes | None:
    identifier = beneficiary and beneficiary.identifier
    return caller.secrets.hash_beneficiary(identifier) if identifier else None


def _columns(caller: Caller, given: SupportEventCreate, team: Team, where: Place) -> dict[str, Any]:
    """Return the columns of a new event, record-keeping aside."""
    who = given.beneficiary
    return (
        given.model_dump(exclude={"id", "beneficiary", "unit_id"})
        | where.columns()
        | {
            "team_unit_key": team.unit_key,
            "team_commune_key": team.commune_key,
            "beneficiary_age_band": who and who.age_band,
            "beneficiary_gender": who and who.gender,
            "beneficiary_hash": _hashed(caller, who),
            "status": EventStatus.submitted,
        }
    )


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
    """Insert what holds; return each event as it is now and whether it is new, or its refusal.

    What was accepted before is not judged again: a team may have been dissolved since.
    """
    row_ids = [item.id or ids.new_id() for item in given]
    contents = [caller.secrets.hash_content(item.model_dump(exclude={"id"})) for item in given]
    known = await _contents(session, row_ids)
    fresh = [index for index, row_id in enumerate(row_ids) if row_id not in known]
    facts = {index: _fact(given[index]) for index in fresh}
    found = await _gather(session, caller, list(facts.values())) if facts else References()
    outcomes: dict[int, Refusal] = {}
    rows: dict[UUID, dict[str, Any]] = {}
    now = clock.now()
    for index, fact in facts.items():
        judged = _judge(caller, fact, found)
        if isinstance(judged, Refusal):
            outcomes[index] = judged
        elif row_ids[index] not in rows:  # the second of a pair with one id finds the first below
            rows[row_ids[index]] = _columns(caller, given[index], *judged) | {
                "id": row_ids[index],
                "version": 1,
                "created_at": now,
                "updated_at": now,
                "created_by": caller.id,
                "content_hash": contents[index],
            }
    made, refused = await _insert(session, caller, rows)
    wanted = [row_id for index, row_id in enumerate(row_ids) if index not in outcomes]
    statement = select(SupportEvent).where(col(SupportEvent.id).in_(wanted))
    events = {event.id: event for event in await session.scalars(statement)}
    result: list[Taken | Refusal] = []
    for index, (row_id, content) in enumerate(zip(row_ids, contents, strict=True)):
        if index in outcomes:
            result.append(outcomes[index])
        elif row_id in refused:
            result.append(refused[row_id])
        elif row_id not in events or events[row_id].content_hash != content:
            result.append(IdConflict())
        else:
            result.append((events[row_id], row_id in made))
            made.discard(row_id)
    return result


async def _contents(session: AsyncSession, row_ids: Collection[UUID]) -> set[UUID]:
    """Return which of the ids are events that the caller can see."""
    statement = select(SupportEvent.id).where(col(SupportEvent.id).in_(row_ids))
    return set(await session.scalars(statement))


_NAMES = """
    id, version, created_at, updated_at, created_by, content_hash, unit_id, unit_key, commune_key,
    province_key, team_id, team_unit_key, team_commune_key, member_ids, household_id, service_type,
    occurred_at, quantity, outcome, mode, channel, status, beneficiary_age_band,
    beneficiary_gender, beneficiary_hash, lat, lon, note, external_ids
"""
_INSERT = text(f"""
    insert into support_event ({_NAMES})
    select {_NAMES} from json_populate_recordset(null::support_event, cast(:rows as json))
    order by id
    on conflict (id) do nothing
    returning id
""").columns(id=Uuid)  # noqa: S608 - constants
"""Rows go in as one JSON text (500 times 29 parameters cost more than the insert itself), in the
order of their ids, so that no two sets wait for each other."""


def _as_json(rows: Collection[dict[str, Any]]) -> str:
    plain = to_jsonable_python(
        [{**row, "content_hash": None, "beneficiary_hash": None} for row in rows]
    )
    for row, written in zip(rows, plain, strict=True):
        for name in ("content_hash", "beneficiary_hash"):
            written[name] = None if row[name] is None else rf"\x{row[name].hex()}"
    return json.dumps(plain, ensure_ascii=False)


async def _insert(
    session: AsyncSession, caller: Caller, rows: dict[UUID, dict[str, Any]]
) -> tuple[set[UUID], dict[UUID, Refusal]]:
    """Insert rows whose id is free; return the new ones, and why others were not taken.

    A row whose external id is another's must not stay: the savepoint is rolled back and the rest
    inserted again.
    """
    refused: dict[UUID, Refusal] = {}
    while rows:
        async with session.begin_nested() as savepoint:
            made = set(await session.scalars(_INSERT, {"rows": _as_json(rows.values())}))
            named = {row_id: rows[row_id]["external_ids"] for row_id in made}
            taken = await external_ids.claim_all(session, caller, RESOURCE, named)
            if not taken:
                return made, refused
            await savepoint.rollback()
        refused |= taken
        rows = {row_id: row for row_id, row in rows.items() if row_id not in taken}
    return set(), refused


_DEPENDS: Mapping[str, frozenset[str]] = {
    "household_id": frozenset({"household_id"}),
    "service_type": frozenset({"service_type", "occurred_at"}),
    "member_ids": frozenset({"member_ids", "occurred_at"}),
    "occurred_at": frozenset({"occurred_at"}),
}
"""Field at fault -> the fields whose correction brings it up again."""


async def check_correction(
    session: AsyncSession, caller: Caller, event: SupportEvent, values: Mapping[str, Any]
) -> dict[str, Any]:
    """Check corrected values as those of a new event; return the columns of its place if it moved.

    What is not corrected is not judged again: a household may have been hidden since.
    """
    wanted = event.model_dump() | dict(values)
    fact = Fact(
        event.team_id,
        wanted["member_ids"],
        wanted["unit_id"],
        wanted["household_id"],
        wanted["service_type"],
        wanted["occurred_at"],
    )
    found = await _gather(session, caller, [fact])
    team = found.teams.get(event.team_id)
    if team is None:
        raise not_found_at("/team_id")
    faults = [
        fault
        for fault in _faults(caller, fact, team, found)
        if _DEPENDS[fault.pointer.split("/")[1]] & set(values)
    ]
    if faults:
        raise ValidationFailed(*faults)
    if "unit_id" not in values and fact.day == event.occurred_on:
        return {}
    where = _locate(fact, team, found)
    if isinstance(where, Refusal):
        raise where
    return where.columns()


def corrected_beneficiary(caller: Caller, given: Beneficiary | None) -> dict[str, Any]:
    """Return the columns that a merge patch (RFC 7396) of the beneficiary sets."""
    sent = Beneficiary.model_fields.keys() if given is None else given.model_fields_set
    columns = {
        "age_band": ("beneficiary_age_band", given and given.age_band),
        "gender": ("beneficiary_gender", given and given.gender),
        "identifier": ("beneficiary_hash", _hashed(caller, given)),
    }
    return dict(columns[name] for name in sent)
