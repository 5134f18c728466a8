"""The canonical tables of people: whole provinces, commune by commune and month by month.

What is hidden is worked out over them, whatever the query: so no two answers differ in it.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import date
from typing import Final, Protocol

from sqlalchemy.ext.asyncio import AsyncSession

from api.errors import ResultTooLarge
from api.models.observations import Boundary, By, Every
from api.models.types import Level
from api.services import periods
from api.services.disclosure import Column, Ground, Page, Part, Pattern, Sheet, Table, hide, walk
from api.services.measures import Formula, Measure
from api.services.observation_cells import Columns
from api.services.observation_land import Land
from api.services.observation_people import Hidden, months_of
from api.services.observation_units import Asked, Unit
from api.services.periods import Period

EPOCH: Final = date(2015, 1, 1)
"""Growth is followed from here; what was there before counts as of this month."""
MOST_COUNTED: Final = 100_000

type Split = dict[str | None, dict[int, int]]
"""Part -> unit -> number."""


class Count(Protocol):
    """Counts a measure for all that is asked, in one statement."""

    async def __call__(
        self, session: AsyncSession, asked: Asked, measure: Measure, by: By | None, /
    ) -> Columns:
        """Return the numbers by period, part and target."""


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
        mixed = any(self.land.is_mixed(month) for month in months)
        boundaries = list(Boundary) if mixed else [Boundary.current]
        measures = [formula.numerator, *([formula.among] if formula.among else [])]
        wholes = await self._tables(measures, months, boundaries, None)
        patterns = [hide(table) for table in wholes]
        if by:
            split = await self._tables(measures, months, boundaries, by)
            if not formula.among:
                split = [_capped(*each) for each in zip(split, wholes, patterns, strict=True)]
            patterns = [
                _joined(pattern, hide(table, pattern.blocks))
                for table, pattern in zip(split, patterns, strict=True)
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
    ) -> list[Table]:
        tables: list[dict[str, Page]] = [{} for _ in months]
        for boundary in boundaries:
            below = await self._columns(measures, months, boundary, Level.commune, by)
            above = await self._columns(measures, months, boundary, None, by)
            recorded = boundary is Boundary.as_recorded
            for n, (table, month) in enumerate(zip(tables, months, strict=True), 1):
                lies = self.land.ground(month.last if recorded else self.asked.today)
                ground = self.land.shared(lies, month, as_recorded=recorded)
                cells = [_within(columns.get(n, {}), ground.provinces) for columns in below]
                wholes = [_named(columns.get(n, {})) for columns in above]
                _add_rests(cells, wholes, ground)
                table[boundary.value] = Page(ground, _sheet(cells), _sheet(wholes))
        return list(tables)

    async def _columns(
        self,
        measures: Sequence[Measure],
        months: Sequence[Period],
        boundary: Boundary,
        level: Level | None,
        by: By | None,
    ) -> list[Columns]:
        """Return what was counted, one for every measure."""
        over = self._over(months, boundary, level)
        return [await self.count(self.session, over, measure, by) for measure in measures]

    async def _growth(self, measure: Measure, months: Sequence[Period]) -> dict[str, Pattern]:
        every = periods.cut(Period("", EPOCH, months[-1].last), Every.month)
        if not every:
            return {}
        boundary, ground = Boundary.current, self.land.ground(self.asked.today)
        (below,) = await self._columns([measure], every, boundary, Level.commune, None)
        (above,) = await self._columns([measure], every, boundary, None, None)
        flows = _flows(below, above, ground, len(every))
        wanted = {month.label for month in months}
        return {
            month.label: _in_both(pattern)
            for month, pattern in zip(every, walk(flows, ground, boundary.value), strict=True)
            if month.label in wanted
        }


def _within(split: Mapping[str | None, Mapping[int | None, int]], provinces: Column) -> Split:
    """Return what lies in communes of which the province is known."""
    return {
        part: {unit: number for unit, number in column.items() if unit and unit in provinces}
        for part, column in split.items()
    }


def _named(split: Mapping[str | None, Mapping[int | None, int]]) -> Split:
    return {
        part: {unit: number for unit, number in column.items() if unit is not None}
        for part, column in split.items()
    }


def _rest(cells: Column, wholes: Column, ground: Ground) -> Iterator[tuple[int, int]]:
    """Give by how much each province is more than its communes together, at its negative key."""
    sums, provinces = Counter[int](), ground.provinces
    for unit, number in cells.items():
        sums[provinces[unit]] += number
    return ((-province, whole - sums[province]) for province, whole in wholes.items())


def _add_rests(cells: Sequence[Split], wholes: Sequence[Split], ground: Ground) -> None:
    """Put in what lies in no commune, as far as it shows: distinct people may be in several."""
    rests: list[tuple[Split, str | None, dict[int, int]]] = []
    for below, above in zip(cells, wholes, strict=True):
        for part, column in above.items():
            rest = _rest(below.get(part, {}), column, ground)
            rests.append((below, part, {cell: max(0, number) for cell, number in rest}))
    filled = {cell for *_, column in rests for cell, number in column.items() if number}
    for below, part, column in rests:
        rest = ((cell, number) for cell, number in column.items() if cell in filled)
        below.setdefault(part, {}).update(rest)


def _sheet(measures: Sequence[Split]) -> Sheet:
    """Return the numbers of a measure; of one among another also the others, and how many all are.

    Everybody may know how many all are.
    """
    if len(measures) == 1:
        (only,) = measures
        return Sheet({(part, False): column for part, column in only.items()})
    some, among = measures
    numbers: dict[Part, Column] = {}
    caps: dict[str | None, Column] = {}
    for part in some.keys() | among.keys():
        those, all_ = some.get(part, {}), among.get(part, {})
        units = those.keys() | all_.keys()
        numbers[part, False] = {unit: those.get(unit, 0) for unit in units}
        caps[part] = {unit: all_.get(unit, 0) for unit in units}
        numbers[part, True] = {
            unit: max(0, number - those.get(unit, 0)) for unit, number in caps[part].items()
        }
    return Sheet(numbers, caps)


def _capped(split: Table, wholes: Table, pattern: Pattern) -> Table:
    """Return a month's table, split, with what everybody knows: the totals that are shown."""
    capped = {}
    for boundary, page in split.items():
        first = page.ground.first
        totals = wholes[boundary].cells.numbers.get((None, False), {})
        known = {
            cell: totals.get(cell, 0)
            for column in page.cells.numbers.values()
            for cell in column
            if first.get(cell, cell) not in pattern.blocks
        }
        caps = dict.fromkeys((part for part, _ in page.cells.numbers), known)
        capped[boundary] = replace(page, cells=page.cells._replace(caps=caps))
    return capped


def _flows(below: Columns, above: Columns, ground: Ground, months: int) -> Iterator[Column]:
    """Give by how much each cell grew, month by month; what was there before, in the first."""
    for n in range(1, months + 1):
        cells, wholes = Counter[int](), Counter[int]()
        for i in (0, 1) if n == 1 else (n,):
            cells.update(_within(below.get(i, {}), ground.provinces).get(None, {}))
            wholes.update(_named(above.get(i, {})).get(None, {}))
        rests = {cell: number for cell, number in _rest(cells, wholes, ground) if number}
        yield {**cells, **rests}


def _joined(one: Pattern, other: Pattern) -> Pattern:
    return Pattern(
        one.blocks | other.blocks,
        {boundary: cells | other.cells[boundary] for boundary, cells in one.cells.items()},
        {boundary: keys | other.provinces[boundary] for boundary, keys in one.provinces.items()},
        one.nations | other.nations,
    )


def _in_both(pattern: Pattern) -> Pattern:
    """Return the pattern for both boundaries, where they do not differ."""
    both = [boundary.value for boundary in Boundary]
    return Pattern(
        pattern.blocks,
        dict.fromkeys(both, _all(pattern.cells.values())),
        dict.fromkeys(both, _all(pattern.provinces.values())),
        frozenset(both if pattern.nations else ()),
    )


def _all[T](several: Iterable[AbstractSet[T]]) -> AbstractSet[T]:
    return frozenset[T]().union(*several)
