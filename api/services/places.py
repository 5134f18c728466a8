"""Where a unit lies on a day: what a row needs to be placed in scope and in totals."""

from collections.abc import Collection, Iterable, Mapping
from datetime import date
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import Select, func
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from api.driver import Connection, connection_of
from api.errors import FieldError, Refusal, UnitDissolved, ValidationFailed, not_found_at
from api.models.admin_units import AdminUnit, Placement
from api.models.types import Level


class Place(NamedTuple):
    """A unit on a day, with the commune and the province above it."""

    unit_id: UUID
    unit_key: int
    level: Level
    commune_key: int | None
    province_key: int | None

    def columns(self) -> dict[str, Any]:
        """Return the columns of a placed row."""
        return {
            "unit_id": self.unit_id,
            "unit_key": self.unit_key,
            "commune_key": self.commune_key,
            "province_key": self.province_key,
        }


class Gone(NamedTuple):
    """A unit that ended before the day; its territory lies in `province_key` on that day."""

    unit_id: UUID
    province_key: int | None


type Asked = tuple[UUID, date]
type Found = Place | Gone | date
"""Where a unit lies; `Gone` once it has ended; its first day while it has not begun."""

# The nation stands in for the province of what hangs on the nation itself.
_PLACES = """
    select a.unit_id, a.day, u.valid_from, u.valid_to, u.level, u.key as unit_key,
           commune.ancestor_key as commune_key,
           coalesce(province.ancestor_key, case u.level when 'nation' then u.key end)
               as province_key
    from unnest($1::uuid[], $2::date[]) as a (unit_id, day)
    join admin_unit u on u.id = a.unit_id and u.deleted_at is null
    left join placement commune on commune.unit_key = u.key and commune.level = 'commune'
         and commune.during @> a.day
    left join placement province on province.unit_key = u.key and province.level = 'province'
         and province.during @> a.day
"""

_SUCCESSORS = """
    select old.id as predecessor, u.id as unit_id, s.code, s.name
    from admin_unit old
    cross join lateral (
        select successor_key, happened_on, extent from unit_succession
        where predecessor_key = old.key
        union all  -- a district went where its communes went (as in `unit_became`, but by index)
        select distinct x.successor_key, x.happened_on, 'part'
        from admin_unit_state c
        join unit_succession x on x.predecessor_key = c.unit_key and c.during @> x.happened_on - 1
        where old.level = 'district' and c.parent_key = old.key
    ) x
    join admin_unit u on u.key = x.successor_key
    join admin_unit_state s on s.unit_key = u.key and s.during @> x.happened_on
    where old.id = any ($1::uuid[])
    order by x.extent desc, s.name, u.id
"""


def _found_of(
    unit_id: UUID,
    day: date,
    first: date | None,
    last: date | None,
    level: str,
    unit_key: int,
    commune_key: int | None,
    province_key: int | None,
) -> Found:
    """Return where a row of `_PLACES` says that a unit lies."""
    if first is not None and day < first:
        return first
    if last is not None and day > last:
        return Gone(unit_id, province_key)
    return Place(unit_id, unit_key, Level(level), commune_key, province_key)


async def read_places(database: Connection, asked: Collection[Asked]) -> dict[Asked, Found]:
    """Place units on days, in one statement whatever their number.

    An unknown unit is missing from the result.
    """
    pairs = list(asked)
    rows = await database.fetch(_PLACES, [unit for unit, _ in pairs], [day for _, day in pairs])
    return {(row["unit_id"], row["day"]): _found_of(*row) for row in rows}


async def find_places(session: AsyncSession, asked: Collection[Asked]) -> dict[Asked, Found]:
    """Place units on days within a transaction, see `read_places`."""
    return await read_places(await connection_of(session), set(asked))


_KNOWN: dict[UUID, dict[Asked, Found]] = {}
"""Places already read, by the one version of the tree that they were read in."""
_MOST_KNOWN: Final = 100_000


def known_places(version: UUID) -> dict[Asked, Found]:
    """Return what is known of a version of the tree, to be used and added to.

    Whoever writes by it makes sure, in the statement that writes, that the version still stands.
    """
    if version not in _KNOWN or len(_KNOWN[version]) > _MOST_KNOWN:
        _KNOWN.clear()
    return _KNOWN.setdefault(version, {})


async def find_successors(
    database: Connection, places: Iterable[Found]
) -> dict[UUID, list[dict[str, Any]]]:
    """Return what became of the units that are gone, in one statement whatever their number."""
    gone = {found.unit_id for found in places if isinstance(found, Gone)}
    successors: dict[UUID, list[dict[str, Any]]] = {unit_id: [] for unit_id in gone}
    if gone:
        for row in await database.fetch(_SUCCESSORS, list(gone)):
            heir = {"unit_id": row["unit_id"], "code": row["code"], "name": row["name"]}
            successors[row["predecessor"]].append(heir)
    return successors


def refusal_of(
    found: Gone | date | None, successors: Mapping[UUID, list[dict[str, Any]]], pointer: str
) -> Refusal:
    """Return why a unit cannot carry a fact of that day."""
    match found:
        case None:
            return not_found_at(pointer)
        case Gone():
            fault = FieldError(pointer, "unit_dissolved")
            return UnitDissolved(fault, successors=successors[found.unit_id])
    begins = {"valid_from": found.isoformat()}
    return ValidationFailed(FieldError(pointer, "before_unit", begins))


async def place(
    session: AsyncSession,
    unit_id: UUID,
    day: date,
    levels: Collection[Level],
    pointer: str = "/unit_id",
) -> Place:
    """Place one unit on a day.

    422 `not_found`, `before_unit` or `wrong_level` at the pointer; 409 `unit_dissolved` with the
    successors.
    """
    found = (await find_places(session, [(unit_id, day)])).get((unit_id, day))
    if not isinstance(found, Place):
        database = await connection_of(session)
        successors = await find_successors(database, [found] if found else [])
        raise refusal_of(found, successors, pointer)
    if found.level not in levels:
        raise ValidationFailed(
            FieldError(pointer, "wrong_level", {"expected": ", ".join(sorted(levels))})
        )
    return found


def under(unit_ids: Collection[UUID], today: date) -> Select[int]:
    """Select the keys of everything that lies under some units today.

    Under a unit that no longer stands: everything that lay there on its last day.
    """
    day = func.least(today, func.coalesce(AdminUnit.valid_to, today))
    return (
        select(col(Placement.unit_key))
        .join(AdminUnit, col(AdminUnit.key) == col(Placement.ancestor_key))
        .where(
            col(AdminUnit.id).in_(unit_ids),
            col(Placement.level) == col(AdminUnit.level),
            col(Placement.during).contains(day),
        )
    )
