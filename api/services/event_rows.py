"""Events as rows: the hot statements that read and insert them."""

import json
from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

from pydantic_core import to_json

from api.auth.caller import Caller
from api.driver import ENTERED, Connection

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
select e.* from entered cross join lateral (
    select {_NAMES}, deleted_at from support_event
    where id = any ($3::uuid[]) and entered.scopes is not null offset 0) e
"""  # noqa: S608 - constants


def _insert_from(source: str) -> str:
    return f"""
        {ENTERED}
        insert into support_event ({_NAMES})
        select {_NAMES} from entered cross join {source}
        where entered.scopes is not null
        order by id
        on conflict (id) do nothing
        returning id
    """  # noqa: S608 - constants


_VALUES = ", ".join(f"${n}::{kind}" for n, kind in enumerate(_TYPES.values(), start=3))
_INSERT_ONE = _insert_from(f"(values ({_VALUES})) as given ({_NAMES})")
_INSERT = _insert_from("json_populate_recordset(null::support_event, $3::json)")
"""Rows go in as one JSON text (500 times 30 parameters cost more than the insert itself), in the
order of their ids, so that no two sets wait for each other. One row alone goes in as values: making
sense of the JSON would cost as much as its insert."""


async def read(
    database: Connection, caller: Caller, event_ids: Collection[UUID]
) -> dict[UUID, dict[str, Any]]:
    """Return the events that row-level security shows the caller, hidden ones among them."""
    if not event_ids:
        return {}
    rows = await database.fetch(_READ, caller.scopes, caller.context, list(event_ids))
    return {row["id"]: dict(row) for row in rows}


async def insert(
    database: Connection, caller: Caller, rows: Collection[Mapping[str, Any]]
) -> set[UUID]:
    """Insert the rows whose ids are free; return these."""
    if len(rows) == 1:
        (row,) = rows
        values = [row[name] for name in _TYPES][:-1]
        names = json.dumps(row["external_ids"])
        made = await database.fetch(_INSERT_ONE, caller.scopes, caller.context, *values, names)
        return {row["id"] for row in made}
    plain = [
        {
            **row,
            "content_hash": _hex(row["content_hash"]),
            "beneficiary_hash": _hex(row["beneficiary_hash"]),
        }
        for row in rows
    ]
    written = to_json(plain).decode()
    made = await database.fetch(_INSERT, caller.scopes, caller.context, written)
    return {row["id"] for row in made}


def _hex(value: bytes | None) -> str | None:
    return None if value is None else rf"\x{value.hex()}"
