"""Units through time: reading the dated tree; open to every signed-in caller."""

from collections.abc import Collection, Sequence
from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, Subquery, and_, func, literal, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased
from sqlmodel import col

from api import clock
from api.auth.caller import Caller
from api.errors import NotFound, ResultTooLarge
from api.models.admin_units import (
    AdminUnit,
    AdminUnitPage,
    AdminUnitQuery,
    AdminUnitRead,
    AdminUnitState,
    Lineage,
    NameMatch,
    Placement,
    UnitBecame,
    UnitReference,
    UnitSort,
    UnitSuccession,
)
from api.pagination import Order, paginate
from api.services import unit_names

MOST_POINTS = 20_000
"""Units on one map: all official ones of two days, or the villages of several provinces."""
State = AdminUnitState
Parent = aliased(AdminUnit)


def _units() -> Select[*tuple[Any, ...]]:
    """Select units beside their states; the caller narrows the states to one each."""
    return (
        select(AdminUnit, State, col(Parent.id).label("parent_id"))
        .join(State, col(State.unit_key) == col(AdminUnit.key))
        .outerjoin(Parent, col(Parent.key) == col(State.parent_key))
        .where(col(AdminUnit.deleted_at).is_(None))
    )


def _read(rows: Sequence[Row[Any]]) -> list[AdminUnitRead]:
    return [
        AdminUnitRead(
            **row.AdminUnit.model_dump(),
            code=row.AdminUnitState.code,
            name=row.AdminUnitState.name,
            type=row.AdminUnitState.type,
            parent_id=row.parent_id,
            match=_match(row),
        )
        for row in rows
    ]


def _match(row: Row[Any]) -> NameMatch | None:
    given = row._mapping  # noqa: SLF001 - a row's public name for its columns
    if "match_kind" not in given:
        return None
    return NameMatch(**{name: given[f"match_{name}"] for name in NameMatch.model_fields})


def _keys(unit_ids: Sequence[UUID]) -> Select[*tuple[Any, ...]]:
    return select(col(AdminUnit.key)).where(col(AdminUnit.id).in_(unit_ids))


def _asked(query: AdminUnitQuery) -> Select[*tuple[Any, ...]]:
    """Select the units that stood on the day asked, by its filters but `q`."""
    day = query.at or clock.today()
    statement = _units().where(col(State.during).contains(day))
    if query.code:
        statement = statement.where(col(State.code).in_(query.code))
    if query.level:
        statement = statement.where(col(AdminUnit.level).in_(query.level))
    if query.parent_id:
        statement = statement.where(col(State.parent_key).in_(_keys(query.parent_id)))
    if query.within:
        below = select(col(Placement.unit_key)).where(
            col(Placement.ancestor_key).in_(_keys(query.within)),
            col(Placement.during).contains(day),
        )
        statement = statement.where(col(AdminUnit.key).in_(below))
    return statement


def _called(
    query: AdminUnitQuery, *, similar: bool, bounded: bool
) -> tuple[Select[*tuple[Any, ...]], Subquery]:
    """Select the units that `q` finds, with why, and what orders them by relevance."""
    day = query.at or clock.today()
    found = unit_names.find(query, day, similar=similar, bounded=bounded)
    why = (found.c[name].label(f"match_{name}") for name in NameMatch.model_fields)
    return _units().join(found, found.c.key == col(AdminUnit.key)).where(
        col(State.during).contains(day)
    ).add_columns(*why), found


async def list_units(session: AsyncSession, caller: Caller, query: AdminUnitQuery) -> AdminUnitPage:
    """Return a page of the units that stood on the day asked; open to every signed-in caller."""
    by_name = Order(col(State.search), col(AdminUnit.id), query.sort is UnitSort.name_desc)
    if query.q is None:
        page = await paginate(session, caller.cursors, query, _asked(query), by_name, _read)
        return AdminUnitPage(**dict(page))
    best_first = query.sort is UnitSort.relevance
    for similar in (False, True):
        if similar:
            await unit_names.forgive(session, query.q)
        statement, found = _called(query, similar=similar, bounded=best_first)
        order = Order(found.c.rank, found.c.id) if best_first else by_name
        page = await paginate(session, caller.cursors, query, statement, order, _read)
        if page.items:
            break
    return AdminUnitPage(**dict(page))


async def list_points(session: AsyncSession, query: AdminUnitQuery) -> list[AdminUnitRead]:
    """Return the units asked for that have a point, without pages.

    422 `result_too_large` for more than `MOST_POINTS`.
    """
    units = _called(query, similar=False, bounded=False)[0] if query.q else _asked(query)
    located = units.where(col(AdminUnit.lat).is_not(None), col(AdminUnit.lon).is_not(None))
    ordered = located.order_by(col(State.search), col(AdminUnit.id)).limit(MOST_POINTS + 1)
    points = _read((await session.execute(ordered)).all())
    if len(points) > MOST_POINTS:
        raise ResultTooLarge
    return points


async def get_units(
    session: AsyncSession, unit_ids: Collection[UUID], day: date | None = None
) -> dict[UUID, AdminUnitRead]:
    """Return units as they are on a day; before their first or after their last, as then."""
    when = day or clock.today()
    statement = (
        _units()
        .where(col(AdminUnit.id).in_(unit_ids))
        .ext(distinct_on(col(AdminUnit.id)))
        .order_by(
            col(AdminUnit.id),
            col(State.during).contains(when).desc(),
            (func.coalesce(func.lower(col(State.during)), date.min) > when).asc(),
            func.lower(col(State.during)).desc().nulls_last(),
        )
    )
    return {unit.id: unit for unit in _read((await session.execute(statement)).all())}


async def get_unit(session: AsyncSession, unit_id: UUID, day: date | None = None) -> AdminUnitRead:
    """Return one unit, as `get_units` does; 404 when there is none."""
    found = await get_units(session, [unit_id], day)
    if unit_id not in found:
        raise NotFound
    return found[unit_id]


async def get_lineage(session: AsyncSession, unit_id: UUID) -> Lineage:
    """Return where a unit came from and what became of it."""
    key = await session.scalar(
        select(col(AdminUnit.key)).where(
            col(AdminUnit.id) == unit_id, col(AdminUnit.deleted_at).is_(None)
        )
    )
    if key is None:
        raise NotFound
    before, after = UnitSuccession, UnitBecame
    predecessors = _references(before, before.predecessor_key, before.successor_key, key, -1)
    successors = _references(after, after.successor_key, after.predecessor_key, key, 0)
    return Lineage(
        predecessors=[UnitReference(**row) for row in await _mappings(session, predecessors)],
        successors=[UnitReference(**row) for row in await _mappings(session, successors)],
    )


async def _mappings(session: AsyncSession, statement: Select[*tuple[Any, ...]]) -> Sequence[Any]:
    return (await session.execute(statement)).mappings().all()


def _references(
    step: type[UnitSuccession | UnitBecame], other: int, this: int, key: int, days: int
) -> Select[*tuple[Any, ...]]:
    """Select the units at the other end of a unit's steps, as they were on that side of them."""
    day = col(step.happened_on) + literal(days)
    return (
        select(
            col(AdminUnit.id).label("unit_id"),
            col(State.code),
            col(State.name),
            col(AdminUnit.level),
            col(step.happened_on).label("on"),
            col(step.extent),
        )
        .select_from(step)
        .join(AdminUnit, col(AdminUnit.key) == col(other))
        .join(
            State, and_(col(State.unit_key) == col(AdminUnit.key), col(State.during).contains(day))
        )
        .where(col(this) == key)
        .order_by(col(State.search), col(AdminUnit.id))
    )
