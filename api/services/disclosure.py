"""Which cells of a table of people are hidden: small ones, and what would give them away.

Primary and complementary suppression (Hundepool et al., Statistical Disclosure Control, chapter
4), kept simple: the provinces are families of communes, and a known sum over a family's hidden
cells must tell nothing about any one of them. Where no commune is left to hide, the province's own
total is hidden instead, so that a province's pattern never rests on another's data.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final, NamedTuple

LEAST: Final = 5
"""The smallest count of people that is shown to everybody, but for 0."""

type Part = tuple[str | None, bool]
"""A part of a split, and whether it is those that the measure leaves out."""
type Numbers = Mapping[Part, int]
type Family = tuple[str, int]
"""A boundary, and the key of a province."""
type Block = tuple[int, ...]
"""Communes whose territory mixed since the period began: hidden or shown together."""


class Cell(NamedTuple):
    """A commune, or (the province's negative key) what lies in no commune that can be told."""

    family: Family
    unit: int
    block: Block
    closed: bool = False
    """Whether it is hidden in any case: both trees together would show a part of it."""

    def is_in(self, blocks: AbstractSet[Block]) -> bool:
        """Tell whether it is hidden when the blocks are."""
        return self.closed or self.block in blocks


@dataclass(frozen=True)
class Pattern:
    """What is hidden in one month; families are hidden in their totals."""

    blocks: AbstractSet[Block] = frozenset()
    cells: AbstractSet[tuple[str, int]] = frozenset()
    """Boundaries and communes that hold anything, or the negative key of a province for the rest.
    """
    families: AbstractSet[Family] = frozenset()
    nations: AbstractSet[str] = frozenset()
    """Boundaries in which the nation's total is hidden."""


@dataclass(frozen=True)
class Table:
    """A month's counts, and the known numbers that none of a cell's parts can exceed."""

    cells: Mapping[Cell, Numbers]
    wholes: Mapping[Family, Numbers]
    caps: Mapping[tuple[Cell | Family, str | None], int] = field(default_factory=dict)


def is_small(numbers: Numbers) -> bool:
    """Tell whether any of the numbers says something about a few people."""
    return any(0 < number < LEAST for number in numbers.values())


def is_safe(table: Table, group: Sequence[Cell | Family]) -> bool:
    """Tell whether the sums over a group of hidden cells, which are known, give none of them away.

    Two at least; no sum that is small itself; no cell that the others' greatest and smallest
    possible numbers leave one choice only.
    """
    if not group:
        return True
    rows = [table.cells[c] if isinstance(c, Cell) else table.wholes[c] for c in group]
    parts = sorted(set().union(*rows), key=str)
    sums = {part: sum(row.get(part, 0) for row in rows) for part in parts}
    if len(group) == 1 or any(0 < total < LEAST for total in sums.values()):
        return False
    for part in parts:
        numbers = [row.get(part, 0) for row in rows]
        ceilings = [table.caps.get((cell, part[0]), sums[part]) for cell in group]
        floor = 0
        if len(parts) == 1 and all(0 < number < LEAST for number in numbers):
            floor, ceilings = 1, [LEAST - 1] * len(group)
        room, needed = sum(ceilings), floor * len(group)
        for number, ceiling in zip(numbers, ceilings, strict=True):
            low = max(floor, sums[part] - (room - ceiling))
            high = min(ceiling, sums[part] - (needed - floor))
            if number and low >= high:
                return False
        if table.caps and sums[part] == 0 and sums.get((part[0], not part[1])):
            return False
    return True


def hide(table: Table, seed: Iterable[Block] = ()) -> Pattern:
    """Hide the blocks with a small cell and, while a family is not safe, its smallest other."""
    hidden = set(seed) | {c.block for c, numbers in table.cells.items() if is_small(numbers)}
    failed = {family for family, numbers in table.wholes.items() if is_small(numbers)}
    alone = set[Family]()  # hidden for nothing but the other tree, which they leave as it is
    families: dict[Family, list[Cell]] = {}
    for cell in sorted(table.cells, key=lambda c: (sum(table.cells[c].values()), str(c))):
        if any(table.cells[cell].values()):
            families.setdefault(cell.family, []).append(cell)
    settled = False
    while not settled:
        settled = True
        for family in sorted(families.keys() - failed - alone):
            group = [cell for cell in families[family] if cell.is_in(hidden)]
            if is_safe(table, group):
                continue
            others = [cell for cell in families[family] if not cell.is_in(hidden)]
            if others:
                hidden.add(others[0].block)
            elif any(cell.block in hidden for cell in group):
                failed.add(family)
            else:
                alone.add(family)
            settled = False
    _spread(families, failed)
    cells = {
        (cell.family[0], cell.unit)
        for several in families.values()
        for cell in several
        if cell.is_in(hidden)
    }
    failed |= alone
    return Pattern(hidden, cells, failed, _nations(table, failed))


def _spread(families: Mapping[Family, Sequence[Cell]], failed: set[Family]) -> None:
    """Hide a province in the one tree with those of the other tree that share its territory."""
    blocks = {family: {cell.block for cell in cells} for family, cells in families.items()}
    settled = len({boundary for boundary, _ in families}) < 2  # noqa: PLR2004 - nothing to compare
    while not settled:
        settled = True
        for family in families.keys() - failed:
            if any(blocks[family] & blocks.get(other, set()) for other in failed):
                failed.add(family)
                settled = False


def _nations(table: Table, failed: Collection[Family]) -> set[str]:
    return {
        boundary
        for boundary, _ in failed
        if not is_safe(
            table, sorted(f for f in failed if f[0] == boundary and any(table.wholes[f].values()))
        )
    }


def walk(flows: Mapping[Cell, Sequence[int]], months: int) -> list[Pattern]:
    """Hide what only grows by its growth since each cell was last shown: month after month.

    Counted from 0, so that what is small itself is hidden too. A month's pattern rests on that
    month and earlier ones only: it stays when time goes on. A province that grew by a few waits,
    with its communes; a complement waits until it has grown again, lest its next number be its
    hidden one.
    """
    patterns = []
    growth = dict.fromkeys(flows, 0)
    wholes = {cell.family: 0 for cell in flows}
    nation, waiting = 0, set[Block]()
    for month in range(months):
        for cell, numbers in flows.items():
            growth[cell] += numbers[month]
            wholes[cell.family] += numbers[month]
            nation += numbers[month]
        if not (waiting or any(growth.values()) or any(wholes.values())):
            patterns.append(Pattern())  # before the first fact there is nothing to hide
            continue
        waiting -= {cell.block for cell in flows if flows[cell][month]}
        part: Part = (None, False)
        table = Table(
            {cell: {part: number} for cell, number in growth.items()},
            {family: {part: number} for family, number in wholes.items()},
        )
        found = hide(table, waiting)
        paused = {
            cell.block
            for cell, number in growth.items()
            if number and cell.family in found.families
        }
        nations = set(found.nations)
        if 0 < nation < LEAST:
            nations |= {boundary for boundary, _ in wholes}
        cells = {
            (cell.family[0], cell.unit)
            for cell, number in growth.items()
            if number and (cell.block in found.blocks or cell.block in paused)
        }
        pattern = Pattern(found.blocks | paused, cells, found.families, nations)
        patterns.append(pattern)
        waiting = {
            cell.block
            for cell, number in growth.items()
            if cell.block in found.blocks - paused and number >= LEAST
        }
        for cell in growth:
            if cell.block not in pattern.blocks:
                growth[cell] = 0
        for family in wholes.keys() - pattern.families:
            wholes[family] = 0
        nation = nation if nations else 0
    return patterns
