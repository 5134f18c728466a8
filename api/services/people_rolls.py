"""Counting people by their rolls: households reached, ever and in a period, and beneficiaries.

A roll holds how many people a commune, a province or the nation had in a calendar month, quarter
or year; who changed since it was folded is looked at one by one. All is read in one snapshot, so
that an answer is exact for everything committed before it. What no roll tells (a split, a filter,
other days) is counted from the facts.
"""

from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import date
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncSession

from api import clock
from api.models.observations import Every
from api.services import periods
from api.services.counting import UNAIDED, placed
from api.services.event_sources import ALL, Sources
from api.services.formulas import (
    BENEFICIARIES,
    HOUSEHOLDS_EVER_REACHED,
    HOUSEHOLDS_REACHED,
    HOUSEHOLDS_REACHED_BY_DAY,
)
from api.services.measures import Measure
from api.services.observation_cells import Columns
from api.services.observation_units import Asked
from api.services.people_sources import Era, find_eras, find_of_events
from api.services.people_statements import (
    AHEAD,
    ALONE,
    CHANGE,
    CHANGED,
    CHANGED_THERE,
    COUNTED,
    DISTINCT,
    FIRST,
    FIRSTS,
    HOUSEHOLDS,
    REACHED,
    SINCE,
    SOURCE_COLUMNS,
    TURNS,
)
from api.services.periods import Period

type Numbers = defaultdict[int, Counter[int | None]]
"""Number of the period -> target -> people."""
type _Count = Callable[[AsyncSession, Asked, Every], Awaitable[Numbers | None]]

_EVER: Final = {"first": date.min}


async def count_people(
    session: AsyncSession, asked: Asked, measure: Measure, by: str | None
) -> Columns | None:
    """Return the numbers of a measure of people; `None` if rolls do not tell them."""
    every = _every(asked.begun)
    if measure not in _COUNTS or by or asked.filters or not asked.begun or every is None:
        return None
    found = await _COUNTS[measure](session, asked, every)
    if found is None:
        return None
    return {
        n: {None: {target: number for target, number in people.items() if number}}
        for n, people in found.items()
    }


def _every(pieces: Sequence[Period]) -> Every | None:
    """Return what all the pieces are whole ones of."""
    for every in (Every.month, Every.quarter, Every.year):
        wholes = [periods.piece_of(piece.first, every) for piece in pieces]
        if all((w.first, w.last) == (p.first, p.last) for w, p in zip(wholes, pieces, strict=True)):
            return every
    return None


async def _reached(session: AsyncSession, asked: Asked, every: Every) -> Numbers | None:
    found: Numbers = defaultdict(Counter)
    for era in await find_eras(session, asked):
        for n, people in (await _households(session, era, every.value, REACHED, {})).items():
            found[era.before + n].update(people)
    return await _with_turns(session, asked, found, REACHED)


async def _first_reached(session: AsyncSession, asked: Asked, every: Every) -> Numbers | None:
    """Return how many were reached first in each month; in 0, before all of them."""
    if every is not Every.month or asked.tree_day is None:
        return None
    (era,) = await find_eras(session, asked)
    found = await _households(session, era, "first", FIRST, _EVER)
    return await _with_turns(session, asked, found, FIRST)


async def _ever_reached(session: AsyncSession, asked: Asked, _every: Every) -> Numbers | None:
    """Return how many had been reached at the end of each period, or until today."""
    last = asked.at(asked.begun[-1])
    month_end = periods.piece_of(last, Every.month).last
    if last not in {month_end, clock.today()}:
        return None  # months do not tell
    found: Numbers = defaultdict(Counter)
    for era in await find_eras(session, asked):
        until = {"last": min(era.pieces[-1].last, last)}
        flows = await _households(session, era, "first", FIRST, _EVER | until)
        standing = flows[0]
        for n in range(1, len(era.pieces) + 1):
            standing.update(flows[n])
            found[era.before + n] = standing.copy()
    given = {"last": last, "month_end": month_end}
    more = "" if last == month_end else AHEAD
    return await _with_turns(session, asked, found, SINCE, more, given)


async def _beneficiaries(session: AsyncSession, asked: Asked, every: Every) -> Numbers | None:
    """Return how many there were: each once in a unit, wherever in it and how often it was."""
    sources = await find_of_events(session, asked)
    if sources is None:
        return None
    apart = {target for *_, unit, target in sources.rows if unit != ALL}
    found: Numbers = defaultdict(Counter)
    again: dict[int | None, list[int]] = {target: [1, len(asked.begun)] for target in apart}
    given = {"every": every.value} | _days(asked.begun)
    for n, targets, people, alone in await _rows(session, text(ALONE), sources, given):
        if alone:
            found[n].update(dict(zip(targets, people, strict=True)))
        else:
            for target in set(targets) - apart:
                again.setdefault(target, []).append(n)
    for n, people in (await _distinct(session, asked, sources, again)).items():
        known = {target: number for target, number in found[n].items() if target not in apart}
        found[n] = Counter({**people, **known})
    changed = text(CHANGED_THERE)
    if asked.tree_day:
        changed = placed(
            CHANGED.format(day="cast(:tree_day as date)"), CHANGE, asked, first=UNAIDED
        )
    for row in await session.execute(changed, asked.placing):
        found[row.n][row.target] += row.value
    return found


async def _distinct(
    session: AsyncSession,
    asked: Asked,
    sources: Sources,
    again: Mapping[int | None, Sequence[int]],
) -> Numbers:
    """Return how many people the facts are of: in some targets, from a period until another."""
    begun = asked.begun
    spans = {
        target: (begun[min(ns) - 1].first, begun[max(ns) - 1].last) for target, ns in again.items()
    }
    chosen = Sources(tuple(row for row in sources.rows if row[3] in spans))
    days = [spans[target] for *_, target in chosen.rows]
    sinces, untils = (f"{{{','.join(str(span[i]) for span in days)}}}" for i in (0, 1))
    given = {"sinces": sinces, "untils": untils} | _days(begun)
    return await _read(session, text(DISTINCT), chosen, given)


def _days(pieces: Sequence[Period]) -> dict[str, Any]:
    firsts = [piece.first for piece in pieces]
    return {"firsts": firsts, "first": firsts[0], "last": pieces[-1].last}


async def _households(
    session: AsyncSession, era: Era, every: str, in_periods: str, more: Mapping[str, Any]
) -> Numbers:
    given = {"measure": "household", "every": every} | _days(era.pieces)
    statement = text(HOUSEHOLDS.format(periods=in_periods))
    return await _read(session, statement, era.sources, {**given, **more})


async def _read(
    session: AsyncSession, statement: TextClause, sources: Sources, given: Mapping[str, Any]
) -> Numbers:
    found: Numbers = defaultdict(Counter)
    for n, targets, people in await _rows(session, statement, sources, given):
        found[n].update(dict(zip(targets, people, strict=True)))
    return found


async def _rows(
    session: AsyncSession, statement: TextClause, sources: Sources, given: Mapping[str, Any]
) -> Sequence[Any]:
    """Return what was folded: the number of the period, targets and how many people each has."""
    told: dict[str, Any] = dict(zip(SOURCE_COLUMNS, sources.written, strict=True))
    told["totals"] = sources.totals
    return (await session.execute(statement, {**given, **told})).all()


async def _with_turns(
    session: AsyncSession,
    asked: Asked,
    found: Numbers,
    in_periods: str,
    more: str = "",
    given: Mapping[str, Any] = MappingProxyType({}),
) -> Numbers:
    """Add the households that have changed since they were folded, as they stood and stand."""
    trees = [asked.tree(piece) for piece in asked.begun]
    placing = {**asked.placing, "trees": trees, **given}
    day = "cast(:tree_day as date)" if asked.tree_day else "(cast(:trees as date[]))[{n}]"
    turns = TURNS.format(day=day.format(n="m.n"), periods=in_periods)
    turns += more.format(day=day.format(n=f"cardinality({FIRSTS})"), counted=COUNTED)
    statement = placed(turns, "sum(f.change)::bigint as value", asked, first=UNAIDED)
    for row in await session.execute(statement, placing):
        found[row.n][row.target] += row.value
    return found


_COUNTS: Final[Mapping[Measure, _Count]] = {
    HOUSEHOLDS_REACHED: _reached,
    HOUSEHOLDS_EVER_REACHED: _ever_reached,
    HOUSEHOLDS_REACHED_BY_DAY: _first_reached,
    BENEFICIARIES: _beneficiaries,
}
