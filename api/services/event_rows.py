"""Events as rows: the hot statements that read and insert them."""

import json
from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

from pydantic_core import to_json

from api.auth.caller import Caller
from api.driver import ENTERED, Connection, Hot
from api.services.event_duplicates import COLUMNS, earliest, own_of

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
_SHARED = ("version", "created_at", "updated_at", "created_by", "status", "beneficiary_key")
"""The columns that are the same for a whole set."""
_OWN = [name for name in _TYPES if name not in _SHARED]
_HASHES = ("content_hash", "beneficiary_hash")
_WORDS = ("unit_id", "outcome", "mode", "channel")
"""Enums, and the driver's own kind of id, of which JSON is written six times as fast as text."""
_SET = f"""(
    select {", ".join(f"${n}::{_TYPES[name]} as {name}" for n, name in enumerate(_SHARED, 4))},
           {", ".join(_OWN)}
    from json_populate_recordset(null::support_event, $3::json)) as given
"""  # noqa: S608 - constants
_INSERT = ENTERED + _insert_from(_SET, len(_SHARED) + 4)
"""Rows go in as one JSON text (500 times 30 parameters cost more than the insert itself), in the
order of their ids, so that no two sets wait for each other. One row alone goes in as values: making
sense of the JSON would cost as much as its insert. One that names a household or a person is told
of its possible duplicate; a set, whose answers show no events, is not."""


def entering(database: Connection, caller: Caller) -> tuple[str, str]:
    """Return the parameters of `ENTERED` for statements about events.

    A hot one brings no more of the scope than it needs, since the database reads it at each; within
    a transaction the scope lasts for whatever follows.
    """
    hot = isinstance(database, Hot)
    return caller.event_scopes if hot else caller.scopes, caller.context


async def read(
    database: Connection, caller: Caller, event_ids: Collection[UUID]
) -> dict[UUID, dict[str, Any]]:
    """Return the events that row-level security shows the caller, hidden ones among them."""
    if not event_ids:
        return {}
    rows = await database.fetch(_READ, *entering(database, caller), list(event_ids), own_of(caller))
    return {row["id"]: dict(row) for row in rows}


async def insert(
    database: Connection,
    caller: Caller,
    rows: Collection[Mapping[str, Any]],
    tree: UUID | None,
) -> dict[UUID, UUID | None]:
    """Insert the rows whose ids are free; return these, one alone with its possible duplicate.

    None at all when the tree is not of the version `tree` any more, where that is given.
    """
    if len(rows) == 1:
        (row,) = rows
        values = [*entering(database, caller), *(row[name] for name in _TYPES), tree]
        values[-2] = json.dumps(row["external_ids"])
        if row["household_id"] or row["beneficiary_hash"]:
            made = await database.fetch(_INSERT_NAMED, *values, own_of(caller))
            return {one["id"]: one["twin"] for one in made}
        made = await database.fetch(_INSERT_ONE, *values)
        return {one["id"]: None for one in made}
    own = [{name: row[name] for name in _OWN} for row in rows]
    for row in own:
        for name in _HASHES:
            row[name] = _hex(row[name])
        for name in _WORDS:
            row[name] = str(row[name])
    shared = next(iter(rows))
    made = await database.fetch(
        _INSERT,
        *entering(database, caller),
        to_json(own, exclude_none=True).decode(),
        *(shared[name] for name in _SHARED),
        tree,
    )
    return {one["id"]: None for one in made}


def _hex(value: bytes | None) -> str | None:
    return None if value is None else rf"\x{value.hex()}"
