"""Progress: which figures targets ask for, and how far each target has come, as of a day."""

from collections.abc import Sequence
from datetime import date
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from api import clock
from api.auth.caller import Caller
from api.auth.permissions import Permission
from api.auth.scope import visible
from api.errors import FieldError, NotFound, ValidationFailed
from api.models.admin_units import AdminUnit
from api.models.target_progress import (
    ProgressQuery,
    TargetProgress,
    TargetProgressPage,
    TargetProgressQuery,
)
from api.models.targets import Target
from api.models.types import Level
from api.pagination import Order, paginate
from api.services import periods
from api.services.formulas import formula_of
from api.services.masking import sees_all_people
from api.services.observation_basis import Basis
from api.services.observation_units import Unit
from api.services.periods import Period
from api.services.target_figures import find_figures_of
from api.services.target_judgement import judge
from api.services.target_questions import Need, need_of
from api.services.target_rules import PARAMETERS, parameters_of
from api.services.targets import filtered

MOST_OF_A_UNIT: Final = 200
_EVER: Final = (date(1, 1, 1), date(9999, 12, 31))
_ASKS: Final = ("indicator", "first_on", "last_on", "baseline_period", "denominator", *PARAMETERS)
_COLUMNS: Final = (
    *_ASKS,
    *("id", "unit_id", "unit_key", "commune_key", "province_key", "team_id"),
    *("measure", "baseline", "comparator", "value"),
)
_SHAPE: Final = slice(0, len(_ASKS))
"""The columns that tell what is asked: targets that share them share a question."""


def _day(given: date | None) -> date:
    """Return the day as of which progress is told; 422 for one that has not come."""
    today = clock.today()
    if given and given > today:
        raise ValidationFailed(FieldError("/query/as_of", "in_the_future"))
    return given or today


def _reading(caller: Caller) -> Any:
    """Select what progress needs of targets, as plain rows: there may be thousands."""
    columns = Target.__table__.c  # type: ignore[attr-defined]
    return (
        visible(Target, caller, Permission.targets_read)
        .join(AdminUnit, col(AdminUnit.key) == col(Target.unit_key))
        .with_only_columns(
            *(columns[name] for name in _COLUMNS),
            col(AdminUnit.level),
            col(AdminUnit.valid_from),
            col(AdminUnit.valid_to),
        )
    )


async def get_progress(
    session: AsyncSession, caller: Caller, target_id: UUID, query: ProgressQuery
) -> TargetProgress:
    """Return a target's progress; 404 out of scope."""
    as_of = _day(query.as_of)
    statement = _reading(caller).where(col(Target.id) == target_id)
    row = (await session.execute(statement)).one_or_none()
    if row is None:
        raise NotFound
    (progress,), _ = await _progress_of(session, caller, [row], as_of)
    return progress


async def unit_progress(
    session: AsyncSession, caller: Caller, unit_key: int, days: Period, as_of: date
) -> list[TargetProgress]:
    """Return the progress of a unit's own targets whose period has days in common with `days`."""
    statement = _reading(caller).where(
        col(Target.unit_key) == unit_key,
        col(Target.first_on) <= days.last,
        col(Target.last_on) >= days.first,
    )
    ordered = statement.order_by(col(Target.indicator), col(Target.first_on), col(Target.id))
    rows = (await session.execute(ordered.limit(MOST_OF_A_UNIT))).all()
    return (await _progress_of(session, caller, rows, as_of))[0]


async def list_progress(
    session: AsyncSession, caller: Caller, query: TargetProgressQuery
) -> tuple[TargetProgressPage, Basis | None]:
    """Return the progress of all targets in scope, or in units of it, in one answer.

    And what it rests on; nothing is known of that where there are no targets.
    """
    as_of = _day(query.as_of)
    rows: list[Row[Any]] = []

    def keep(found: Sequence[Row[Any]]) -> list[TargetProgress]:
        rows.extend(found)
        return []

    order = Order(col(Target.id), col(Target.id))
    statement = filtered(_reading(caller), query)
    page = await paginate(session, caller.cursors, query, statement, order, keep)
    items, basis = await _progress_of(session, caller, rows, as_of)
    told = TargetProgressPage(items=items, next_cursor=page.next_cursor, total=page.total)
    return told, basis


async def _progress_of(
    session: AsyncSession, caller: Caller, rows: Sequence[Row[Any]], as_of: date
) -> tuple[list[TargetProgress], Basis | None]:
    if not rows:
        return [], None
    today = clock.today()
    units: dict[int, Unit] = {}
    alike: dict[Any, tuple[Need, Need | None]] = {}
    asking = []
    for row in rows:
        unit = units.get(row.unit_key) or units.setdefault(row.unit_key, _unit(row))
        masked = formula_of(row.indicator).people and not sees_all_people(caller, [row])
        shape = (masked, row.level, bool(row.team_id), *map(_shape, row[_SHAPE]))
        if shape not in alike:
            alike[shape] = _needs(row, unit, as_of, masked=masked, past=as_of < today)
        now, other = alike[shape]
        here = {"unit_key": row.unit_key, "team_id": row.team_id}
        now = now._replace(**here)
        if other:
            other = other._replace(unit_key=row.unit_key, team_id=other.team_id and row.team_id)
        asking.append((row, now, other))
    needs = {need for _, *both in asking for need in both if need}
    figures, basis = await find_figures_of(session, caller, needs, units, as_of)
    judged = [
        judge(row, figures[now], figures[other] if other else None, as_of, today)
        for row, now, other in asking
    ]
    return judged, basis


def _shape(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _unit(row: Row[Any]) -> Unit:
    standing = (row.valid_from or _EVER[0], row.valid_to or _EVER[1])
    names = ((_EVER[1], None, ""),)
    return Unit(row.unit_key, row.unit_id, Level(row.level), (standing,), names)


def _needs(
    row: Row[Any], unit: Unit, as_of: date, *, masked: bool, past: bool
) -> tuple[Need, Need | None]:
    """Return what a target asks, under the tree of its period's last day (or of `as_of`).

    The second is its denominator, or the period that its growth is against.
    """
    last = min(row.last_on, as_of) if past else row.last_on
    days, day = (row.first_on, max(row.first_on, last)), min(row.last_on, as_of)
    filters = parameters_of(row)

    def figure(days: tuple[date, date]) -> Need:
        return need_of(
            row.indicator,
            unit,
            days,
            day,
            filters=filters,
            team_id=row.team_id,
            masked=masked,
        )

    other = None
    if row.denominator:
        other = need_of(row.denominator, unit, days, day)
    if row.baseline_period:
        (before,) = periods.parse(row.baseline_period)
        other = figure((before.first, before.last))
    return figure(days), other
