"""Observations: indicators counted straight from the facts, in the dated tree of units.

A fact belongs to the unit of a level in which `placement` puts it on a day: the one that the
boundary names, today under `current`; under `as_recorded` its own day or, for stocks, the period's
last day (today, if the period runs). Inside the root, but not placed at the level asked for:
unallocated.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from pydantic import TypeAdapter
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from api import clock
from api.auth.caller import Caller, present
from api.auth.permissions import FACT_READS, Permission
from api.auth.scope import Reach
from api.errors import FieldError, ResultTooLarge, ValidationFailed, not_found_at
from api.models.observations import (
    By,
    Observation,
    ObservationAnswer,
    ObservationMeta,
    ObservationQuery,
)
from api.services import periods
from api.services.counting import counting
from api.services.event_rolls import ROLLED, Rolls, find_rolls
from api.services.masking import sees_all_people
from api.services.measures import AT_LEAST, FILTERS, FORMULAS, Formula, Measure
from api.services.observation_basis import Basis, find_basis, find_boundary
from api.services.observation_cells import Counts, items_of
from api.services.observation_land import find_land
from api.services.observation_people import check_allowed, suppressed
from api.services.observation_tables import Pages
from api.services.observation_units import (
    Asked,
    find_roots,
    find_sites,
    find_targets,
    find_territory,
)

MOST_CELLS: Final = 100_000
_VERIFIED_SHARE: Final = FORMULAS["events.verified_share"]
_ITEMS: Final = TypeAdapter(list[Observation])


async def observe(
    session: AsyncSession, caller: Caller, query: ObservationQuery
) -> tuple[ObservationAnswer, Basis]:
    """Count what is asked for: a fixed number of statements for any number of units and periods.

    Returns the answer, and what it rests on.

    404 for a root that is absent or out of scope. 422 `unknown_indicator`, `period_invalid`,
    `not_applicable` (a filter on an indicator without that dimension) or `wrong_level` (above the
    root) at the parameter; 422 `result_too_large` beyond 100,000 cells. Declared indicators have
    no statistics yet: each of their cells is `not_computable`.
    """
    today = clock.today()
    pieces = tuple(periods.parse(query.period, query.every))
    whole = periods.parse(query.period)[0]
    indicators = await _indicators(session, query)
    services = await _services(session, query)
    roots = await find_roots(session, caller, query, today)
    asked = Asked(query, today, whole, pieces, query.level, roots, services)
    targets = await find_targets(session, caller, asked)
    if len(indicators) * len(targets) * len(pieces) > MOST_CELLS:
        raise ResultTooLarge
    formulas = [FORMULAS[i.code] for i in indicators if i.code in FORMULAS]
    pages = await _shield(session, caller, asked, formulas)
    rolls = await _find_rolls(session, caller, asked, formulas)
    shown = pages.widened(asked) if pages else asked
    places = await _enter(session, caller, shown, formulas, rolls.values())
    wanted = {ROLLED[m] for f in (*formulas, _VERIFIED_SHARE) for m in f.measures if m in ROLLED}
    folded = {by: await found.count(session, wanted) for by, found in rolls.items()}
    counted = {
        (measure, by): folded[by][ROLLED[measure]]
        if measure in ROLLED and by in folded
        else await _count(session, asked, measure, by)
        for measure, by in dict.fromkeys((m, asked.by(f)) for f in formulas for m in f.measures)
    }
    items = [
        item for indicator in indicators for item in items_of(asked, indicator, targets, counted)
    ]
    if pages:
        people = {c: FORMULAS[c] for i in indicators if (c := i.code) in FORMULAS}
        hidden = {c: await pages.find(f, asked.by(f)) for c, f in people.items() if f.people}
        items = suppressed(items, hidden, asked, targets)
    verified_share = None
    if any(indicator.code.startswith("events.") for indicator in indicators):
        verified_share = await _verified_share(session, asked, folded.values())
    versions = {indicator.code: indicator.definition_version for indicator in indicators}
    content = [query.boundary, versions, verified_share, str(min(today, whole.last)), bool(pages)]
    content.append(await find_boundary(session, caller, roots))
    if query.service_type:
        content.append(services)
    meta = ObservationMeta(
        data_version=_digest(_ITEMS.dump_json(items), content),
        computed_at=clock.now(),
        complete_through=min(today, whole.last),
        boundary=query.boundary,
        definition_versions=versions,
        verified_share=verified_share,
    )
    basis = await find_basis(session, shown, formulas, places, widened=bool(pages))
    return ObservationAnswer(items=items, meta=meta), basis


def _digest(data: bytes, more: Any) -> str:
    return hashlib.sha256(data + json.dumps(more, sort_keys=True).encode()).hexdigest()[:16]


_INDICATORS = text("""
    select code, unit_of_count, definition_version from indicator
    where code = any(cast(:codes as text[])) and deleted_at is null
""")


async def _indicators(session: AsyncSession, query: ObservationQuery) -> list[Any]:
    """Return the definitions in the order asked; refuse unknown ones and filters they lack."""
    codes = list(dict.fromkeys(query.indicator))
    found = {row.code: row for row in await session.execute(_INDICATORS, {"codes": codes})}
    if not found.keys() >= set(codes):
        raise ValidationFailed(FieldError("/query/indicator", "unknown_indicator"))
    lacking = [
        FieldError(f"/query/{name}", "not_applicable", {"indicator": code})
        for name in (*FILTERS, "minimum_per_unit")
        for code in codes
        if getattr(query, name) and (code not in FORMULAS or name not in FORMULAS[code].parameters)
    ]
    needed = [FORMULAS[code].needs for code in codes if code in FORMULAS]
    lacking += [
        FieldError(f"/query/{name}", "missing")
        for name in dict.fromkeys(needed)
        if name and getattr(query, name) is None
    ]
    if lacking:
        raise ValidationFailed(*lacking)
    return [found[code] for code in codes]


_SERVICES = text("select code, parent_code, unit_of_count from service_type")


async def _services(session: AsyncSession, query: ObservationQuery) -> dict[str, str]:
    """Return the services asked for, their children included, with their units of count."""
    rows = list(await session.execute(_SERVICES))
    if not query.service_type:
        return {row.code: row.unit_of_count for row in rows}
    wanted = set(query.service_type)
    if not wanted <= {row.code for row in rows}:
        raise not_found_at("/query/service_type")
    return {row.code: row.unit_of_count for row in rows if {row.code, row.parent_code} & wanted}


# Plans for the days and units asked for: a plan for any takes a hundred times longer.
_PLAN_ANEW = text("select set_config('plan_cache_mode', 'force_custom_plan', true)")
_PROVINCES = text("select array(select key from admin_unit where level = 'province')")
_STRANGE_TEAMS = text("""
    select array(
        select distinct e.team_id from support_event e
        where e.occurred_on between cast(:first as date) and cast(:last as date)
          and not exists (select from team t where t.id = e.team_id))
""")


async def _shield(
    session: AsyncSession, caller: Caller, asked: Asked, formulas: Sequence[Formula]
) -> Pages | None:
    """Return what hides small counts of people from whoever may not read them; else `None`."""
    if not any(formula.people for formula in formulas):
        return None
    if caller.has(Permission.people_read):
        sites = await find_sites(session, asked.roots, asked.today)
        if sees_all_people(caller, sites):
            return None
    check_allowed(asked, [name for name in FILTERS if getattr(asked.query, name)])
    land = await find_land(session, caller, asked.roots)
    return Pages(session, _count, replace(asked, roots=land.provinces), land, asked.roots)


async def _enter(
    session: AsyncSession,
    caller: Caller,
    asked: Asked,
    formulas: Sequence[Formula],
    rolls: Iterable[Rolls],
) -> Reach:
    """Let the database show what was ever recorded in the roots, for the rest of the transaction.

    More than the caller's own reach where a village has moved away since (its past belongs to the
    root's), less where the root is a part of it. Each fact is placed again when it is counted, so
    that showing too much of the roots adds nothing. Teams from elsewhere that worked in the roots
    are shown by their ids, for their kind. Where it is households that lie in the roots, events of
    anywhere are shown: two readers of one unit see one figure. Of rolls, those that make up the
    answer are shown. Returns where the events lie that are shown, by themselves or in rolls.
    """
    await session.execute(_PLAN_ANEW)
    here = await find_territory(session, caller, asked)
    reaches = dict.fromkeys(FACT_READS, here)
    makes_up = [each.sources.reach for each in rolls]
    reaches[Permission.aggregates_read] = Reach(
        frozenset[int]().union(*(reach.provinces for reach in makes_up)),
        frozenset[int]().union(*(reach.communes for reach in makes_up)),
        frozenset[int]().union(*(reach.units for reach in makes_up)),
    )
    if any(measure.elsewhere for formula in formulas for measure in formula.measures):
        everywhere = await session.scalar(_PROVINCES)
        reaches[Permission.events_read] = Reach(frozenset(everywhere))
    await present(session, reaches)
    events, summed = reaches[Permission.events_read], reaches[Permission.aggregates_read]
    split_by_kind = asked.query.by is By.kind or asked.query.team_kind
    if split_by_kind and any(By.service_type in formula.dimensions for formula in formulas):
        days = {"first": asked.whole.first, "last": asked.whole.last}
        teams = await session.scalar(_STRANGE_TEAMS, days)
        reaches[Permission.teams_read] = Reach(
            here.provinces, units=here.units, teams=frozenset(teams)
        )
        await present(session, reaches)
    return Reach(
        events.provinces | summed.provinces,
        events.communes | summed.communes,
        events.units | summed.units,
    )


async def _count(session: AsyncSession, asked: Asked, measure: Measure, by: By | None) -> Counts:
    """Count a measure's facts in one statement, whatever the number of units and periods."""
    begun = asked.begun
    if not begun:
        return {}
    parameters = asked.placing | {
        "ats": [asked.at(piece) for piece in begun],
        "trees": [asked.tree(piece) for piece in begun],
    }
    parameters |= asked.filters
    if measure.value == AT_LEAST:
        parameters["minimum_per_unit"] = asked.query.minimum_per_unit
    counts: Counts = {}
    for row in await session.execute(counting(measure, by, asked), parameters):
        counts.setdefault((row.target, row.n), {})[row.part] = row.value
    return _added_up(counts, len(begun)) if measure.life else counts


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


async def _verified_share(
    session: AsyncSession, asked: Asked, folded: Iterable[Mapping[str, Counts]]
) -> float | None:
    """Return verified ÷ counted events of the roots, the filters and the whole period, 0-100."""
    sums = []
    for measure in _VERIFIED_SHARE.measures:
        known = next((columns[ROLLED[measure]] for columns in folded), None)
        if known is None:
            at_once = replace(asked, pieces=(asked.whole,), level=None)
            known = await _count(session, at_once, measure, None)
        sums.append(sum(value for parts in known.values() for value in parts.values()))
    numerator, denominator = sums
    return 100 * numerator / denominator if denominator else None


async def _find_rolls(
    session: AsyncSession, caller: Caller, asked: Asked, formulas: Sequence[Formula]
) -> dict[By | None, Rolls]:
    """Return how events are counted by rolls, for every split that these tell."""
    splits = {asked.by(f) for f in formulas if not ROLLED.keys().isdisjoint(f.measures)}
    found = {by: await find_rolls(session, caller, asked, by) for by in splits}
    return {by: rolls for by, rolls in found.items() if rolls}
