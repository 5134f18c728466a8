"""Which cells of a table of people are hidden: small ones, and what would give them away.

Primary and complementary suppression (Hundepool et al., Statistical Disclosure Control, chapter
4), kept simple: the provinces are families of communes, and a known sum over a family's hidden
cells must tell nothing about any one of them. Where no commune is left to hide, the province's own
total is hidden instead, so that a province's pattern never rests on another's data.

Numbers lie in columns, and only the families of what is hidden are looked at: a country has a
hundred thousand cells a year.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, NamedTuple

LEAST: Final = 5
"""The smallest count of people that is shown to everybody, but for 0."""

type Part = tuple[str | None, bool]
"""A part of a split, and whether it is those that the measure leaves out."""
type Column = Mapping[int, int]
"""Unit -> its number."""
type Family = tuple[str, int]
"""A boundary, and the key of a province."""


@dataclass(frozen=True)
class Ground:
    """Where the communes lie in one tree, and which of them are hidden or shown together."""

    provinces: Column
    """Commune -> province."""
    under: Mapping[int, Sequence[int]]
    """Province -> its communes."""
    first: Column = field(default_factory=dict)
    """Commune -> the first of its block: those whose territory mixed since the period began."""
    blocks: Mapping[int, Sequence[int]] = field(default_factory=dict)
    """The first of a block -> all of it; whatever is in none is a block of its own."""
    closed: AbstractSet[int] = frozenset()
    """Communes hidden in any case: both trees together would show a part of them."""

    def province(self, cell: int) -> int:
        """Return the province of a commune, or of the rest of a province: its negative key."""
        return self.provinces.get(cell, -cell)


class Sheet(NamedTuple):
    """Numbers by part and unit, and the known numbers that none of a unit's parts can exceed."""

    numbers: Mapping[Part, Column]
    caps: Mapping[str | None, Column] = {}

    def total(self, unit: int) -> int:
        """Return the sum of a unit's numbers."""
        return sum(column.get(unit, 0) for column in self.numbers.values())

    def small(self) -> Iterator[int]:
        """Give the units of which a number says something about a few people."""
        for column in self.numbers.values():
            yield from [unit for unit, number in column.items() if 0 < number < LEAST]

    def is_safe(self, group: Collection[int]) -> bool:
        """Tell whether the sums over hidden units, which are known, give none of them away.

        Two at least; no sum that is small itself; no unit that the others' greatest and smallest
        possible numbers leave one choice only.
        """
        if len(group) < 2:  # noqa: PLR2004 - one is what the sum says
            return not group
        rows = {
            part: [column.get(unit, 0) for unit in group]
            for part, column in self.numbers.items()
            if not column.keys().isdisjoint(group)
        }
        sums = {part: sum(numbers) for part, numbers in rows.items()}
        if any(0 < total < LEAST for total in sums.values()):
            return False
        for part, numbers in rows.items():
            total, caps = sums[part], self.caps.get(part[0], {})
            ceilings = [caps.get(unit, total) for unit in group]
            floor = 0
            if len(rows) == 1 and all(0 < number < LEAST for number in numbers):
                floor, ceilings = 1, [LEAST - 1] * len(group)
            room, needed = sum(ceilings), floor * len(group)
            for number, ceiling in set(zip(numbers, ceilings, strict=True)):
                low = max(floor, total - (room - ceiling))
                high = min(ceiling, total - (needed - floor))
                if number and low >= high:
                    return False
            if total == 0 and sums.get((part[0], not part[1])):
                return False
        return True


@dataclass(frozen=True)
class Page:
    """A month's counts in one tree.

    `cells` are communes and, under a province's negative key, what lies in no commune of it that
    can be told; `wholes` are provinces.
    """

    ground: Ground
    cells: Sheet
    wholes: Sheet

    @cached_property
    def filled(self) -> set[int]:
        """The cells that hold anything."""
        columns = self.cells.numbers.values()
        return {unit for column in columns for unit, number in column.items() if number}


type Table = Mapping[str, Page]
"""A month's counts, by boundary."""
type Units = Mapping[str, AbstractSet[int]]
"""By boundary."""


@dataclass(frozen=True)
class Pattern:
    """What is hidden in one month; provinces and nations are hidden in their totals."""

    blocks: AbstractSet[int] = frozenset()
    """Each by its first commune."""
    cells: Units = field(default_factory=dict)
    """Communes that hold anything, or the negative key of a province for the rest."""
    provinces: Units = field(default_factory=dict)
    nations: AbstractSet[str] = frozenset()
    """Boundaries in which the nation's total is hidden."""


def hide(table: Table, seed: Iterable[int] = ()) -> Pattern:
    """Hide the blocks with a small cell and, while a family is not safe, its smallest other."""
    return _Hiding(table, seed).done()


class _Hiding:
    """A month's hiding, under way: a family is looked at again only when more of it is hidden."""

    def __init__(self, table: Table, seed: Iterable[int]) -> None:
        self.table = table
        self.blocks = set(seed)
        self.groups = defaultdict[Family, set[int]](set)
        """What is hidden of each family."""
        self.failed = {(b, key) for b, page in table.items() for key in page.wholes.small()}
        self.alone = set[Family]()  # hidden for nothing but the other tree, which stays as it is
        self._shown: dict[Family, list[int]] = {}
        for page in table.values():
            first = page.ground.first
            self.blocks.update([first.get(cell, cell) for cell in page.cells.small()])
        for boundary, page in table.items():
            provinces, blocks = page.ground.provinces, page.ground.blocks
            hidden = self.blocks.union(*(blocks[b] for b in self.blocks & blocks.keys()))
            for cell in page.filled & (hidden | page.ground.closed):
                self.groups[boundary, provinces.get(cell, -cell)].add(cell)
        self._stale = self.groups.keys() - self.failed

    def done(self) -> Pattern:
        """Hide until all families are safe, have failed, or are left alone."""
        table = self.table
        families = sorted(
            (boundary, province)
            for boundary, page in table.items()
            for province in page.ground.under.keys() | {-c for c in page.filled if c < 0}
        )
        while self._stale:
            for family in families:
                if family in self._stale:
                    self._stale.discard(family)
                    self._look(family)
        self._spread()
        self.failed |= self.alone
        cells: dict[str, set[int]] = {boundary: set() for boundary in table}
        for (boundary, _), group in self.groups.items():
            cells[boundary] |= group
        provinces = {b: {key for boundary, key in self.failed if boundary == b} for b in table}
        nations = {
            boundary
            for boundary, page in table.items()
            if not page.wholes.is_safe([k for k in provinces[boundary] if page.wholes.total(k)])
        }
        return Pattern(self.blocks, cells, provinces, nations)

    def _look(self, family: Family) -> None:
        boundary, _ = family
        page, group = self.table[boundary], self.groups[family]
        if page.cells.is_safe(group):
            return
        first = page.ground.first
        if (other := self._smallest_shown(family)) is not None:
            self._hide(first.get(other, other))
        elif any(first.get(cell, cell) in self.blocks for cell in group):
            self.failed.add(family)
        else:
            self.alone.add(family)

    def _smallest_shown(self, family: Family) -> int | None:
        if family not in self._shown:
            boundary, province = family
            page = self.table[boundary]
            siblings = page.filled & {*page.ground.under.get(province, ()), -province}
            order = sorted(siblings, key=lambda c: (page.cells.total(c), str(c)), reverse=True)
            self._shown[family] = order
        shown, group = self._shown[family], self.groups[family]
        while shown and shown[-1] in group:
            shown.pop()
        return shown[-1] if shown else None

    def _hide(self, block: int) -> None:
        self.blocks.add(block)
        for boundary, page in self.table.items():
            for cell in page.filled.intersection(page.ground.blocks.get(block, (block,))):
                family = boundary, page.ground.province(cell)
                if cell not in self.groups[family]:
                    self.groups[family].add(cell)
                    self._stale |= {family} - self.failed - self.alone

    def _spread(self) -> None:
        """Hide a province in the one tree with those of the other tree that share its territory."""
        pages = {boundary: page for boundary, page in self.table.items() if page.filled}
        if not self.failed or len(pages) < 2:  # noqa: PLR2004 - nothing to compare
            return
        blocks = defaultdict[Family, set[int]](set)
        for boundary, page in pages.items():
            for cell in page.filled:
                family = boundary, page.ground.province(cell)
                blocks[family].add(page.ground.first.get(cell, cell))
        lost = set[int]().union(*(blocks.get(family, ()) for family in self.failed))
        while more := {f for f in blocks.keys() - self.failed if not lost.isdisjoint(blocks[f])}:
            self.failed |= more
            lost.update(*(blocks[family] for family in more))


def walk(flows: Iterable[Column], ground: Ground, boundary: str) -> Iterator[Pattern]:
    """Hide what only grows by its growth since each cell was last shown: month after month.

    Counted from 0, so that what is small itself is hidden too. A month's pattern rests on that
    month and earlier ones only: it stays when time goes on. A province that grew by a few waits,
    with its communes; a complement waits until it has grown again, lest its next number be its
    hidden one. A flow names only the cells that grew.
    """
    growth, wholes = Counter[int](), Counter[int]()
    nation, waiting = 0, set[int]()
    for flow in flows:
        growth.update(flow)
        for cell, number in flow.items():
            wholes[ground.provinces.get(cell, -cell)] += number
        nation += sum(flow.values())
        if not growth and not wholes:
            yield Pattern()  # before the first fact there is nothing to hide
            continue
        part: Part = (None, False)
        page = Page(ground, Sheet({part: growth}), Sheet({part: wholes}))
        found = hide({boundary: page}, waiting - flow.keys())
        failed = found.provinces[boundary]
        paused = {cell for cell in growth if failed and ground.province(cell) in failed}
        nations = found.nations | ({boundary} if 0 < nation < LEAST else set())
        cells = found.blocks | paused
        yield Pattern(cells, {boundary: cells}, found.provinces, nations)
        waiting = {cell for cell in found.blocks - paused if growth[cell] >= LEAST}
        growth = Counter({cell: growth[cell] for cell in cells})
        wholes = Counter({key: wholes[key] for key in failed})
        nation = nation if nations else 0
