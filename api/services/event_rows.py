"""Events as rows: the hot statements that read and insert them."""

from collections.abc import Collection, Mapping
from typing import Any
from uuid import UUID

from pydantic_core import to_json

from api.auth.caller import Caller
from api.driver import ENTERED, Connection

_NAMES = """
    id, version, created_at, updated_at, created_by, content_hash, unit_id, unit_key, commune_key,
    province_key, team_id, team_unit_key, team_commune_key, member_ids, household_id, service_type,
    occurred_at, quantity, outcome, mode, channel, status, beneficiary_age_band,
    beneficiary_gender, beneficiary_hash, beneficiary_key, lat, lon, note, external_ids
"""
_READ = f"""
{ENTERED}
select e.* from entered cross join lateral (
    select {_NAMES}, deleted_at from support_event
    where id = any ($3::uuid[]) and entered.scopes is not null offset 0) e
"""  # noqa: S608 - constants
_INSERT = f"""
{ENTERED}
insert into support_event ({_NAMES})
select {_NAMES}
from entered cross join json_populate_recordset(null::support_event, $3::json)
where entered.scopes is not null
order by id
on conflict (id) do nothing
returning id
"""  # noqa: S608 - constants
"""Rows go in as one JSON text (500 times 29 parameters cost more than the insert itself), in the
order of their ids, so that no two sets wait for each other."""


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
