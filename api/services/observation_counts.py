"""Counting what observations and targets are made of: measures, over rolls and over facts.

First the rolls that tell what is asked are looked for, then the database is let show what lies in
the roots, then everything is counted, in one snapshot.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from api.auth.caller import Caller, present
from api.auth.permissions import FACT_READS, Permission
from api.auth.scope import Reach
from api.db import once
from api.errors import not_found_at
from api.models.observations import By
from api.services.counting import IN_ROOTS, counting
from api.services.declared_figures import find_declared
from api.services.event_rolls import ROLLED, Rolls, find_rolls
from api.services.formulas import WITHIN
from api.services.measures import AT_LEAST, TEAM, Formula, Measure
from api.services.observation_cells import Columns, Counts, Figures
from api.services.observation_units import Asked, Unit, find_territory
from api.services.people_rolls import count_people
from api.services.standing_rolls import count_standing

type Counted = dict[tuple[Measure, str | None], Figures]
"""A measure and the dimension that it is split by -> its numbers."""
type Folded = dict[By | None, dict[str, Counts]]
"""What rolls told, by the dimension that they were split by and their column."""

_SERVICES = text("select code, parent_code, unit_of_count from service_type")


async def find_catalogue(session: AsyncSession) -> list[Any]:
    """Return every service with its parent and its unit of count."""

    async def read() -> list[Any]:
        return list(await session.execute(_SERVICES))

    return await once(session, "services", read)


def services_of(
    catalogue: Sequence[Any], codes: Collection[str], pointer: str = "/query/service_type"
) -> dict[str, str]:
    """Return the services asked for (all for none), their children included: unit of count."""
    wanted = set(codes)
    if not wanted <= {row.code for row in catalogue}:
        raise not_found_at(pointer)
    return {
        row.code: row.unit_of_count
        for row in catalogue
        if not wanted or {row.code, row.parent_code} & wanted
    }


# Plans for the days and units asked for: a plan for any takes a hundred times longer.
_PLAN_ANEW = text("select set_config('plan_cache_mode', 'force_custom_plan', true)")
_PROVINCES = text("select array(select key from admin_unit where level = 'province')")
_STRANGE_TEAMS = """
    with working as materialized (
        select distinct e.team_id from support_event e where {conditions})
    select array(
        select w.team_id from working w
        where not exists (select from team t where t.id = w.team_id))
"""


async def enter_territory(
    session: AsyncSession,
    caller: Caller,
    asked: Asked,
    targets: Iterable[Unit],
    formulas: Sequence[Formula],
    rolls: Iterable[Rolls],
) -> Reach:
    """Let the database show what was ever recorded in the roots, for the rest of the transaction.

    More than the caller's own reach where a village has moved away since (its past belongs to the
    root's), less where the root is a part of it. Each fact is placed again when it is counted, so
    that showing too much of the roots adds nothing. Teams from elsewhere that worked in the roots
    are shown by their ids, for their kind. Where it is households that lie in the roots, events of
    anywhere are shown: two readers of one unit see one figure. Of rolls, those that make up the
    answer are shown, and of statistics, those of the targets themselves. Returns where the events
    lie that are shown, by themselves or in rolls.
    """
    await session.execute(_PLAN_ANEW)
    here = await find_territory(session, caller, asked)
    reaches = dict.fromkeys(FACT_READS, here)
    summed = _union(each.sources.reach for each in rolls)
    reaches[Permission.aggregates_read] = summed
    if any(measure.elsewhere for formula in formulas for measure in formula.measures):
        everywhere = await session.scalar(_PROVINCES)
        reaches[Permission.events_read] = Reach(frozenset(everywhere))
    if any(measure.declared for formula in formulas for measure in formula.measures):
        own_keys = frozenset(target.key for target in targets)
        reaches[Permission.all_statistics_read] = Reach(units=own_keys)
    await present(session, reaches)
    events = reaches[Permission.events_read]
    split_by_kind = asked.query.by is By.kind or asked.query.team_kind
    of_events = any(By.service_type in formula.dimensions for formula in formulas)
    if split_by_kind and of_events and asked.nation is None:  # the nation holds every team
        where = [WITHIN, IN_ROOTS] if events is here else [WITHIN]
        found = text(_STRANGE_TEAMS.format(conditions=" and ".join(where)))
        given = {"first": asked.whole.first, "last": asked.whole.last}
        teams = await session.scalar(found, given | {"roots": [root.key for root in asked.roots]})
        reaches[Permission.teams_read] = Reach(
            here.provinces, units=here.units, teams=frozenset(teams)
        )
        await present(session, reaches)
    return _union([events, summed])


def _union(reaches: Iterable[Reach]) -> Reach:
    each = list(reaches)
    return Reach(
        frozenset[int]().union(*(reach.provinces for reach in each)),
        frozenset[int]().union(*(reach.communes for reach in each)),
        frozenset[int]().union(*(reach.units for reach in each)),
    )


async def find_figures(
    session: AsyncSession, asked: Asked, measure: Measure, by: str | None
) -> Figures:
    """Return what is declared, or count."""
    if measure.declared:
        return await find_declared(session, asked, measure.declared)
    return await count(session, asked, measure, by)


async def count(session: AsyncSession, asked: Asked, measure: Measure, by: str | None) -> Counts:
    """Count a measure in a few statements, whatever the number of units and periods.

    What rolls tell, of people and of what stands, is counted by them, and all else from the facts.
    """
    if (told := await count_people(session, asked, measure, by)) is not None:
        return _by_target(told)
    return await _count_others(session, asked, measure, by)


async def _count_others(
    session: AsyncSession, asked: Asked, measure: Measure, by: str | None
) -> Counts:
    begun = asked.begun
    if not begun:
        return {}
    if (told := await count_standing(session, asked, measure, by)) is not None:
        return told
    parameters = asked.placing | {
        "ats": [asked.at(piece) for piece in begun],
        "trees": [asked.tree(piece) for piece in begun],
    }
    if by == TEAM:
        parameters["teams"] = list(asked.teams)
    parameters |= asked.filters
    if measure.value == AT_LEAST:
        parameters["minimum_per_unit"] = asked.query.minimum_per_unit
    counts: Counts = {}
    for row in await session.execute(counting(measure, by, asked), parameters):
        counts.setdefault((row.target, row.n), {})[row.part] = row.value
    return _added_up(counts, len(begun)) if measure.life else counts


async def count_in_columns(
    session: AsyncSession, asked: Asked, measure: Measure, by: str | None
) -> Columns:
    """Count a measure as `count` does; without a split, people come as their rolls give them."""
    if (told := await count_people(session, asked, measure, by)) is not None:
        return told
    columns: dict[int, dict[str | None, dict[int | None, int]]] = {}
    for (target, n), parts in (await _count_others(session, asked, measure, by)).items():
        for part, value in parts.items():
            columns.setdefault(n, {}).setdefault(part, {})[target] = value
    return columns


def _by_target(columns: Columns) -> Counts:
    counts: Counts = {}
    for n, parts in columns.items():
        for part, column in parts.items():
            for target, value in column.items():
                counts.setdefault((target, n), {})[part] = value
    return counts


def _added_up(changes: Counts, periods: int) -> Counts:
    """Return the numbers of every period from how they differ from the one before."""
    counts: Counts = {}
    for target in {target for target, _ in changes}:
        standing: Counter[str | None] = Counter()
        for n in range(1, periods + 1):
            standing.update(changes.get((target, n), {}))
            if parts := {part: number for part, number in standing.items() if number}:
                counts[target, n] = parts
    return counts


async def find_all_rolls(
    session: AsyncSession, caller: Caller, asked: Asked, formulas: Sequence[Formula]
) -> dict[By | None, Rolls]:
    """Return how events are counted by rolls, for every split that these tell.

    Where they tell none of those asked for, without a split: for the share that is verified.
    """
    splits = {asked.by(f) for f in formulas if not ROLLED.keys().isdisjoint(f.measures)}
    found = {by: await find_rolls(session, caller, asked, by) for by in splits}
    if found and not any(found.values()):
        found[None] = await find_rolls(session, caller, asked, None)
    return {by: rolls for by, rolls in found.items() if rolls}


async def count_measures(
    session: AsyncSession,
    asked: Asked,
    formulas: Sequence[Formula],
    rolls: Mapping[By | None, Rolls],
    also: Collection[Measure] = (),
) -> tuple[Counted, Folded]:
    """Return the numbers of all the formulas' measures, and what rolls told of them and `also`."""
    measures = {m for f in formulas for m in f.measures} | set(also)
    wanted = {ROLLED[m] for m in measures if m in ROLLED}
    folded = {by: await found.count(session, wanted) for by, found in rolls.items()}
    counted: Counted = {}
    for measure, by in dict.fromkeys((m, asked.by(f)) for f in formulas for m in f.measures):
        if measure in ROLLED and by in folded:
            counted[measure, by] = folded[by][ROLLED[measure]]
        else:
            counted[measure, by] = await find_figures(session, asked, measure, by)
    return counted, folded
