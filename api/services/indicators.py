"""Indicator definitions: open to every signed-in caller; the nation defines declared ones."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, func, or_, union_all
from sqlalchemy import select as select_columns
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from api.auth.caller import Caller
from api.errors import Conflict, FieldError, NotFound
from api.models.indicators import (
    Indicator,
    IndicatorCreate,
    IndicatorKind,
    IndicatorPage,
    IndicatorQuery,
    IndicatorRead,
    IndicatorUpdate,
    IndicatorVersion,
    IndicatorVersionPage,
    IndicatorVersionQuery,
    IndicatorVersionRead,
)
from api.models.statistics import Statistic
from api.models.targets import Target
from api.pagination import Order, paginate
from api.services.writing import (
    changed_values,
    check_version,
    hide,
    insert_once,
    made_before,
    touch,
)

REQUIRED = frozenset({"name_vi", "name_en", "unit_of_count", "additive"})


def _read(row: Indicator) -> IndicatorRead:
    return IndicatorRead.model_validate(row.model_dump())


async def list_indicators(
    session: AsyncSession, caller: Caller, query: IndicatorQuery
) -> IndicatorPage:
    """Return a page of the definitions, by code."""
    statement = select(Indicator).where(col(Indicator.deleted_at).is_(None))
    if query.code:
        statement = statement.where(col(Indicator.code).in_(query.code))
    if query.kind:
        statement = statement.where(col(Indicator.kind).in_(query.kind))

    def read(rows: Sequence[Row[Any]]) -> list[IndicatorRead]:
        return [_read(row.Indicator) for row in rows]

    order = Order(col(Indicator.code), col(Indicator.id))
    page = await paginate(session, caller.cursors, query, statement, order, read)
    return IndicatorPage(**dict(page))


async def get_indicator(
    session: AsyncSession, _caller: Caller, indicator_id: UUID
) -> IndicatorRead:
    """Return a definition."""
    row = await session.get(Indicator, indicator_id)
    if row is None or row.deleted_at is not None:
        raise NotFound
    return _read(row)


async def create_indicator(
    session: AsyncSession, caller: Caller, given: IndicatorCreate
) -> tuple[IndicatorRead, bool]:
    """Define a declared indicator; 409 when the code is taken."""
    if made := await made_before(session, caller, Indicator, given):
        return _read(made), False
    taken = await session.scalar(select(Indicator.id).where(col(Indicator.code) == given.code))
    if taken is not None and taken != given.id:
        raise Conflict(FieldError("/code", "taken"))
    values = given.model_dump(exclude={"id"}) | {
        "kind": IndicatorKind.declared,
        "definition_version": 1,
    }
    row, is_new = await insert_once(session, caller, Indicator, given, values)
    return _read(row), is_new


async def _lock(session: AsyncSession, indicator_id: UUID, expected: int) -> Indicator:
    """Lock a declared indicator; computed ones change with the service, not by a client."""
    row = await session.get(Indicator, indicator_id, with_for_update=True)
    if row is None or row.deleted_at is not None:
        raise NotFound
    check_version(_read(row), expected)
    if row.kind != IndicatorKind.declared:
        raise Conflict(FieldError("/kind", "read_only"))
    return row


async def update_indicator(
    session: AsyncSession,
    _caller: Caller,
    indicator_id: UUID,
    expected: int,
    change: IndicatorUpdate,
) -> IndicatorRead:
    """Give a declared indicator a new definition; the names alone do not make one."""
    row = await _lock(session, indicator_id, expected)
    values = changed_values(row, change, REQUIRED)
    for name, value in values.items():
        setattr(row, name, value)
    if values:
        row.definition_version += bool(set(values) - {"name_vi", "name_en"})
        touch(row)
        await session.flush()
    return _read(row)


async def delete_indicator(
    session: AsyncSession, _caller: Caller, indicator_id: UUID, expected: int
) -> None:
    """Hide a declared indicator entered by mistake; 409 while statistics or targets are of it."""
    row = await _lock(session, indicator_id, expected)
    of_it = (
        select(Statistic.id).where(
            col(Statistic.indicator) == row.code, col(Statistic.deleted_at).is_(None)
        ),
        select(Target.id).where(
            or_(col(Target.indicator) == row.code, col(Target.denominator) == row.code),
            col(Target.deleted_at).is_(None),
        ),
    )
    for used in of_it:
        if await session.scalar(used.limit(1)):
            raise Conflict(FieldError("", "still_used"))
    hide(row)
    await session.flush()


async def list_versions(
    session: AsyncSession, caller: Caller, indicator_id: UUID, query: IndicatorVersionQuery
) -> IndicatorVersionPage:
    """Return a page of an indicator's definitions, the present one first."""
    present = await get_indicator(session, caller, indicator_id)
    now, then = Indicator.__table__.c, IndicatorVersion.__table__.c  # type: ignore[attr-defined]
    names = [name for name in then.keys() if name != "ended_at"]  # noqa: SIM118 - columns
    ended = func.lag(then.ended_at).over(order_by=then.definition_version)
    since = func.coalesce(ended, present.created_at)
    last = select_columns(func.max(then.ended_at)).where(then.id == indicator_id).scalar_subquery()
    every = union_all(
        select_columns(*(then[name] for name in names), since.label("since")).where(
            then.id == indicator_id
        ),
        select_columns(
            *(now[name] for name in names), func.coalesce(last, now.created_at).label("since")
        ).where(now.id == indicator_id),
    ).subquery()

    def read(rows: Sequence[Row[Any]]) -> list[IndicatorVersionRead]:
        return [IndicatorVersionRead.model_validate(dict(row._mapping)) for row in rows]  # noqa: SLF001 - its columns

    order = Order(every.c.definition_version, every.c.id, descending=True)
    page = await paginate(session, caller.cursors, query, select_columns(every), order, read)
    return IndicatorVersionPage(**dict(page))
