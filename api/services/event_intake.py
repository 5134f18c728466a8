"""Taking events in: what they refer to is checked as sets, then one statement inserts what holds.

A fixed number of statements, whatever the number of events.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

from pydantic_core import to_jsonable_python
from sqlalchemy import Uuid, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from api import clock, ids
from api.auth.caller import Caller
from api.errors import IdConflict, Refusal, ValidationFailed, not_found_at
from api.models.support_events import (
    Beneficiary,
    EventStatus,
    SupportEvent,
    SupportEventCreate,
)
from api.models.teams import Team
from api.services import external_ids
from api.services.event_references import Fact, References, faults, gather, judge, locate
from api.services.places import Place

RESOURCE = "support_events"

type Taken = tuple[SupportEvent, bool]


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
    found = await gather(session, caller, list(facts.values())) if facts else References()
    outcomes: dict[int, Refusal] = {}
    rows: dict[UUID, dict[str, Any]] = {}
    now = clock.now()
    for index, fact in facts.items():
        judged = judge(caller, fact, found)
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
    found = await gather(session, caller, [fact])
    team = found.teams.get(event.team_id)
    if team is None:
        raise not_found_at("/team_id")
    wrong = [
        fault
        for fault in faults(caller, fact, team, found)
        if _DEPENDS[fault.pointer.split("/")[1]] & set(values)
    ]
    if wrong:
        raise ValidationFailed(*wrong)
    if "unit_id" not in values and fact.day == event.occurred_on:
        return {}
    where = locate(fact, team, found)
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
