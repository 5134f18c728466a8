"""Ids of other systems: each names one row of a kind, under a system that one caller owns."""

from collections.abc import Collection, Mapping, Sequence
from uuid import UUID

from sqlalchemy import ARRAY, Select, Text, Uuid, bindparam, text
from sqlalchemy.ext.asyncio import AsyncSession

from api.auth.caller import Caller
from api.errors import ExternalIdConflict, FieldError

_SYSTEMS = text("""
    with wanted as (select distinct unnest(cast(:systems as text[])) as name),
    made as (
        insert into external_system (name, principal_id)
        select name, :principal from wanted order by name
        on conflict do nothing returning name
    )
    select name from wanted where name not in (select name from made)
""")
_OWNED = text("""
    select name from external_system
    where name = any(cast(:systems as text[])) and principal_id <> :principal
""")
_FORGET = text("""
    delete from external_id e
    where e.resource = :resource and e.row_id = any(:rows)
      and not exists (
          select from unnest(:rows, :systems, :values) as g (row_id, system, value)
          where g.row_id = e.row_id and g.system = e.system and g.value = e.value)
""")
_CLAIM = text("""
    with given as (
        select * from unnest(:rows, :systems, :values) as g (row_id, system, value)
    ), made as (
        insert into external_id (resource, system, value, row_id)
        select :resource, system, value, row_id from given order by system, value
        on conflict do nothing
        returning row_id, system, value
    )
    select g.row_id, g.system from given g
    where not exists (
              select from made m
              where m.row_id = g.row_id and m.system = g.system and m.value = g.value)
      and not exists (
              select from external_id e
              where e.resource = :resource and e.system = g.system and e.value = g.value
                and e.row_id = g.row_id)
""")
_TYPED = (
    bindparam("rows", type_=ARRAY(Uuid)),
    bindparam("systems", type_=ARRAY(Text)),
    bindparam("values", type_=ARRAY(Text)),
)
_FORGET = _FORGET.bindparams(*_TYPED)
_CLAIM = _CLAIM.bindparams(*_TYPED)


async def claim_all(
    session: AsyncSession, caller: Caller, resource: str, given: Mapping[UUID, Mapping[str, str]]
) -> dict[UUID, ExternalIdConflict]:
    """Give rows their external ids, in a fixed number of statements; return the refusals by row.

    A refused row keeps what could be claimed until its savepoint or transaction is rolled back.
    """
    triples = [(row, s, value) for row, ids in given.items() for s, value in ids.items()]
    if not triples:
        return {}
    systems = sorted({system for _, system, _ in triples})
    principal = {"systems": systems, "principal": caller.id}
    await session.execute(_SYSTEMS, principal)
    foreign = set(await session.scalars(_OWNED, principal))
    claimed = [triple for triple in triples if triple[1] not in foreign]
    taken = await session.execute(
        _CLAIM,
        {
            "resource": resource,
            "rows": [row for row, _, _ in claimed],
            "systems": [system for _, system, _ in claimed],
            "values": [value for _, _, value in claimed],
        },
    )
    refused = [(row.row_id, row.system) for row in taken]
    refused += [(row, system) for row, system, _ in triples if system in foreign]
    return {
        row: ExternalIdConflict(FieldError(f"/external_ids/{system}", "taken"))
        for row, system in refused
    }


async def claim(
    session: AsyncSession, caller: Caller, resource: str, row_id: UUID, given: Mapping[str, str]
) -> None:
    """Make `given` the external ids of one row; 409 `external_id_conflict` when one is taken."""
    await session.execute(
        _FORGET,
        {
            "resource": resource,
            "rows": [row_id] * max(len(given), 1),
            "systems": list(given),
            "values": list(given.values()),
        },
    )
    refused = await claim_all(session, caller, resource, {row_id: given})
    if row_id in refused:
        raise refused[row_id]


def named(resource: str, external_ids: Collection[str]) -> Select[UUID]:
    """Select the rows that `system:id` texts name."""
    pairs: Sequence[tuple[str, str]] = [
        (system, value) for system, _, value in (text_.partition(":") for text_ in external_ids)
    ]
    statement = text("""
        select e.row_id from external_id e
        join unnest(cast(:systems as text[]), cast(:values as text[])) as g (system, value)
          on e.system = g.system and e.value = g.value
        where e.resource = :resource
    """).bindparams(resource=resource, systems=[s for s, _ in pairs], values=[v for _, v in pairs])
    return statement.columns(row_id=Uuid)  # type: ignore[return-value]
