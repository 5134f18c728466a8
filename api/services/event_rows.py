"""Events as rows: the hot statements that read and insert them."""

import json
from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple
from uuid import UUID

from pydantic_core import to_json

from api.auth.caller import Caller, entering
from api.auth.permissions import OF_EVENTS
from api.driver import ENTERED, Connection
from api.models.support_events import SupportEventCreate
from api.services.event_duplicates import COLUMNS, earliest, own_of
from api.services.writing import said_by

_TYPES = {
    "id": "uuid",
    "version": "integer",
    "created_at": "timestamptz",
    "updated_at": "timestamptz",
    "created_by": "uuid",
    "content_hash": "bytea",
    "unit_id": "uuid",
    "unit_key": "integer",
    "commune_key": "integer",
    "province_key": "integer",
    "team_id": "uuid",
    "team_unit_key": "integer",
    "team_commune_key": "integer",
    "member_ids": "uuid[]",
    "household_id": "uuid",
    "campaign_id": "uuid",
    "service_type": "text",
    "occurred_at": "timestamptz",
    "quantity": "integer",
    "outcome": "text",
    "mode": "text",
    "channel": "text",
    "status": "text",
    "beneficiary_age_band": "text",
    "beneficiary_gender": "text",
    "beneficiary_hash": "bytea",
    "beneficiary_key": "smallint",
    "lat": "float8",
    "lon": "float8",
    "note": "text",
    "external_ids": "jsonb",
}
_NAMES = ", ".join(_TYPES)
_READ = f"""
{ENTERED}
select e.*, twin.id as possible_duplicate_of from entered cross join lateral (
    select {_NAMES}, deleted_at, occurred_on from support_event
    where id = any ($3::uuid[]) and entered.scopes is not null offset 0) e
left join lateral ({earliest("$4")}) twin on true
"""  # noqa: S608 - constants


def _insert_from(source: str, tree: int, returning: str = "id") -> str:
    """Return the insert; the parameter `tree` is the version that the places are of, if known."""
    return f"""
        insert into support_event ({_NAMES})
        select {_NAMES} from entered cross join {source}
        where entered.scopes is not null
          and (${tree}::uuid is null or ${tree} = (select version from tree))
        order by id
        on conflict (id) do nothing
        returning {returning}
    """  # noqa: S608 - constants


_VALUES = ", ".join(f"${n}::{kind}" for n, kind in enumerate(_TYPES.values(), start=3))
_ONE = f"(values ({_VALUES})) as given ({_NAMES})"
_INSERT_ONE = ENTERED + _insert_from(_ONE, len(_TYPES) + 3)
_INSERT_NAMED = f"""
{ENTERED}, e as ({_insert_from(_ONE, len(_TYPES) + 3, COLUMNS)})
select e.id, twin.id as twin from e
left join lateral ({earliest(f"${len(_TYPES) + 4}")}) twin on true
"""  # noqa: S608 - constants
_HASHES: Final = {"content_hash", "beneficiary_hash"}
_NOBODY: Final = dict.fromkeys(("beneficiary_age_band", "beneficiary_gender", "beneficiary_hash"))
_DEFAULTS: Final = {
    name: field.get_default(call_default_factory=True)
    for name, field in SupportEventCreate.model_fields.items()
    if not field.is_required()
}
_SET = f"""(
    select {_NAMES}
    from json_populate_recordset(
        json_populate_record(null::support_event, $4::json), $3::json)) as given
"""  # noqa: S608 - constants
_INSERT = ENTERED + _insert_from(_SET, 5)
"""Rows go in as one JSON text (500 times 30 parameters cost more than the insert itself), in the
order of their ids, so that no two sets wait for each other. What a row lacks is as the one in $4.
One row alone goes in as values: making sense of the JSON would cost as much as its insert. One that
names a household or a person is told of its possible duplicate; a set, whose answers show no
events, is not."""


class NewEvent(NamedTuple):
    """An event to insert: what it says, also as JSON (`said_by`), and what was found besides."""

    given: SupportEventCreate
    said: bytes
    found: dict[str, Any]

    def row(self, common: dict[str, Any]) -> dict[str, Any]:
        """Return the row, with the columns that are `common` to all."""
        return _NOBODY | vars(self.given) | common | self.found

    def json(self) -> bytes:
        """Return the row as JSON, without what is common to all or left out.

        Of two members with one name the database takes the latter. (The driver's own kind of id is
        written six times as fast as text.)
        """
        said = said_by(self.given, "beneficiary") if self.given.beneficiary else self.said
        found = self.found | {"unit_id": str(self.found["unit_id"])}
        for name in _HASHES & found.keys():
            found[name] = found[name] and rf"\x{found[name].hex()}"
        return said[:-1] + b"," + to_json(found)[1:]


async def read(
    database: Connection, caller: Caller, event_ids: Collection[UUID]
) -> dict[UUID, dict[str, Any]]:
    """Return the events that row-level security shows the caller, hidden ones among them."""
    if not event_ids:
        return {}
    entered = entering(database, caller, OF_EVENTS)
    rows = await database.fetch(_READ, *entered, list(event_ids), own_of(caller))
    return {row["id"]: dict(row) for row in rows}


async def insert(
    database: Connection,
    caller: Caller,
    common: dict[str, Any],
    events: Collection[NewEvent],
    tree: UUID | None,
) -> dict[UUID, Mapping[str, Any]]:
    """Insert the events whose ids are free, with the columns that are `common` to all; return them.

    One alone is the row as it is now, with its possible duplicate; of each of a set, what was found
    about it. None at all when the tree is not of the version `tree` any more, where that is given.
    """
    if len(events) == 1:
        (event,) = events
        row = event.row(common)
        values = [*entering(database, caller, OF_EVENTS), *(row[name] for name in _TYPES), tree]
        values[-2] = json.dumps(row["external_ids"])
        statement = _INSERT_ONE
        if row["household_id"] or row["beneficiary_hash"]:
            statement = _INSERT_NAMED
            values.append(own_of(caller))
        made = await database.fetch(statement, *values)
        return {one["id"]: row | {"possible_duplicate_of": one.get("twin")} for one in made}
    made = await database.fetch(
        _INSERT,
        *entering(database, caller, OF_EVENTS),
        f"[{b','.join(event.json() for event in events).decode()}]",
        to_json(_DEFAULTS | common).decode(),
        tree,
    )
    found = {event.found["id"]: event.found for event in events}
    return {one["id"]: found[one["id"]] for one in made}
