"""Taking events in: what they refer to is checked as sets, then one statement inserts what holds.

A fixed number of statements, whatever the number of events.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from api import clock, ids
from api.auth.caller import Caller
from api.driver import Connection, attempt, connection_of
from api.errors import IdConflict, Refusal, ValidationFailed, not_found_at
from api.models.support_events import (
    Beneficiary,
    EventStatus,
    SupportEvent,
    SupportEventCreate,
)
from api.services import event_rows, external_ids
from api.services.event_judgement import faults, judge, locate
from api.services.event_references import Fact, References, Team, gather
from api.services.event_rows import NewEvent
from api.services.places import Place, known_places
from api.services.writing import said_by

RESOURCE = "support_events"

type Row = Mapping[str, Any]
type Taken = tuple[Row, bool]
"""An event as it is now, and whether it is new; of a new one of a set, what it did not say."""


def _hashed(caller: Caller, beneficiary: Beneficiary | None) -> bytes | None:
    identifier = beneficiary and beneficiary.identifier
    return caller.secrets.hash_beneficiary(identifier) if identifier else None


class _Item(NamedTuple):
    """An event on its way in: what it says, and the keyed hash of that."""

    given: SupportEventCreate
    row_id: UUID
    said: bytes
    content: bytes
    fact: Fact


def _item(caller: Caller, given: SupportEventCreate) -> _Item:
    said = said_by(given)
    content = caller.secrets.hash_written(said)
    return _Item(given, given.id or ids.new_id(), said, content, _fact(given))


def _common(caller: Caller) -> dict[str, Any]:
    """Return the columns that are the same for all new events of a request."""
    now = clock.now()
    return {
        "created_at": now,
        "updated_at": now,
        "created_by": caller.id,
        "beneficiary_key": caller.secrets.generation,
        "status": EventStatus.submitted,
    }


def _found(caller: Caller, item: _Item, team: Team, where: Place) -> dict[str, Any]:
    """Return the columns of a new event that are neither said by it nor common to all."""
    columns = where.columns() | {
        "id": item.row_id,
        "version": 1,
        "content_hash": item.content,
        "team_unit_key": team.unit_key,
        "team_commune_key": team.commune_key,
    }
    if who := item.given.beneficiary:
        columns["beneficiary_age_band"] = who.age_band
        columns["beneficiary_gender"] = who.gender
        columns["beneficiary_hash"] = _hashed(caller, who)
    return columns


def _fact(given: SupportEventCreate) -> Fact:
    return Fact(
        given.team_id,
        given.member_ids,
        given.unit_id,
        given.household_id,
        given.service_type,
        given.occurred_at,
        given.campaign_id,
    )


async def insert_events(
    database: Connection, caller: Caller, given: Sequence[SupportEventCreate]
) -> list[Taken | Refusal]:
    """Insert what holds; return each event as it is now and whether it is new, or its refusal.

    What was accepted before stays so, though a team may have been dissolved since. Where units lie
    is known from former requests, as long as the tree is the one that they read; what was refused
    by it is judged once more, by the tree as it stands. A fixed number of statements, whatever the
    number of events (two for new ones without external ids, of known places).
    """
    items = [_item(caller, each) for each in given]
    tree = caller.tree.version
    found = await gather(database, caller, [item.fact for item in items], known_places(tree))
    outcomes = await _take(database, caller, items, found, tree if found.recalled else None)
    refused = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, Refusal)]
    if refused and found.recalled:
        left = [items[n] for n in refused]
        found = await gather(database, caller, [item.fact for item in left], {})
        again = await _take(database, caller, left, found, None)
        for n, outcome in zip(refused, again, strict=True):
            outcomes[n] = outcome
    return outcomes


async def _take(
    database: Connection,
    caller: Caller,
    items: Sequence[_Item],
    references: References,
    tree: UUID | None,
) -> list[Taken | Refusal]:
    """Judge events by what they refer to, and insert what holds if the tree still stands."""
    refusals: dict[int, Refusal] = {}
    new: dict[UUID, NewEvent] = {}
    for index, item in enumerate(items):
        judged = judge(caller, item.fact, references)
        if isinstance(judged, Refusal):
            refusals[index] = judged
        elif item.row_id not in new:  # the second of a pair with one id finds the first below
            found = _found(caller, item, *judged)
            new[item.row_id] = NewEvent(item.given, item.said, found)
    made, refused = await _insert(database, caller, new, tree)
    doubtful = _unsettled(new, made, refused) | {items[index].row_id for index in refusals}
    known = await event_rows.read(database, caller, doubtful) | made
    result: list[Taken | Refusal] = []
    for index, item in enumerate(items):
        row = known.get(item.row_id)
        if row is not None and row["content_hash"] == item.content:
            result.append((row, item.row_id in made))
            made.pop(item.row_id, None)
        elif row is None and index in refusals:
            result.append(refusals[index])
        elif row is None and item.row_id in refused:
            result.append(refused[item.row_id])
        else:
            result.append(IdConflict())
    return result


def _unsettled(rows: Mapping[UUID, Any], *settled: Mapping[UUID, Any]) -> set[UUID]:
    """Return the rows of which nothing is known: their ids were taken before, or just now."""
    if sum(map(len, settled)) == len(rows):
        return set()
    return set(rows).difference(*settled)


async def _insert(
    database: Connection,
    caller: Caller,
    new: Mapping[UUID, NewEvent],
    tree: UUID | None,
) -> tuple[dict[UUID, Row], dict[UUID, Refusal]]:
    """Insert events whose id is free; return the new rows, and why others were not taken.

    A row whose external id is another's must not stay: all are undone, and the rest inserted
    again.
    """
    refused: dict[UUID, Refusal] = {}
    common = _common(caller)
    while new:
        named = {row_id: e.given.external_ids for row_id, e in new.items() if e.given.external_ids}
        if not named:
            return await event_rows.insert(database, caller, common, new.values(), tree), refused
        try:
            return await _insert_named(database, caller, common, new, named, tree), refused
        except _TakenError as error:
            refused |= error.rows
            new = {row_id: event for row_id, event in new.items() if row_id not in refused}
    return {}, refused


class _TakenError(Exception):
    """Some external ids are others': what was attempted is undone."""

    def __init__(self, rows: Mapping[UUID, Refusal]) -> None:
        super().__init__()
        self.rows = rows


async def _insert_named(
    database: Connection,
    caller: Caller,
    common: dict[str, Any],
    new: Mapping[UUID, NewEvent],
    named: Mapping[UUID, Mapping[str, str]],
    tree: UUID | None,
) -> dict[UUID, Row]:
    """Insert rows with their external ids, all or, if any of these is taken, none."""
    async with attempt(database) as within:
        made = await event_rows.insert(within, caller, common, new.values(), tree)
        mine = {row_id: names for row_id, names in named.items() if row_id in made}
        if taken := await external_ids.claim_all(within, caller, RESOURCE, mine):
            raise _TakenError(taken)
        return made


_DEPENDS: Mapping[str, frozenset[str]] = {
    "household_id": frozenset({"household_id"}),
    "service_type": frozenset({"service_type", "occurred_at"}),
    "member_ids": frozenset({"member_ids", "occurred_at"}),
    "occurred_at": frozenset({"occurred_at"}),
    "campaign_id": frozenset({"campaign_id", "occurred_at", "service_type", "unit_id"}),
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
        wanted["campaign_id"],
    )
    found = await gather(await connection_of(session), caller, [fact], {})
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


def is_same_person(caller: Caller, event: SupportEvent, given: Beneficiary | None) -> bool:
    """Tell whether an identifier is the event's own, whatever generation its hash is of."""
    if given is None or given.identifier is None or event.beneficiary_hash is None:
        return False
    hashes = caller.secrets.hash_generations(given.identifier)
    return hashes[event.beneficiary_key :][:1] == [event.beneficiary_hash]


def corrected_beneficiary(caller: Caller, given: Beneficiary | None) -> dict[str, Any]:
    """Return the columns that a merge patch (RFC 7396) of the beneficiary sets."""
    sent = Beneficiary.model_fields.keys() if given is None else given.model_fields_set
    columns = {
        "age_band": ("beneficiary_age_band", given and given.age_band),
        "gender": ("beneficiary_gender", given and given.gender),
        "identifier": ("beneficiary_hash", _hashed(caller, given)),
    }
    return dict(columns[name] for name in sent)
