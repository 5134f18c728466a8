"""Targets: set by governments and the youth union, for a unit or a team there, and a period."""

from collections.abc import Sequence
from datetime import date
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, Select, select, union_all
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from api import clock, ids
from api.auth.caller import Caller
from api.auth.permissions import Permission
from api.auth.scope import Spot, visible
from api.errors import FieldError, InsufficientRole, NotFound, not_found_at
from api.models.targets import (
    Target,
    TargetColumns,
    TargetCreate,
    TargetFilters,
    TargetOwner,
    TargetPage,
    TargetQuery,
    TargetRead,
    TargetUpdate,
    TargetVersion,
    TargetVersionPage,
    TargetVersionQuery,
)
from api.models.types import Level, number
from api.pagination import Order, paginate
from api.services import periods
from api.services.places import Place, place, under
from api.services.target_rules import check_target
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

REQUIRED: Final = frozenset(
    {"indicator", "owner", "unit_id", "period", "measure", "comparator", "value", "service_types"}
)
NATION: Final = ids.official_unit_id("nation", "VN")
_PLACING: Final = frozenset({"unit_id", "period"})


def read_target(row: TargetColumns | Row[Any]) -> TargetRead:
    """Return a target as it is shown."""
    values = row.model_dump() if isinstance(row, TargetColumns) else dict(row._mapping)  # noqa: SLF001 - a row's columns
    baseline = values["baseline"]
    figures = {
        "value": number(values["value"]),
        "baseline": None if baseline is None else number(baseline),
    }
    return TargetRead.model_validate(values | figures)


def filtered(statement: Select[Any], query: TargetFilters) -> Select[Any]:
    """Narrow a selection of targets to what a query asks for."""
    if query.unit_id:
        statement = statement.where(col(Target.unit_key).in_(under(query.unit_id, clock.today())))
    for column, wanted in (
        (Target.indicator, query.indicator),
        (Target.owner, query.owner),
        (Target.team_id, query.team_id),
        (Target.allocated_from_id, query.allocated_from_id),
    ):
        if wanted:
            statement = statement.where(col(column).in_(wanted))
    if query.period:
        (whole,) = periods.parse(query.period)
        statement = statement.where(
            col(Target.first_on) >= whole.first, col(Target.last_on) <= whole.last
        )
    return statement


async def list_targets(session: AsyncSession, caller: Caller, query: TargetQuery) -> TargetPage:
    """Return a page of the targets in scope."""
    statement = filtered(visible(Target, caller, Permission.targets_read), query)

    def read(rows: Sequence[Row[Any]]) -> list[TargetRead]:
        return [read_target(row.Target) for row in rows]

    order = Order(col(Target.id), col(Target.id))
    page = await paginate(session, caller.cursors, query, statement, order, read)
    return TargetPage(**dict(page))


async def find_target(
    session: AsyncSession,
    caller: Caller,
    target_id: UUID,
    *,
    hidden: bool = False,
    lock: bool = False,
) -> Target | None:
    """Return a target in scope, if there is one, and lock it if asked for."""
    found = visible(Target, caller, Permission.targets_read, hidden=hidden)
    found = found.where(col(Target.id) == target_id)
    row: Target | None = await session.scalar(locked(found) if lock else found)
    return row


async def get_target(session: AsyncSession, caller: Caller, target_id: UUID) -> TargetRead:
    """Return a target in scope; absent and out of scope look alike."""
    row = await find_target(session, caller, target_id)
    if row is None:
        raise NotFound
    return read_target(row)


def _writes(caller: Caller, where: Place | Target, owner: TargetOwner) -> bool:
    """Tell whether the caller sets targets of this owner there: the nation's, only its own."""
    is_youth = owner == TargetOwner.youth_union
    nation = caller.reach(Permission.national_targets_write)
    return (
        caller.reach(Permission.all_targets_write).covers(where)
        or (is_youth and caller.reach(Permission.youth_union_write).covers(where))
        or (where.unit_id == NATION and nation.covers(where))
    )


async def _place(
    session: AsyncSession, caller: Caller, unit_id: UUID, last: date, owner: TargetOwner
) -> Place:
    """Place a target where its unit stands on its period's last day, or today before that.

    422 `not_found` out of scope; 403 `other_owner` where the caller sets only the youth union's
    targets, or only the nation's.
    """
    where = await place(session, unit_id, min(last, clock.today()), frozenset(Level))
    if not caller.reach(Permission.targets_write).covers(where):
        raise not_found_at("/unit_id")
    if not _writes(caller, where, owner):
        raise InsufficientRole(FieldError("/owner", "other_owner"))
    return where


async def create_target(
    session: AsyncSession, caller: Caller, given: TargetCreate
) -> tuple[TargetRead, bool]:
    """Set a target. 422 for what its indicator cannot be asked, see `target_rules`."""
    if made := await made_before(session, caller, Target, given):
        return read_target(made), False
    (whole,) = periods.parse(given.period, pointer="/period")
    where = await _place(session, caller, given.unit_id, whole.last, given.owner)
    await check_target(session, caller, given, where)
    days = {"first_on": whole.first, "last_on": whole.last}
    values = given.model_dump(exclude={"id"}) | where.columns() | days
    row, is_new = await insert_once(session, caller, Target, given, values)
    return read_target(row), is_new


async def _lock(
    session: AsyncSession,
    caller: Caller,
    target_id: UUID,
    expected: int,
    *,
    hidden: bool = False,
) -> Target:
    """Lock a target that the caller may change; 404, 403, then 412."""
    row = await find_target(session, caller, target_id, hidden=hidden, lock=True)
    if row is None:  # what only may be read is not locked
        await get_target(session, caller, target_id)
        raise InsufficientRole
    if not _writes(caller, row, row.owner):
        raise NotFound if row.deleted_at else InsufficientRole
    check_version(read_target(row), expected)
    return row


async def update_target(
    session: AsyncSession, caller: Caller, target_id: UUID, expected: int, change: TargetUpdate
) -> TargetRead:
    """Change a target, which is kept as it was. Another unit needs both in scope."""
    row = await _lock(session, caller, target_id, expected)
    values = changed_values(read_target(row), change, REQUIRED)
    if not values:
        return read_target(row)
    changed = Target(**(row.model_dump() | values))
    where: Place | Spot = Spot(row.unit_key, row.commune_key, row.province_key)
    if values.keys() & (_PLACING | {"owner"}):
        (whole,) = periods.parse(changed.period, pointer="/period")
        where = await _place(session, caller, changed.unit_id, whole.last, changed.owner)
        values |= where.columns() | {"first_on": whole.first, "last_on": whole.last}
    await check_target(session, caller, changed, where)
    for name, value in values.items():
        setattr(row, name, value)
    touch(row)
    await session.flush()
    return read_target(row)


async def delete_target(
    session: AsyncSession, caller: Caller, target_id: UUID, expected: int
) -> None:
    """Hide a target that was set by mistake; its parts stay."""
    row = await _lock(session, caller, target_id, expected)
    hide(row)
    await session.flush()


async def undelete_target(
    session: AsyncSession, caller: Caller, target_id: UUID, expected: int
) -> TargetRead:
    """Bring a hidden target back; one that stands stays as it is."""
    row = await _lock(session, caller, target_id, expected, hidden=True)
    bring_back(row)
    await session.flush()
    return read_target(row)


async def list_versions(
    session: AsyncSession, caller: Caller, target_id: UUID, query: TargetVersionQuery
) -> TargetVersionPage:
    """Return a page of what a target is and was, the newest version first."""
    await get_target(session, caller, target_id)
    now, then = Target.__table__.c, TargetVersion.__table__.c  # type: ignore[attr-defined]
    every = union_all(
        select(*now).where(now.id == target_id),
        select(*(then[column.name] for column in now)).where(then.id == target_id),
    ).subquery()

    def read(rows: Sequence[Row[Any]]) -> list[TargetRead]:
        return [read_target(row) for row in rows]

    order = Order(every.c.version, every.c.id, descending=True)
    page = await paginate(session, caller.cursors, query, select(every), order, read)
    return TargetVersionPage(**dict(page))
