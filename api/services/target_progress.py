"""Progress: which figures targets ask for, and how far each target has come, as of a day."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import Row, type_coerce
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.types import NullType
from sqlmodel import col

from api import clock
from api.auth.caller import Caller
from api.auth.permissions import Permission
from api.auth.scope import visible
from api.driver import connection_of
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
from api.services.observation_basis import Change
from api.services.observation_cells import Figure
from api.services.observation_units import Unit
from api.services.periods import Period
from api.services.target_figures import Found, Part, count_parts, find_parts
from api.services.target_judgement import judge
from api.services.target_questions import Need, need_of
from api.services.target_rules import PARAMETERS, parameters_of
from api.services.targets import filtered

MOST_OF_A_UNIT: Final = 200
_EVER: Final = (date(1, 1, 1), date(9999, 12, 31))
_ASKS: Final = (
    *("indicator", "first_on", "last_on", "baseline_period", "denominator"),
    *(name for name in PARAMETERS if name != "service_types"),
)
_COLUMNS: Final = (
    *_ASKS,
    *("service_types", "id", "unit_id", "unit_key", "commune_key", "province_key", "team_id"),
    *("measure", "comparator"),
)
_FIGURES: Final = ("baseline", "value")
_SHAPE: Final = slice(0, len(_ASKS))
"""The columns that, with the services, tell what is asked: targets that share them are alike."""
_PLANNED_BY: Final = frozenset({"target", "tree", "indicator", "service_type"})
"""The nouns that say what is asked, whatever the facts are."""


class Asking(NamedTuple):
    """A target, the figure that it asks for, and its denominator or what growth is against."""

    target: Any
    now: Need
    other: Need | None


@dataclass(frozen=True)
class Plan:
    """What targets ask, understood, in the order of a page."""

    asking: Sequence[Asking]
    units: Mapping[int, Unit]
    parts: Sequence[Part]
    next_cursor: str | None = None
    total: int | None = None


type Judged = dict[UUID, tuple[Figure, Figure | None, TargetProgress]]
"""How far targets have come, with the figures that say so."""


@dataclass(frozen=True)
class Progress:
    """How far all targets of a plan have come, and all that this was made of."""

    plan: Plan
    found: Found | None = None
    """`None` where there are no targets."""
    judged: Judged = field(default_factory=dict)

    @property
    def page(self) -> TargetProgressPage:
        """As it is told."""
        items = [progress for _, _, progress in self.judged.values()]
        return TargetProgressPage(
            items=items, next_cursor=self.plan.next_cursor, total=self.plan.total
        )


def _day(given: date | None) -> date:
    """Return the day as of which progress is told; 422 for one that has not come."""
    today = clock.today()
    if given and given > today:
        raise ValidationFailed(FieldError("/query/as_of", "in_the_future"))
    return given or today


def _reading(caller: Caller) -> Any:
    """Select what progress needs of targets, as the driver gives it: there may be thousands."""
    columns = Target.__table__.c  # type: ignore[attr-defined]
    return (
        visible(Target, caller, Permission.targets_read)
        .join(AdminUnit, col(AdminUnit.key) == col(Target.unit_key))
        .with_only_columns(
            *(type_coerce(columns[name], NullType()).label(name) for name in _COLUMNS),
            *(columns[name] for name in _FIGURES),
            type_coerce(col(AdminUnit.level), NullType()).label("level"),
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
    (progress,) = (await _progress_of(session, caller, [row], as_of)).page.items
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
    return (await _progress_of(session, caller, rows, as_of)).page.items


async def list_progress(
    session: AsyncSession,
    caller: Caller,
    query: TargetProgressQuery,
    known: Progress | None = None,
) -> Progress:
    """Return the progress of all targets in scope, or in units of it, in one answer.

    Of what is `known` of the same question, only that is worked out anew which has changed.
    """
    as_of = _day(query.as_of)
    change = None
    if known and known.found:
        change = await known.found.basis.since(await connection_of(session))
        if _PLANNED_BY.isdisjoint(change.nouns):
            return await _count(session, caller, known.plan, as_of, known, change)
    rows: list[Row[Any]] = []

    def keep(found: Sequence[Row[Any]]) -> list[TargetProgress]:
        rows.extend(found)
        return []

    order = Order(col(Target.id), col(Target.id))
    statement = filtered(_reading(caller), query)
    page = await paginate(session, caller.cursors, query, statement, order, keep)
    plan = await _plan(session, caller, rows, as_of)
    plan = replace(plan, next_cursor=page.next_cursor, total=page.total)
    return await _count(session, caller, plan, as_of, known, change)


async def _progress_of(
    session: AsyncSession, caller: Caller, rows: Sequence[Row[Any]], as_of: date
) -> Progress:
    plan = await _plan(session, caller, rows, as_of)
    return await _count(session, caller, plan, as_of)


async def _plan(
    session: AsyncSession, caller: Caller, rows: Sequence[Row[Any]], as_of: date
) -> Plan:
    today = clock.today()
    units: dict[int, Unit] = {}
    alike: dict[Any, tuple[Need, Need | None]] = {}
    asking = []
    for row in rows:
        unit = units.get(row.unit_key) or units.setdefault(row.unit_key, _unit(row))
        masked = formula_of(row.indicator).people and not sees_all_people(caller, [row])
        services = tuple(row.service_types or ())
        shape = (masked, row.level, bool(row.team_id), services, row[_SHAPE])
        if shape not in alike:
            alike[shape] = _needs(row, unit, as_of, masked=masked, past=as_of < today)
        now, other = alike[shape]
        here = {"unit_key": row.unit_key, "team_id": row.team_id}
        now = now._replace(**here)
        if other:
            other = other._replace(unit_key=row.unit_key, team_id=other.team_id and row.team_id)
        asking.append(Asking(row, now, other))
    needs = [need for _, *both in asking for need in both if need]
    return Plan(asking, units, await find_parts(session, needs, units, as_of))


async def _count(
    session: AsyncSession,
    caller: Caller,
    plan: Plan,
    as_of: date,
    known: Progress | None = None,
    change: Change | None = None,
) -> Progress:
    """Count what is not known, or has changed; judge the targets whose figures are others."""
    if not plan.parts:
        return Progress(plan)
    before = known.found if known else None
    found = await count_parts(session, caller, plan.parts, plan.units, before, change)
    figures = {need: told for each in found.figures.values() for need, told in each.items()}
    judged_before = known.judged if known and plan is known.plan else {}
    today = clock.today()
    judged: Judged = {}
    for target, need, against in plan.asking:
        now, other = figures[need], figures[against] if against else None
        last = judged_before.get(target.id)
        if last is None or last[:2] != (now, other):
            last = now, other, judge(target, now, other, as_of, today)
        judged[target.id] = last
    return Progress(plan, found, judged)


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
