"""The figures that targets rest on: counted as observations are, many targets at once.

The number of statements follows that of the different questions (see `target_questions`), not that
of the targets.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from api import clock
from api.auth.caller import Caller
from api.errors import ValidationFailed
from api.models.observations import (
    Boundary,
    By,
    Every,
    Observation,
    ObservationQuery,
    ObservationStatus,
)
from api.services import periods
from api.services.event_rolls import Rolls
from api.services.formulas import formula_of
from api.services.measures import FILTERS, TEAM, Formula
from api.services.observation_basis import Basis, find_basis
from api.services.observation_cells import Cells, Figures, items_of
from api.services.observation_counts import (
    count,
    count_measures,
    enter_territory,
    find_all_rolls,
    find_catalogue,
    find_figures,
    services_of,
)
from api.services.observation_land import find_land
from api.services.observation_people import check_allowed, suppressed
from api.services.observation_tables import Pages
from api.services.observation_units import Asked, Unit
from api.services.periods import Period
from api.services.target_questions import Kind, Need, Question


@dataclass(frozen=True)
class _Part:
    """A question, understood, with everything that is asked in it."""

    question: Question
    asked: Asked
    indicators: Sequence[Any]
    needs: Collection[Need]

    @property
    def formulas(self) -> list[Formula]:
        return [formula_of(indicator.code) for indicator in self.indicators]

    @property
    def counts_events(self) -> bool:
        """Whether any figure of it is of events."""
        return any(By.service_type in formula.dimensions for formula in self.formulas)

    def is_hidden(self, indicator: Any) -> bool:
        return self.question.masked and formula_of(indicator.code).people

    def hidden(self, indicator: Any, unit: Unit) -> Observation:
        """Return the figure that may not be shown at all."""
        cells = Cells(self.asked, indicator, formula_of(indicator.code), None)
        cell = cells.cell(unit, self.asked.whole, None, [])
        return replace(cell, status=ObservationStatus.suppressed)


_DEFINITIONS = text("""
    select code, unit_of_count from indicator where code = any(cast(:codes as text[]))
""")
_LISTS: Final = frozenset(FILTERS)


async def find_figures_of(
    session: AsyncSession,
    caller: Caller,
    needs: Collection[Need],
    units: Mapping[int, Unit],
    as_of: date,
) -> tuple[dict[Need, Observation], Basis]:
    """Return the figure of every need, as the observation of its unit under its tree.

    And what they rest on, targets included. From here on the transaction shows what lies in the
    units, and no longer the caller's rows.
    """
    codes = sorted({need.indicator for need in needs})
    found = await session.execute(_DEFINITIONS, {"codes": codes})
    definitions = {row.code: row for row in found}
    catalogue = await find_catalogue(session)
    parts = list(_parts(needs, units, definitions, catalogue, as_of))
    figures: dict[Need, Observation] = {}
    pages = {part.question: p for part in parts if (p := await _pages(session, caller, part))}
    rolls = {
        part.question: await find_all_rolls(session, caller, part.asked, part.formulas)
        for part in parts
        if part.question.kind is not Kind.teams
    }
    basis = await _enter(session, caller, parts, list(pages.values()), rolls.values(), units)
    for part in parts:
        told = rolls.get(part.question, {})
        if part.question.kind is Kind.whole:
            figures |= await _of_units(session, part, told, pages.get(part.question))
        else:
            figures |= await _added_up(session, part, told, catalogue)
    return figures, basis


def _parts(
    needs: Collection[Need],
    units: Mapping[int, Unit],
    definitions: Mapping[str, Any],
    catalogue: Sequence[Any],
    as_of: date,
) -> Iterator[_Part]:
    """Put together what is one question; the units of one level do not lie in each other."""
    together: dict[Question, list[Need]] = {}
    for need in needs:
        together.setdefault(need.question, []).append(need)
    for question, several in together.items():
        filters = dict(question.filters)
        services = {code for need in several for code in need.services}
        if services:
            filters["service_type"] = sorted(services)
        by = By.service_type if question.kind is Kind.services else None
        boundary = Boundary.as_recorded.value if question.masked else question.day.isoformat()
        asks_of = sorted({need.indicator for need in several})
        first, last = min(n.first for n in several), max(n.last for n in several)
        whole = Period(f"{first}/{last}", first, last)
        in_months = question.kind in {Kind.months, Kind.services}
        asked = Asked(
            query=ObservationQuery.model_construct(
                **{name: filters.get(name, []) for name in _LISTS},
                **{name: value for name, value in filters.items() if name not in _LISTS},
                indicator=asks_of,
                period=whole.label,
                boundary=boundary,
                by=by,
            ),
            today=as_of,
            whole=whole,
            pieces=tuple(periods.cut(whole, Every.month)) if in_months else (whole,),
            level=None,
            roots=tuple(units[key] for key in sorted({need.unit_key for need in several})),
            services=services_of(catalogue, services),
            teams=tuple(sorted({need.team_id for need in several if need.team_id})),
        )
        yield _Part(question, asked, [definitions[code] for code in asks_of], several)


async def _pages(session: AsyncSession, caller: Caller, part: _Part) -> Pages | None:
    """Return what hides small counts of people; `None` where none are asked, or all is hidden."""
    if not any(part.is_hidden(indicator) for indicator in part.indicators):
        return None
    asked = part.asked
    try:
        check_allowed(replace(asked, today=clock.today()), dict(part.question.filters))
    except ValidationFailed:
        return None
    land = await find_land(session, caller, asked.roots)
    return Pages(session, count, replace(asked, roots=land.provinces), land, asked.roots)


async def _enter(
    session: AsyncSession,
    caller: Caller,
    parts: Sequence[_Part],
    pages: Sequence[Pages],
    rolls: Collection[Mapping[Any, Rolls]],
    units: Mapping[int, Unit],
) -> Basis:
    """Let the database show what was ever recorded in any of the units."""
    first, last = parts[0].asked, parts[-1].asked
    roots = {unit.key: unit for unit in units.values()}
    roots |= {unit.key: unit for page in pages for unit in page.land.provinces}
    of_kinds = (p.asked.query for p in parts if p.asked.query.team_kind and p.counts_events)
    query = next(of_kinds, first.query.model_copy(update={"team_kind": []}))
    days = [day for p in parts for day in (p.asked.whole.first, p.asked.whole.last)]
    everything = replace(
        last,
        query=query,
        whole=Period("", min(days), max(days)),
        roots=tuple(roots[key] for key in sorted(roots)),
    )
    formulas = [formula for part in parts for formula in part.formulas]
    told = [each for several in rolls for each in several.values()]
    places = await enter_territory(session, caller, everything, units.values(), formulas, told)
    return await find_basis(session, everything, formulas, places, widened=True, also={"target"})


async def _of_units(
    session: AsyncSession, part: _Part, rolls: Mapping[Any, Rolls], pages: Pages | None
) -> dict[Need, Observation]:
    asked = part.asked
    shown = [i for i in part.indicators if pages or not part.is_hidden(i)]
    formulas = [formula_of(indicator.code) for indicator in shown]
    counted, _ = await count_measures(session, asked, formulas, rolls)
    told: dict[tuple[str, UUID], Observation] = {}
    for indicator, formula in zip(shown, formulas, strict=True):
        items = list(items_of(asked, indicator, asked.roots, counted))
        items = [item for item in items if item.unit_id]
        if pages and part.is_hidden(indicator):
            hidden = await pages.find(formula, None)
            items = suppressed(items, {indicator.code: hidden}, asked, asked.roots)
        told |= {(item.indicator, item.unit_id): item for item in items if item.unit_id}
    for indicator in part.indicators:
        if indicator not in shown:
            told |= {(indicator.code, u.id): part.hidden(indicator, u) for u in asked.roots}
    units = {unit.key: unit for unit in asked.roots}
    return {need: told[need.indicator, units[need.unit_key].id] for need in part.needs}


async def _added_up(
    session: AsyncSession, part: _Part, rolls: Mapping[Any, Rolls], catalogue: Sequence[Any]
) -> dict[Need, Observation]:
    """Return what single teams did, or what months and services add up to."""
    asked, units = part.asked, {unit.key: unit for unit in part.asked.roots}
    by: str | None = TEAM if part.question.kind is Kind.teams else asked.query.by
    counted: Mapping[Any, Figures] = {}
    if part.question.kind is not Kind.teams:
        counted, _ = await count_measures(session, asked, part.formulas, rolls)
    figures: dict[Need, Observation] = {}
    for indicator, formula in zip(part.indicators, part.formulas, strict=True):
        needs = [need for need in part.needs if need.indicator == indicator.code]
        if part.is_hidden(indicator):
            figures |= {need: part.hidden(indicator, units[need.unit_key]) for need in needs}
            continue
        tables = [
            counted[m, by] if (m, by) in counted else await find_figures(session, asked, m, by)
            for m in formula.measures
        ]
        several = _Sums(asked, indicator, formula, tables, catalogue)
        figures |= {need: several.of(need, units[need.unit_key]) for need in needs}
    return figures


@dataclass(frozen=True)
class _Sums:
    """Sums of an indicator's numbers over months and parts."""

    asked: Asked
    indicator: Any
    formula: Formula
    tables: Sequence[Figures]
    catalogue: Sequence[Any]
    _cells: dict[tuple[str, ...], Cells] = field(default_factory=dict)
    _numbers: dict[tuple[date, date], list[int]] = field(default_factory=dict)

    def of(self, need: Need, unit: Unit) -> Observation:
        """Return the figure of a need in its unit."""
        cells = self._cells.get(need.services)
        if cells is None:
            asked = replace(self.asked, services=services_of(self.catalogue, need.services))
            cells = Cells(asked, self.indicator, self.formula, None)
            self._cells[need.services] = cells
        whole = Period(self.asked.whole.label, need.first, need.last)
        if not cells.exist(unit, whole):
            return cells.cell(unit, whole, None, [])
        parts: Collection[str | None] = [str(need.team_id) if need.team_id else None]
        if need.question.kind is Kind.services:
            parts = cells.asked.services
        numbers = [self._sum(table, unit, need, parts) for table in self.tables]
        return cells.cell(unit, whole, None, numbers)

    def _sum(self, table: Figures, unit: Unit, need: Need, parts: Collection[str | None]) -> float:
        days = (need.first, need.last)
        if days not in self._numbers:
            pieces = enumerate(self.asked.pieces, 1)
            self._numbers[days] = [n for n, p in pieces if days[0] <= p.first <= days[1]]
        total: float = 0
        for n in self._numbers[days]:
            if found := table.get((unit.key, n)):
                total += sum(found.get(part, 0) for part in parts)
        return total
