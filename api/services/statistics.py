"""Statistics: figures declared with a source, never mixed into what is counted here.

Several sources may say different things of one unit and day: all are kept, side by side.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from api import clock
from api.auth.caller import Caller
from api.auth.permissions import Permission
from api.auth.scope import PlacedRow, visible
from api.errors import FieldError, InsufficientRole, NotFound, ValidationFailed, not_found_at
from api.models.indicators import Indicator, IndicatorKind
from api.models.statistics import (
    Attribution,
    Statistic,
    StatisticCreate,
    StatisticPage,
    StatisticQuery,
    StatisticRead,
    StatisticUpdate,
)
from api.models.types import Level, number
from api.pagination import Order, paginate
from api.services import external_ids, periods
from api.services.places import Place, place, under
from api.services.writing import (
    bring_back,
    changed_values,
    check_version,
    hide,
    insert_once,
    locked,
    made_before,
    touch,
)

RESOURCE = "statistics"
REQUIRED = frozenset({"indicator", "unit_id", "value", "precision", "attribution", "external_ids"})
_TIMES = frozenset({"as_of", "period"})


def _read(row: Statistic) -> StatisticRead:
    return StatisticRead.model_validate(row.model_dump() | {"value": number(row.value)})


async def list_statistics(
    session: AsyncSession, caller: Caller, query: StatisticQuery
) -> StatisticPage:
    """Return a page of the statistics in scope; a partner's own only."""
    statement = visible(Statistic, caller, Permission.statistics_read)
    if query.indicator:
        statement = statement.where(col(Statistic.indicator).in_(query.indicator))
    if query.unit_id:
        statement = statement.where(
            col(Statistic.unit_key).in_(under(query.unit_id, clock.today()))
        )
    if query.attribution:
        statement = statement.where(col(Statistic.attribution).in_(query.attribution))
    if query.as_of_gte:
        statement = statement.where(col(Statistic.last_on) >= query.as_of_gte)
    if query.as_of_lt:
        statement = statement.where(col(Statistic.last_on) < query.as_of_lt)
    if query.external_id:
        statement = statement.where(
            col(Statistic.id).in_(external_ids.named(RESOURCE, query.external_id))
        )

    def read(rows: Sequence[Row[Any]]) -> list[StatisticRead]:
        return [_read(row.Statistic) for row in rows]

    order = Order(col(Statistic.id), col(Statistic.id))
    page = await paginate(session, caller.cursors, query, statement, order, read)
    return StatisticPage(**dict(page))


async def _find(
    session: AsyncSession,
    caller: Caller,
    statistic_id: UUID,
    *,
    hidden: bool = False,
    lock: bool = False,
) -> Statistic | None:
    found = visible(Statistic, caller, Permission.statistics_read, hidden=hidden)
    found = found.where(col(Statistic.id) == statistic_id)
    row: Statistic | None = await session.scalar(locked(found) if lock else found)
    return row


async def get_statistic(session: AsyncSession, caller: Caller, statistic_id: UUID) -> StatisticRead:
    """Return a statistic in scope; absent and out of scope look alike."""
    row = await _find(session, caller, statistic_id)
    if row is None:
        raise NotFound
    return _read(row)


def _writes(
    caller: Caller, where: PlacedRow, attribution: Attribution, created_by: UUID | None
) -> bool:
    """Tell whether the caller declares figures of this attribution, or of its own, there."""
    is_youth = attribution == Attribution.youth_union
    return (
        caller.reach(Permission.all_statistics_write).covers(where)
        or (is_youth and caller.reach(Permission.youth_union_write).covers(where))
        or (created_by == caller.id and caller.reach(Permission.own_statistics_write).covers(where))
    )


async def _day(session: AsyncSession, given: StatisticCreate | Statistic) -> dict[str, Any]:
    """Return the days of a figure: those of its period, or only its `as_of`.

    422 `exactly_one`, `period_invalid`, `in_the_future`; `unknown_indicator` or `not_declared`;
    `negative_count` for what adds up over units, since that is a number of things.
    """
    definition = await session.scalar(
        select(Indicator).where(
            col(Indicator.code) == given.indicator, col(Indicator.deleted_at).is_(None)
        )
    )
    if definition is None:
        raise ValidationFailed(FieldError("/indicator", "unknown_indicator"))
    if definition.kind != IndicatorKind.declared:
        raise ValidationFailed(FieldError("/indicator", "not_declared"))
    if definition.additive and given.value < 0:
        raise ValidationFailed(FieldError("/value", "negative_count"))
    if (given.as_of is None) == (given.period is None):
        raise ValidationFailed(FieldError("/as_of", "exactly_one", {"expected": "as_of, period"}))
    first, last, pointer = None, given.as_of, "/as_of"
    if given.period is not None:
        (flow,) = periods.parse(given.period, pointer="/period")
        first, last, pointer = flow.first, flow.last, "/period"
    if (first or last or clock.today()) > clock.today():
        raise ValidationFailed(FieldError(pointer, "in_the_future"))
    return {"first_on": first, "last_on": last}


async def _place(
    session: AsyncSession, caller: Caller, unit_id: UUID, days: dict[str, Any]
) -> Place:
    """Place a figure on its own day (today, if its period runs); 422 out of scope."""
    day = min(days["last_on"], clock.today())
    where = await place(session, unit_id, day, frozenset(Level))
    if not caller.reach(Permission.statistics_write).covers(where):
        raise not_found_at("/unit_id")
    return where


def _not_yours() -> InsufficientRole:
    return InsufficientRole(FieldError("/attribution", "other_owner"))


async def create_statistic(
    session: AsyncSession, caller: Caller, given: StatisticCreate
) -> tuple[StatisticRead, bool]:
    """Declare a figure of a unit that stood on its day.

    403 `other_owner` where the caller declares only the youth union's figures, and this is none.
    """
    if made := await made_before(session, caller, Statistic, given):
        return _read(made), False
    days = await _day(session, given)
    where = await _place(session, caller, given.unit_id, days)
    if not _writes(caller, where, given.attribution, caller.id):
        raise _not_yours()
    values = given.model_dump(exclude={"id"}) | where.columns() | days
    row, is_new = await insert_once(session, caller, Statistic, given, values)
    if is_new:
        await external_ids.claim(session, caller, RESOURCE, row.id, given.external_ids)
    return _read(row), is_new


async def _lock(
    session: AsyncSession,
    caller: Caller,
    statistic_id: UUID,
    expected: int,
    *,
    hidden: bool = False,
) -> Statistic:
    """Lock a statistic that the caller may write; 404, 403, then 412."""
    row = await _find(session, caller, statistic_id, hidden=hidden, lock=True)
    if row is None:  # what only may be read is not locked
        await get_statistic(session, caller, statistic_id)
        raise InsufficientRole
    if not _writes(caller, row, row.attribution, row.created_by):
        raise NotFound if row.deleted_at else InsufficientRole
    check_version(_read(row), expected)
    return row


async def update_statistic(
    session: AsyncSession,
    caller: Caller,
    statistic_id: UUID,
    expected: int,
    change: StatisticUpdate,
) -> StatisticRead:
    """Correct a figure; another day or unit needs that unit in scope on that day."""
    row = await _lock(session, caller, statistic_id, expected)
    values = changed_values(_read(row), change, REQUIRED)
    if not values:
        return _read(row)
    changed = Statistic(**(row.model_dump() | values))
    days = await _day(session, changed)
    values |= days
    if values.keys() & (_TIMES | {"unit_id"}):
        where = await _place(session, caller, changed.unit_id, days)
        values |= where.columns()
        changed = Statistic(**(changed.model_dump() | where.columns()))
    if not _writes(caller, changed, changed.attribution, changed.created_by):
        raise _not_yours()
    if "external_ids" in values:
        await external_ids.claim(session, caller, RESOURCE, statistic_id, values["external_ids"])
    for name, value in values.items():
        setattr(row, name, value)
    touch(row)
    await session.flush()
    return _read(row)


async def delete_statistic(
    session: AsyncSession, caller: Caller, statistic_id: UUID, expected: int
) -> None:
    """Hide a statistic that was entered by mistake."""
    row = await _lock(session, caller, statistic_id, expected)
    hide(row)
    await session.flush()


async def undelete_statistic(
    session: AsyncSession, caller: Caller, statistic_id: UUID, expected: int
) -> StatisticRead:
    """Bring a hidden statistic back; one that stands stays as it is."""
    row = await _lock(session, caller, statistic_id, expected, hidden=True)
    bring_back(row)
    await session.flush()
    return _read(row)
