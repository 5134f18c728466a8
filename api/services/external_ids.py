"""Ids of other systems: each names one row of a kind, under a system that one caller owns."""

from collections.abc import Collection, Iterable, Mapping
from uuid import UUID

from sqlalchemy import Select, Uuid, text
from sqlalchemy.ext.asyncio import AsyncSession

from api import ids
from api.auth.caller import Caller
from api.driver import Connection, connection_of
from api.errors import ExternalIdConflict, FieldError, ValidationFailed

LARGEST = 10
"""External ids of one row."""

_SYSTEMS = """
    insert into external_system (name, principal_id)
    select distinct name, $2::uuid from unnest($1::text[]) as name
    order by name
    on conflict do nothing
"""
_FOREIGN = """
    select name from external_system where name = any ($1::text[]) and principal_id <> $2
"""
_KNOWN = text("""
    select system, value from external_id where resource = :resource and row_id = :row
""")
_FORGET = text("""
    delete from external_id
    where resource = :resource and row_id = :row and system = any(cast(:systems as text[]))
""")
_CLAIM = """
    with given as (
        select * from unnest($2::uuid[], $3::text[], $4::text[]) as g (row_id, system, value)
    ), made as (
        insert into external_id (resource, system, value, row_id)
        select $1, system, value, row_id from given order by system, value
        on conflict do nothing
        returning row_id, system, value
    )
    select g.row_id, g.system from given g
    where not exists (
              select from made m
              where m.row_id = g.row_id and m.system = g.system and m.value = g.value)
      and not exists (
              select from external_id e
              where e.resource = $1 and e.system = g.system and e.value = g.value
                and e.row_id = g.row_id)
"""
_RESERVE = text("""
    insert into external_id (resource, system, value, row_id)
    values (:resource, :system, :value, :row)
    on conflict do nothing returning row_id
""")
_NAMED = text("""
    select row_id from external_id
    where resource = :resource and system = :system and value = :value
""")


def _taken(system: str) -> ExternalIdConflict:
    return ExternalIdConflict(FieldError(f"/external_ids/{system}", "taken"))


async def _foreign(database: Connection, caller: Caller, systems: Iterable[str]) -> set[str]:
    """Give the caller the systems that nobody has used; return those that are another's."""
    names = sorted(systems)
    await database.fetch(_SYSTEMS, names, caller.id)
    return {row["name"] for row in await database.fetch(_FOREIGN, names, caller.id)}


async def claim_all(
    database: Connection, caller: Caller, resource: str, given: Mapping[UUID, Mapping[str, str]]
) -> dict[UUID, ExternalIdConflict]:
    """Give rows their external ids, in a fixed number of statements; return the refusals by row.

    A refused row keeps what could be claimed until its savepoint or transaction is rolled back.
    """
    triples = [(row, s, value) for row, names in given.items() for s, value in names.items()]
    if not triples:
        return {}
    foreign = await _foreign(database, caller, {system for _, system, _ in triples})
    claimed = [triple for triple in triples if triple[1] not in foreign]
    rows, systems, values = zip(*claimed, strict=True) if claimed else ((), (), ())
    taken = await database.fetch(_CLAIM, resource, rows, systems, values)
    refused = [(row["row_id"], row["system"]) for row in taken]
    refused += [(row, system) for row, system, _ in triples if system in foreign]
    return {row: _taken(system) for row, system in refused}


async def claim(
    session: AsyncSession, caller: Caller, resource: str, row_id: UUID, given: Mapping[str, str]
) -> None:
    """Make `given` the external ids of one row; those that stay may be of anybody's systems.

    409 `external_id_conflict` when one is taken, or a changed one is of another client's system;
    422 `too_long` when there are too many.
    """
    _bounded(given)
    database = await connection_of(session)
    row = {"resource": resource, "row": row_id}
    known = {found.system: found.value for found in await session.execute(_KNOWN, row)}
    changed = {system: value for system, value in given.items() if known.get(system) != value}
    gone = (known.keys() - given.keys()) | (known.keys() & changed.keys())
    for system in await _foreign(database, caller, gone):
        raise _taken(system)
    await session.execute(_FORGET, row | {"systems": sorted(gone)})
    if refusal := (await claim_all(database, caller, resource, {row_id: changed})).get(row_id):
        raise refusal


def with_name(given: Mapping[str, str], system: str, value: str) -> dict[str, str]:
    """Return a body's external ids and the one in the path; 422 when the two disagree."""
    if given.get(system, value) != value:
        raise ValidationFailed(FieldError(f"/external_ids/{system}", "not_as_in_path"))
    return _bounded({**given, system: value})


def _bounded[Ids: Mapping[str, str]](given: Ids) -> Ids:
    if len(given) > LARGEST:
        raise ValidationFailed(FieldError("/external_ids", "too_long", {"max_length": LARGEST}))
    return given


async def reserve(
    session: AsyncSession, caller: Caller, resource: str, system: str, value: str
) -> tuple[UUID, bool]:
    """Return the row that an external id names and `False`, or a new row's id and `True`.

    Whoever comes second waits for the first. 409 when the system's name is another client's.
    """
    if await _foreign(await connection_of(session), caller, [system]):
        raise _taken(system)
    name = {"resource": resource, "system": system, "value": value}
    row_id: UUID | None = await session.scalar(_RESERVE, name | {"row": ids.new_id()})
    if row_id:
        return row_id, True
    return (await session.execute(_NAMED, name)).scalar_one(), False


_FIND_NAMED = """
    select e.row_id from external_id e
    join unnest($2::text[], $3::text[]) as g (system, value)
      on e.system = g.system and e.value = g.value
    where e.resource = $1
"""


async def find_named(
    database: Connection, resource: str, external_ids: Collection[str]
) -> set[UUID]:
    """Return the rows that `system:id` texts name."""
    systems, values = _parts(external_ids)
    found = await database.fetch(_FIND_NAMED, resource, systems, values)
    return {row["row_id"] for row in found}


def _parts(external_ids: Collection[str]) -> tuple[list[str], list[str]]:
    parted = [text_.partition(":") for text_ in external_ids]
    return [system for system, *_ in parted], [value for *_, value in parted]


def named(resource: str, external_ids: Collection[str]) -> Select[UUID]:
    """Select the rows that `system:id` texts name."""
    systems, values = _parts(external_ids)
    statement = text("""
        select e.row_id from external_id e
        join unnest(cast(:systems as text[]), cast(:values as text[])) as g (system, value)
          on e.system = g.system and e.value = g.value
        where e.resource = :resource
    """).bindparams(resource=resource, systems=systems, values=values)
    return statement.columns(row_id=Uuid)  # type: ignore[return-value]
