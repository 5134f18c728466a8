"""Closed periods: what a unit's figures came to, frozen; late facts become visible revisions.

Targets and statistics whose days lie within a closed period of their unit, or of one above, are
not edited any more: the database sees to that (`refuse_closed_edit`), whatever path an edit takes.
"""

from collections.abc import Sequence
from datetime import date
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlmodel import col, select

from api import clock
from api.auth.caller import Caller
from api.auth.permissions import Permission
from api.auth.scope import visible
from api.db import transaction
from api.errors import FieldError, NotFound, PeriodClosed, ValidationFailed, not_found_at
from api.models.admin_units import AdminUnit
from api.models.closed_periods import (
    ClosedPeriod,
    ClosedPeriodCreate,
    ClosedPeriodItem,
    ClosedPeriodPage,
    ClosedPeriodQuery,
    ClosedPeriodRead,
    Revision,
)
from api.models.observations import (
    OBSERVATIONS,
    Boundary,
    Every,
    ObservationAnswer,
    ObservationMeta,
)
from api.models.types import Level
from api.pagination import Order, paginate
from api.services import periods
from api.services.closed_figures import (
    Figures,
    RevisionRow,
    count,
    hash_of,
    is_people,
    read_frozen,
    read_revisions,
)
from api.services.closed_revisions import Revisions
from api.services.periods import DAY, Period
from api.services.places import Place, place, under
from api.services.writing import insert_once, made_before

MOST_REVISIONS: Final = 1_000
_CLOSABLE: Final = (Every.month, Every.quarter, Every.year)

_TURN = text("select closing_turn(:key)")
_CODES = text("""
    select code from indicator where kind = 'computed' and deleted_at is null order by code
""")
_FREEZE = text("""
    insert into closed_figures (closed_period_id, people, unit_key, commune_key, province_key,
                                hash, figures)
    values (:id, :people, :unit_key, :commune_key, :province_key, :hash, cast(:figures as jsonb))
""")


async def close_period(
    session: AsyncSession, engine: AsyncEngine, caller: Caller, given: ClosedPeriodCreate
) -> tuple[ClosedPeriodRead, bool]:
    """Freeze a unit's figures of a period that has ended.

    422 `period_invalid`, `period_not_closable`, `period_running` at /period; what `place` refuses
    at /unit_id; 409 `period_closed` when it is closed already. The unit's turn is taken before the
    snapshot of the figures, and kept until they are committed.
    """
    if made := await made_before(session, caller, ClosedPeriod, given):
        return await _present(session, made), False
    period = _closable(given.period)
    where = await _place(session, caller, given.unit_id, period)
    await session.execute(_TURN, {"key": where.unit_key})
    if made := await made_before(session, caller, ClosedPeriod, given):
        return await _present(session, made), False
    mine = select(ClosedPeriod.id).where(
        col(ClosedPeriod.unit_key) == where.unit_key, col(ClosedPeriod.period) == period.label
    )
    if await session.scalar(mine):
        raise PeriodClosed(FieldError("/period", "period_closed", {"period": period.label}))
    counted = await _count(engine, caller, where, period)
    values = where.columns() | {
        "period": period.label,
        "first_on": period.first,
        "last_on": period.last,
        "closed_at": clock.now(),
        "hash": _hash(counted, where, period, people=False),
        "data_version": counted.data_version,
        "verified_share": counted.verified_share,
        "definition_versions": counted.definition_versions,
    }
    row, is_new = await insert_once(session, caller, ClosedPeriod, given, values)
    if is_new:
        await _freeze(session, row, where, period, counted)
    return await _present(session, row), is_new


def _closable(given: str) -> Period:
    """Return a month, quarter or year that has ended."""
    (period,) = periods.parse(given, pointer="/period")
    wholes = (periods.piece_of(period.first, every) for every in _CLOSABLE)
    if period not in wholes:
        raise ValidationFailed(FieldError("/period", "period_not_closable"))
    if clock.today() <= period.last:
        ends = {"ends": (period.last + DAY).isoformat()}
        raise ValidationFailed(FieldError("/period", "period_running", ends))
    return period


async def _place(session: AsyncSession, caller: Caller, unit_id: UUID, period: Period) -> Place:
    """Return where the unit stood on its last day in the period; it must have stood in it."""
    unit = await session.scalar(select(AdminUnit).where(col(AdminUnit.id) == unit_id))
    first = (unit and unit.valid_from) or period.last
    last = (unit and unit.valid_to) or date.max
    stood = min(max(period.last, first), last)
    where = await place(session, unit_id, stood, frozenset(Level))
    if not caller.reach(Permission.periods_close).covers(where):
        raise not_found_at("/unit_id")
    if not period.first <= stood <= period.last:  # which refuses, and says why
        await place(session, unit_id, period.last, frozenset(Level))
    return where


async def _count(engine: AsyncEngine, caller: Caller, where: Place, period: Period) -> Figures:
    async with transaction(engine, snapshot=True) as session:
        codes = list(await session.scalars(_CODES))
        return await count(session, caller, where.unit_id, where.level, period.label, codes)


def _hash(counted: Figures, where: Place, period: Period, *, people: bool) -> str:
    items = [item for item in counted.items if is_people(item.indicator) is people]
    return hash_of(where.unit_id, period.label, counted.definition_versions, items)


async def _freeze(
    session: AsyncSession, row: ClosedPeriod, where: Place, period: Period, counted: Figures
) -> None:
    for people in (False, True):
        items = [item for item in counted.items if is_people(item.indicator) is people]
        place_of = {
            "unit_key": where.unit_key,
            "commune_key": where.commune_key,
            "province_key": where.province_key,
        }
        await session.execute(
            _FREEZE,
            place_of
            | {
                "id": row.id,
                "people": people,
                "hash": _hash(counted, where, period, people=people),
                "figures": OBSERVATIONS.dump_json(items).decode(),
            },
        )


async def list_closed_periods(
    session: AsyncSession, caller: Caller, query: ClosedPeriodQuery
) -> ClosedPeriodPage:
    """Return a page of the closed periods in scope, the last closed first."""
    statement = visible(ClosedPeriod, caller, Permission.aggregates_read)
    if query.unit_id:
        statement = statement.where(
            col(ClosedPeriod.unit_key).in_(under(query.unit_id, clock.today()))
        )
    if query.period:
        statement = statement.where(col(ClosedPeriod.period).in_(query.period))

    def read(rows: Sequence[Row[Any]]) -> list[ClosedPeriodItem]:
        return [ClosedPeriodItem.model_validate(row.ClosedPeriod.model_dump()) for row in rows]

    order = Order(col(ClosedPeriod.closed_at), col(ClosedPeriod.id), descending=True)
    page = await paginate(session, caller.cursors, query, statement, order, read)
    return ClosedPeriodPage(**dict(page))


async def _find(session: AsyncSession, caller: Caller, closed_period_id: UUID) -> ClosedPeriod:
    found = visible(ClosedPeriod, caller, Permission.aggregates_read)
    row = await session.scalar(found.where(col(ClosedPeriod.id) == closed_period_id))
    if row is None:
        raise NotFound
    return row


async def get_closed_period(
    session: AsyncSession, revisions: Revisions, caller: Caller, closed_period_id: UUID
) -> ClosedPeriodRead:
    """Return a closed period with what its figures have become by now."""
    row = await _find(session, caller, closed_period_id)
    frozen = await read_frozen(session, row.id)
    level = await session.scalar(select(AdminUnit.level).where(AdminUnit.id == row.unit_id))
    found = await revisions.look(session, caller, row, Level(str(level)), frozen)
    people = next((part.hash for part in frozen if part.people), None)
    return _read(row, people, found)


async def _present(session: AsyncSession, row: ClosedPeriod) -> ClosedPeriodRead:
    """Return a closed period as it was last looked at."""
    frozen = await read_frozen(session, row.id)
    people = next((part.hash for part in frozen if part.people), None)
    return _read(row, people, await read_revisions(session, row.id))


def _read(
    row: ClosedPeriod, people_hash: str | None, revisions: Sequence[RevisionRow]
) -> ClosedPeriodRead:
    item = ClosedPeriodItem.model_validate(row.model_dump())
    return ClosedPeriodRead(
        **dict(item),
        people_hash=people_hash,
        revision_count=len(revisions),
        revisions=[revision_of(revision) for revision in revisions[-MOST_REVISIONS:]],
    )


def revision_of(row: RevisionRow) -> Revision:
    """Return a revision as it is shown."""
    was, became = _number(row.was), _number(row.became)
    return Revision.model_validate(
        {
            "at": row.at,
            "indicator": row.indicator,
            "unit_id": row.unit_id,
            "service_type": row.service_type,
            "was": was,
            "is": became,
            "difference": None if was is None or became is None else _number(became - was),
        }
    )


def _number(value: float | None) -> float | None:
    """Return whole numbers as such."""
    return int(value) if value is not None and value.is_integer() else value


async def frozen_observations(
    session: AsyncSession, caller: Caller, closed_period_id: UUID
) -> tuple[ObservationAnswer, str]:
    """Return the frozen figures that the caller may read, and their ETag: it never changes."""
    row = await _find(session, caller, closed_period_id)
    frozen = await read_frozen(session, row.id)
    items = [item for part in frozen for item in part.items]
    codes = {item.indicator for item in items}
    meta = ObservationMeta(
        data_version=row.data_version,
        computed_at=row.closed_at,
        complete_through=row.last_on,
        boundary=Boundary.as_recorded.value,
        definition_versions={c: v for c, v in row.definition_versions.items() if c in codes},
        verified_share=row.verified_share,
    )
    tag = "".join(part.hash[:20] for part in frozen)
    return ObservationAnswer(items=items, meta=meta), f'"{tag}"'
