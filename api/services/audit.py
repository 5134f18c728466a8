"""The audit: what is read in clear is recorded; what was done can be looked up.

Writes need no call: triggers of the database record them. What a caller is shown of people is
recorded here, in the request's own transaction, so that the answer leaves only once it is kept.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from api import clock
from api.auth.caller import Caller
from api.auth.loading import resolve
from api.auth.permissions import Permission
from api.driver import Connection, Hot
from api.errors import NotFound
from api.models.admin_units import AdminUnit
from api.models.audit_entries import (
    AuditEntry,
    AuditEntryPage,
    AuditEntryQuery,
    AuditEntryRead,
)
from api.models.types import Output, PageQuery
from api.pagination import Order, Source, paginate
from api.services.masking import PERSONAL

# The place of a read is the smallest unit that holds all the rows shown, as the tree stands today.
_READ = """
    with above as (
        select p.level, a.id, a.key
        from admin_unit u
        join placement p on p.unit_key = u.key and p.during @> $1::date
        join admin_unit a on a.key = p.ancestor_key
        where u.id = any($2::uuid[])
        group by p.level, a.id, a.key
        having count(*) = cardinality($2::uuid[])
        union
        select level, id, key from admin_unit where level = 'nation'
    )
    insert into audit_entry (actor_id, grant_id, client_id, session_id, device_id, request_id,
                             action, resource, row_id, ids, query,
                             unit_id, unit_key, commune_key, province_key)
    select $3::uuid, $4::uuid, (said ->> 'client')::uuid, (said ->> 'session')::uuid,
           (said ->> 'device')::uuid, said ->> 'request_id',
           $10::text, $6::text, $7::uuid, $8::uuid[], $9::text::jsonb, place.id, place.key,
           (select key from above where level = 'commune'),
           coalesce((select key from above where level = 'province'), place.key)
    from cast($5::text as jsonb) said
    cross join (
        select id, key from above
        order by array_position(array['village', 'commune', 'province'], level) limit 1) place
"""
READINGS = """
    insert into audit_entry (actor_id, grant_id, client_id, session_id, device_id, request_id,
                             action, resource, row_id, ids,
                             unit_id, unit_key, commune_key, province_key)
    select actor_id, grant_id, (said ->> 'client')::uuid, (said ->> 'session')::uuid,
           (said ->> 'device')::uuid, said ->> 'request_id', 'read', resource, row_id,
           array[row_id], unit_id, unit_key, commune_key, province_key
    from json_to_recordset($1::json) as r (
        said json, actor_id uuid, grant_id uuid, resource text, row_id uuid, unit_id uuid,
        unit_key integer, commune_key integer, province_key integer)
"""
"""Keeps rows that were shown one by one, many readers' at once."""
PEOPLE_READS = (
    Permission.people_read,
    Permission.own_people_read,
    Permission.names_read,
    Permission.subjects_write,
)
PLACE = ("unit_key", "commune_key", "province_key")
_WORDS = {"q"}
"""Filters whose text is personal: only that they were used is kept."""


async def record_read(
    database: Connection,
    caller: Caller,
    resource: str,
    shown: Sequence[tuple[Output, UUID | None]],
    query: PageQuery | None = None,
) -> None:
    """Record which rows were shown with personal fields in clear, in one entry; none for none.

    `shown` has each row with its unit, as it goes out; `query` is a list's.
    """
    clear = [(row, unit) for row, unit in shown if _tells(resource, row)]
    if not clear:
        return
    units = {unit for _, unit in clear if unit}
    told = _told(query) if query else None
    await _record(database, caller, "read", resource, [row.id for row, _ in clear], units, told)


async def record_rows(
    database: Connection,
    caller: Caller,
    resource: str,
    shown: Sequence[Mapping[str, Any]],
    query: PageQuery,
) -> None:
    """Record a list's rows that were shown in clear, as `record_read` does: here values, as shown.

    Each has its `id` and `unit_id`.
    """
    personal = PERSONAL[resource]
    clear = [row for row in shown if any(row[name] is not None for name in personal)]
    if clear:
        units = {row["unit_id"] for row in clear}
        rows = [row["id"] for row in clear]
        await _record(database, caller, "read", resource, rows, units, _told(query))


async def record_one(
    database: Hot, caller: Caller, resource: str, shown: Output, row: Mapping[str, Any]
) -> None:
    """Record that one row was shown in clear, together with what others are shown meanwhile."""
    if _tells(resource, shown):
        grant = caller.grant(*PEOPLE_READS)
        place = {name: row[name] for name in ("unit_id", *PLACE)}
        await database.readings.add(
            place
            | {
                "said": caller.said,
                "actor_id": caller.id,
                "grant_id": grant.id if grant else None,
                "resource": resource,
                "row_id": shown.id,
            }
        )


def _told(query: PageQuery) -> str | None:
    """Return a list's filters, without words."""
    filters = query.model_dump(
        mode="json", exclude_defaults=True, exclude={"cursor", "limit", "include_total"}
    )
    return json.dumps({k: k in _WORDS or v for k, v in filters.items()}) if filters else None


async def record_export(
    database: Connection, caller: Caller, resource: str, row_id: UUID, unit: UUID
) -> None:
    """Record that everything about a person was handed out."""
    await _record(database, caller, "export", resource, [row_id], {unit}, None)


async def _record(
    database: Connection,
    caller: Caller,
    action: str,
    resource: str,
    rows: list[UUID],
    units: set[UUID],
    told: str | None,
) -> None:
    grant = caller.grant(*PEOPLE_READS)
    await database.fetch(
        _READ,
        clock.today(),
        sorted(units),
        caller.id,
        grant.id if grant else None,
        caller.context,
        resource,
        rows[0] if len(rows) == 1 else None,
        rows,
        told,
        action,
    )


def _tells(resource: str, row: Output) -> bool:
    return any(getattr(row, name) is not None for name in PERSONAL[resource])


def _read(row: AuditEntry) -> AuditEntryRead:
    return AuditEntryRead.model_validate(row.model_dump())


async def list_entries(
    session: AsyncSession, caller: Caller, query: AuditEntryQuery
) -> AuditEntryPage:
    """Return a page of the entries in scope, the newest first."""
    entry = AuditEntry
    reach = caller.reach(Permission.audit_read)
    statement = select(entry).where(reach.filter(entry))
    if query.unit_id:
        units = select(col(AdminUnit.key)).where(col(AdminUnit.id).in_(query.unit_id))
        keys = frozenset(key for key in await session.scalars(units) if key is not None)
        reach = (await resolve(session, {keys}, caller.tree))[keys]
        statement = statement.where(reach.filter(entry))
    filters: Mapping[Any, Sequence[Any]] = {
        entry.actor_id: query.actor_id,
        entry.row_id: query.row_id,
        entry.resource: query.resource,
        entry.action: query.action,
    }
    for column, wanted in filters.items():
        if wanted:
            statement = statement.where(col(column).in_(wanted))
    if query.at_gte:
        statement = statement.where(col(entry.at) >= query.at_gte)
    if query.at_lt:
        statement = statement.where(col(entry.at) < query.at_lt)

    def read(rows: Sequence[Row[Any]]) -> list[AuditEntryRead]:
        return [_read(row.AuditEntry) for row in rows]

    sources: list[Source] = [
        (col(entry.province_key), reach.provinces),
        (col(entry.commune_key), reach.communes),
        (col(entry.unit_key), reach.units),
    ]
    for column, wanted in ((entry.row_id, query.row_id), (entry.actor_id, query.actor_id)):
        if wanted:
            sources = [(col(column), wanted)]
            break
    order = Order(col(entry.at), col(entry.id), descending=True)
    page = await paginate(
        session, caller.cursors, query, statement, order, read, [s for s in sources if s[1]]
    )
    return AuditEntryPage(**dict(page))


async def get_entry(session: AsyncSession, caller: Caller, entry_id: UUID) -> AuditEntryRead:
    """Return an entry in scope; absent and out of scope look alike."""
    reach = caller.reach(Permission.audit_read)
    row = await session.scalar(
        select(AuditEntry).where(col(AuditEntry.id) == entry_id, reach.filter(AuditEntry))
    )
    if row is None:
        raise NotFound
    return _read(row)
