"""The canonical tables of people: whole provinces, commune by commune and month by month.

What is hidden is worked out over them, whatever the query: so no two answers differ in it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Final, Protocol

from sqlalchemy.ext.asyncio import AsyncSession

from api.errors import ResultTooLarge
from api.models.observations import Boundary, By, Every
from api.models.types import Level
from api.services import periods
from api.services.disclosure import Cell, Family, Numbers, Part, Pattern, Table, hide, walk
from api.services.measures import Formula, Measure
from api.services.observation_cells import Counts
from api.services.observation_land import Land
from api.services.observation_people import Hidden, months_of
from api.services.observation_units import Asked, Unit
from api.services.periods import Period

EPOCH: Final = date(2015, 1, 1)
"""Growth is followed from here; what was there before counts as of this month."""
MOST_COUNTED: Final = 100_000

type Rows = dict[str | None, list[int]]
"""Part -> its numbers, one for every measure."""


class Count(Protocol):
    """Counts a measure for all that is asked, in one statement."""

    async def __call__(
        self, session: AsyncSession, asked: Asked, measure: Measure, by: By | None, /
    ) -> Counts:
        """Return the numbers by target, period and part."""


@dataclass(frozen=True)
class Pages:
    """The canonical tables of one query, and how they are counted."""

    session: AsyncSession
    count: Count
    asked: Asked
    """For the provinces concerned, without level, boundary, split or filter."""
    land: Land
    roots: Sequence[Unit]
    """Those of the query itself."""

    def widened(self, asked: Asked) -> Asked:
        """Return what is asked with the roots of both: what the database has to show."""
        return replace(asked, roots=(*asked.roots, *self.land.provinces))

    async def find(self, formula: Formula, by: By | None) -> Hidden:
        """Work out what is hidden of an indicator in the months asked for."""
        months = list(dict.fromkeys(m for p in self.asked.pieces for m in months_of(p, formula)))
        if len(months) * len(self.land.standing) > MOST_COUNTED:
            raise ResultTooLarge
        if formula.grows:
            return Hidden(self.land, self.roots, formula, await self._growth(formula.grows, months))
        mixed = any(self.land.links(month) for month in months)
        boundaries = list(Boundary) if mixed else [Boundary.current]
        measures = [formula.numerator, *([formula.among] if formula.among else [])]
        tables = await self._tables(measures, months, boundaries, None)
        patterns = [hide(_known(table, len(measures))) for table in tables]
        if by:
            wholes, split = tables, await self._tables(measures, months, boundaries, by)
            patterns = [
                _joined(p, hide(_known(s, len(measures), w, p), p.blocks))
                for s, w, p in zip(split, wholes, patterns, strict=True)
            ]
        if not mixed:
            patterns = [_in_both(pattern) for pattern in patterns]
        found = {month.label: p for month, p in zip(months, patterns, strict=True)}
        return Hidden(self.land, self.roots, formula, found)

    def _over(self, months: Sequence[Period], boundary: Boundary, level: Level | None) -> Asked:
        query = self.asked.query.model_copy(update={"boundary": boundary.value})
        whole = Period("", months[0].first, months[-1].last)
        return replace(self.asked, query=query, whole=whole, pieces=tuple(months), level=level)

    async def _tables(
        self,
        measures: Sequence[Measure],
        months: Sequence[Period],
        boundaries: Sequence[Boundary],
        by: By | None,
    ) -> list["_Counted"]:
        tables, land = [_Counted({}, {}) for _ in months], self.land
        for boundary in boundaries:
            below = await self._numbers(measures, months, boundary, Level.commune, by)
            above = await self._numbers(measures, months, boundary, None, by)
            for n, (table, month) in enumerate(zip(tables, months, strict=True), 1):
                day = self.asked.today if boundary is Boundary.current else month.last
                for key, parts in below.get(n, {}).items():
                    province = self.land.province_of(key, day)
                    if province is not None:
                        closed = boundary is not Boundary.current and land.is_mixed(key, month)
                        family = (boundary.value, province)
                        table.cells[Cell(family, key, land.block(key, month), closed)] = parts
                for key, parts in above.get(n, {}).items():
                    family = (boundary.value, key)
                    table.wholes[family] = parts
                    rest = _remainder(parts, [c for f, c in table.of(family)])
                    if any(any(numbers) for numbers in rest.values()):
                        table.cells[Cell(family, -key, (-key,))] = rest
        return tables

    async def _numbers(
        self,
        measures: Sequence[Measure],
        months: Sequence[Period],
        boundary: Boundary,
        level: Level | None,
        by: By | None,
    ) -> dict[int, dict[int, Rows]]:
        """Return what was counted, by the number of the month and the unit."""
        found: dict[int, dict[int, Rows]] = {}
        for i, measure in enumerate(measures):
            over = self._over(months, boundary, level)
            counts = await self.count(self.session, over, measure, by)
            for (target, n), parts in counts.items():
                if target is None:
                    continue
                for part, value in parts.items():
                    unit = found.setdefault(n, {}).setdefault(target, {})
                    unit.setdefault(part, [0] * len(measures))[i] = value
        return found

    async def _growth(self, measure: Measure, months: Sequence[Period]) -> dict[str, Pattern]:
        every = periods.cut(Period("", EPOCH, months[-1].last), Every.month)
        if not every:
            return {}
        flows, sums = dict[Cell, list[int]](), dict[int, list[int]]()
        boundary = Boundary.current
        below = await self._numbers([measure], every, boundary, Level.commune, None)
        above = await self._numbers([measure], every, boundary, None, None)
        for n, units in above.items():
            for province, parts in units.items():
                sums.setdefault(province, [0] * len(every))[max(n, 1) - 1] += parts[None][0]
        for n, units in below.items():
            for key, parts in units.items():
                lies_in = self.land.province_of(key, self.asked.today)
                if lies_in is not None:
                    cell = Cell((boundary.value, lies_in), key, (key,))
                    flows.setdefault(cell, [0] * len(every))[max(n, 1) - 1] += parts[None][0]
        for province, row in sums.items():
            known = [numbers for cell, numbers in flows.items() if cell.family[1] == province]
            rest = [whole - sum(each) for whole, *each in zip(row, *known, strict=True)]
            if any(rest):
                flows[Cell((boundary.value, province), -province, (-province,))] = rest
        labels = [month.label for month in every]
        found = dict(zip(labels, walk(flows, len(every)), strict=True))
        return {label: _in_both(pattern) for label, pattern in found.items()}


@dataclass(frozen=True)
class _Counted:
    """A month's counts: each part's numbers, one for every measure."""

    cells: dict[Cell, Rows]
    wholes: dict[Family, Rows]

    def of(self, family: Family) -> Iterator[tuple[Cell, Rows]]:
        return ((cell, parts) for cell, parts in self.cells.items() if cell.family == family)


def _remainder(
    whole: Mapping[str | None, Sequence[int]], cells: Sequence[Mapping[str | None, Sequence[int]]]
) -> Rows:
    """Return what lies in no commune, as far as it shows: distinct people may be in several."""
    return {
        part: [
            max(0, number - sum(cell[part][i] for cell in cells if part in cell))
            for i, number in enumerate(numbers)
        ]
        for part, numbers in whole.items()
    }


def _numbers(parts: Mapping[str | None, Sequence[int]], measures: int) -> Numbers:
    numbers: dict[Part, int] = {(part, False): row[0] for part, row in parts.items()}
    if measures > 1:
        numbers |= {(part, True): max(0, row[1] - row[0]) for part, row in parts.items()}
    return numbers


def _known(
    counted: _Counted,
    measures: int,
    totals: _Counted | None = None,
    pattern: Pattern | None = None,
) -> Table:
    """Return a month's table with what everybody knows: what it is a part of, the totals shown."""
    caps: dict[tuple[Cell | Family, str | None], int] = {}
    known: list[tuple[Cell | Family, Rows]] = [*counted.cells.items(), *counted.wholes.items()]
    for key, parts in known:
        if measures > 1:
            caps |= {(key, part): row[1] for part, row in parts.items()}
        elif totals and pattern and isinstance(key, Cell) and key.block not in pattern.blocks:
            total = totals.cells.get(key, {}).get(None, [0])[0]
            caps |= {(key, part): total for part in _parts(counted)}
    cells = {cell: _numbers(parts, measures) for cell, parts in counted.cells.items()}
    wholes = {family: _numbers(parts, measures) for family, parts in counted.wholes.items()}
    return Table(cells, wholes, caps)


def _parts(counted: _Counted) -> set[str | None]:
    return {part for parts in counted.wholes.values() for part in parts}


def _joined(one: Pattern, other: Pattern) -> Pattern:
    return Pattern(
        one.blocks | other.blocks,
        one.cells | other.cells,
        one.families | other.families,
        one.nations | other.nations,
    )


def _in_both(pattern: Pattern) -> Pattern:
    """Return the pattern for both boundaries, where they do not differ."""
    both = [boundary.value for boundary in Boundary]
    cells = {(boundary, key) for _, key in pattern.cells for boundary in both}
    families = {(boundary, key) for _, key in pattern.families for boundary in both}
    return Pattern(pattern.blocks, cells, families, set(both) if pattern.nations else set())
