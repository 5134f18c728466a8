"""What is hidden of a month: no more than the rule says, and nothing that the rest tells."""

from collections.abc import Iterable, Sequence
from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as some

from api.services.disclosure import (
    LEAST,
    Family,
    Ground,
    Page,
    Part,
    Pattern,
    Sheet,
    Table,
    hide,
    walk,
)

COMMUNES = range(1, 9)
PROVINCES = (100, 101, 102)
RESTS = [-province for province in PROVINCES]
PLACES = some.sampled_from(PROVINCES)
NUMBERS = some.sampled_from([0, 0, 1, 2, 3, 4, 5, 6, 9, 30])


def ground(provinces: dict[int, int], blocks: Iterable[Sequence[int]] = ()) -> Ground:
    under: dict[int, list[int]] = {}
    for commune, province in provinces.items():
        under.setdefault(province, []).append(commune)
    first = {commune: block[0] for block in blocks for commune in block}
    return Ground(provinces, under, first, {block[0]: block for block in blocks})


@some.composite
def pages(draw: some.DrawFn, blocks: Sequence[Sequence[int]], *, recorded: bool) -> Page:
    """Draw a tree's month, of one part or two that make up a total."""
    lies = ground(draw(some.dictionaries(some.sampled_from(COMMUNES), PLACES)), blocks)
    if recorded:
        closed = draw(some.frozensets(some.sampled_from(COMMUNES))) & lies.first.keys()
        lies = Ground(lies.provinces, lies.under, lies.first, lies.blocks, frozenset(closed))
    named = [*lies.provinces, *draw(some.lists(some.sampled_from(RESTS), unique=True))]
    parts: Sequence[Part] = [(None, False), (None, True)][: draw(some.integers(1, 2))]
    columns = {part: {cell: draw(NUMBERS) for cell in named} for part in parts}
    wholes = {part: dict.fromkeys(PROVINCES, 0) for part in parts}
    for part, column in columns.items():
        for cell, number in column.items():
            wholes[part][lies.province(cell)] += number
    return Page(lies, capped(columns), capped(wholes))


def capped(columns: dict[Part, dict[int, int]]) -> Sheet:
    """Return the numbers with what everybody knows if there are two parts: how many all are."""
    sheet = Sheet(dict(columns))
    if len(columns) == 1:
        return sheet
    return Sheet(sheet.numbers, {None: {c: sheet.total(c) for c in columns[None, False]}})


@some.composite
def tables(draw: some.DrawFn) -> Table:
    """Draw both trees of a month; up to two blocks of communes share their territory."""
    order = draw(some.permutations(COMMUNES))
    cut, end = sorted(draw(some.tuples(some.integers(0, 8), some.integers(0, 8))))
    blocks = [sorted(block) for block in (order[:cut], order[cut:end]) if len(block) > 1]
    table = {"current": draw(pages(blocks, recorded=False))}
    if draw(some.booleans()):
        table["as_recorded"] = draw(pages(blocks, recorded=True))
    return table


def by_the_rule(table: Table, seed: set[int]) -> Pattern:
    """Hide as `hide` does, but look at every family anew after every step."""
    first = {b: {c: page.ground.first.get(c, c) for c in page.filled} for b, page in table.items()}
    blocks = seed | {
        page.ground.first.get(c, c) for page in table.values() for c in page.cells.small()
    }
    families: dict[Family, list[int]] = {}
    for boundary, page in table.items():
        for cell in sorted(page.filled, key=lambda c: (page.cells.total(c), str(c))):
            families.setdefault((boundary, page.ground.province(cell)), []).append(cell)

    def hidden(family: Family) -> list[int]:
        known, closed = first[family[0]], table[family[0]].ground.closed
        return [c for c in families[family] if c in closed or known[c] in blocks]

    failed = {(b, key) for b, page in table.items() for key in page.wholes.small()}
    alone = set[Family]()
    settled = False
    while not settled:
        settled = True
        for family in sorted(families.keys() - failed - alone):
            boundary, group = family[0], hidden(family)
            if table[boundary].cells.is_safe(group):
                continue
            settled = False
            others = [c for c in families[family] if c not in group]
            if others:
                blocks.add(first[boundary][others[0]])
            elif any(first[boundary][c] in blocks for c in group):
                failed.add(family)
            else:
                alone.add(family)
    lies = {family: {first[family[0]][c] for c in cells} for family, cells in families.items()}
    trees = {boundary for boundary, _ in families}
    while len(trees) > 1 and (
        more := {f for f in lies.keys() - failed for o in failed if lies[f] & lies.get(o, set())}
    ):
        failed |= more
    failed |= alone
    cells = {b: {c for f in families if f[0] == b for c in hidden(f)} for b in table}
    provinces = {b: {key for boundary, key in failed if boundary == b} for b in table}
    nations = {
        b
        for b, page in table.items()
        if not page.wholes.is_safe([key for key in provinces[b] if page.wholes.total(key)])
    }
    return Pattern(blocks, cells, provinces, nations)


@settings(deadline=None)
@given(tables(), some.sets(some.sampled_from(COMMUNES), max_size=2))
def test_looking_only_at_what_changed_hides_what_the_rule_hides(
    table: Table, seed: set[int]
) -> None:
    seed = {page.ground.first.get(c, c) for page in table.values() for c in seed}

    assert hide(table, seed) == by_the_rule(table, seed)


@settings(deadline=None)
@given(tables())
def test_no_small_number_is_shown(table: Table) -> None:
    pattern = hide(table)

    for boundary, page in table.items():
        assert pattern.cells[boundary] >= set(page.cells.small())
        assert pattern.provinces[boundary] >= set(page.wholes.small())
        assert pattern.cells[boundary] >= page.ground.closed & page.filled


def choices(sheet: Sheet, group: Sequence[int]) -> list[set[int]]:
    """Return what each cell of a group may be, for whoever knows the sum over it and the caps."""
    (column,) = (column for part, column in sheet.numbers.items() if part == (None, False))
    numbers = [column[cell] for cell in group]
    total, caps = sum(numbers), sheet.caps.get(None, {})
    least, most = 0, [caps.get(cell, total) for cell in group]
    if not caps and all(0 < number < LEAST for number in numbers):
        least, most = 1, [LEAST - 1] * len(group)
    spans = (range(least, ceiling + 1) for ceiling in most)
    found = [each for each in product(*spans) if sum(each) == total]
    return [set(values) for values in zip(*found, strict=True)]


@settings(deadline=None)
@given(
    numbers=some.lists(some.integers(1, 6), min_size=1, max_size=3),
    among=some.booleans(),
    data=some.data(),
)
def test_what_is_safe_leaves_every_hidden_number_a_choice(
    numbers: list[int], *, among: bool, data: some.DataObject
) -> None:
    column = dict(enumerate(numbers, 1))
    sheet = Sheet({(None, False): column})
    if among:
        others = {cell: data.draw(some.integers(0, 5)) for cell in column}
        sheet = capped({(None, False): column, (None, True): others})
    group = list(column)

    if sheet.is_safe(group):
        assert len(group) > 1
        assert sum(numbers) >= LEAST
        assert all(len(values) > 1 for values in choices(sheet, group))
    elif not among and len(group) > 1 and sum(numbers) >= LEAST:
        assert any(len(values) == 1 for values in choices(sheet, group))


@settings(deadline=None)
@given(
    some.dictionaries(some.sampled_from(COMMUNES), PLACES, min_size=1),
    some.lists(some.dictionaries(some.sampled_from(COMMUNES), NUMBERS), max_size=9),
)
def test_growth_is_shown_only_by_five_or_more(
    provinces: dict[int, int], months: list[dict[int, int]]
) -> None:
    """And what is shown of a month does not change with the months that follow."""
    flows = [{c: n for c, n in month.items() if n and c in provinces} for month in months]
    lies = ground(provinces)
    patterns = list(walk(flows, lies, "current"))

    assert patterns[:-1] == list(walk(flows[:-1], lies, "current"))
    grew = dict.fromkeys([*provinces, *PROVINCES, 0], 0)
    for flow, pattern in zip(flows, patterns, strict=True):
        for cell, number in flow.items():
            for key in (cell, provinces[cell], 0):
                grew[key] += number
        cells = pattern.cells.get("current", set[int]())
        failed = pattern.provinces.get("current", set[int]())
        for province in set(PROVINCES) - failed:
            waits = [c for c in cells if provinces[c] == province]
            assert Sheet({(None, False): grew}).is_safe(waits)
        hidden = cells | failed | ({0} if pattern.nations else set())
        for key in grew.keys() - hidden:
            assert not 0 < grew[key] < LEAST
            grew[key] = 0
