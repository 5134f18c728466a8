"""Units through time: reading the dated tree; open to every signed-in caller."""

from collections.abc import Collection, Sequence
from datetime import date
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, and_, func, literal, or_, select
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
    Placement,
    UnitBecame,
    UnitReference,
    UnitSort,
    UnitSuccession,
)
from api.pagination import Order, paginate
from api.services.searching import contains

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
        )
        for row in rows
    ]


def _keys(unit_ids: Sequence[UUID]) -> Select[*tuple[Any, ...]]:
    return select(col(AdminUnit.key)).where(col(AdminUnit.id).in_(unit_ids))


def _named(q: str, day: date) -> ColumnElement[bool]:
    """Match a part of a name, accents aside: the present name, or a former one's successor."""
    named = select(col(State.unit_key)).where(contains(col(State.search), q)).cte("named")
    whole = (
        select(col(Placement.ancestor_key))
        .join(named, named.c.unit_key == col(Placement.unit_key))
        .join(AdminUnit, col(AdminUnit.key) == named.c.unit_key)
        .where(col(Placement.level) == col(AdminUnit.level), col(Placement.during).contains(day))
    )
    split = select(col(UnitSuccession.successor_key)).join(
        named, named.c.unit_key == col(UnitSuccession.predecessor_key)
    )
    return or_(
        col(AdminUnit.key).in_(select(named.c.unit_key)),
        col(AdminUnit.key).in_(whole),
        col(AdminUnit.key).in_(split),
    )


def _asked(query: AdminUnitQuery) -> Select[*tuple[Any, ...]]:
    """Select the units that stood on the day asked, by its filters."""
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
    if query.q:
        statement = statement.where(_named(query.q, day))
    return statement


async def list_units(session: AsyncSession, caller: Caller, query: AdminUnitQuery) -> AdminUnitPage:
    """Return a page of the units that stood on the day asked; open to every signed-in caller."""
    order = Order(col(State.search), col(AdminUnit.id), query.sort is UnitSort.name_desc)
    page = await paginate(session, caller.cursors, query, _asked(query), order, _read)
    return AdminUnitPage(**dict(page))


async def list_points(session: AsyncSession, query: AdminUnitQuery) -> list[AdminUnitRead]:
    """Return the units asked for that have a point, without pages.

    422 `result_too_large` for more than `MOST_POINTS`.
    """
    located = _asked(query).where(col(AdminUnit.lat).is_not(None), col(AdminUnit.lon).is_not(None))
    ordered = located.order_by(col(State.search), col(AdminUnit.id)).limit(MOST_POINTS + 1)
    units = _read((await session.execute(ordered)).all())
    if len(units) > MOST_POINTS:
        raise ResultTooLarge
    return units


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
