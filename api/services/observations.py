"""Observations: indicators counted straight from the facts, in the dated tree of units.

A fact belongs to the unit of a level in which `placement` puts it on a day: today under the
boundary `current`; under `as_recorded` its own day or, for stocks, the period's last day (today,
if the period runs). Inside the root, but not placed at the level asked for: unallocated.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, Final
from uuid import UUID

from pydantic import TypeAdapter
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from api import clock
from api.auth.caller import Caller, present
from api.auth.permissions import FACT_READS, Permission
from api.auth.scope import Reach
from api.errors import FieldError, ResultTooLarge, ValidationFailed, not_found_at
from api.models.observations import (
    Boundary,
    By,
    Observation,
    ObservationAnswer,
    ObservationMeta,
    ObservationQuery,
    ObservationStatus,
)
from api.models.types import Level
from api.services import periods
from api.services.measures import FORMULAS, Formula, Measure, counting
from api.services.periods import Period
from api.services.places import Place, find_places

MOST_CELLS: Final = 100_000
FILTERS: Final = {"service_type": By.service_type, "channel": By.channel, "team_kind": By.kind}
"""Parameter -> the dimension that it filters."""
_LEVELS: Final = list(Level)
_ITEMS: Final = TypeAdapter(list[Observation])

type Counts = dict[tuple[int | None, int], dict[str | None, int]]
"""(target's key or `None` for unallocated, number of the period) -> part of `by` -> number."""


@dataclass(frozen=True)
class Unit:
    """A unit to count in: its days under the root, and its codes and names by their last day."""

    key: int
    id: UUID
    level: Level
    standing: tuple[tuple[date, date], ...]
    names: tuple[tuple[date, str | None, str], ...]

    def stands(self, first: date, last: date) -> bool:
        """Tell whether it stood under the root on any of the days."""
        return any(since <= last and first <= until for since, until in self.standing)

    def called(self, day: date) -> tuple[str | None, str]:
        """Return its code and name on a day, or on its first or last when it did not stand."""
        state = next((s for s in self.names if day <= s[0]), self.names[-1])
        return state[1:]


@dataclass(frozen=True)
class Asked:
    """A query, understood: what is to be counted, when, and under which units."""

    query: ObservationQuery
    today: date
    whole: Period
    pieces: tuple[Period, ...]
    level: Level | None
    roots: tuple[Unit, ...]
    services: Mapping[str, str]
    """Services that the filter lets through (all without one) -> their unit of count."""

    @property
    def current(self) -> bool:
        """Whether everything is placed in today's tree."""
        return self.query.boundary is Boundary.current

    @property
    def begun(self) -> list[Period]:
        """The pieces that have begun: the first ones."""
        return [p for p in self.pieces if p.first <= self.today]

    def at(self, piece: Period) -> date:
        """Return the day on which stocks are taken: the last one, today if the piece runs."""
        return min(piece.last, self.today)

    def tree(self, piece: Period) -> date:
        """Return the day of the tree in which stocks are placed."""
        return self.today if self.current else self.at(piece)

    def window(self, piece: Period, formula: Formula | None = None) -> tuple[date, date]:
        """Return the days on one of which a unit has to stand to be counted in."""
        if self.current or (formula and formula.numerator.day is None):
            return self.tree(piece), self.tree(piece)
        return piece.first, piece.last

    def by(self, formula: Formula) -> By | None:
        """Return the dimension to split by, where the indicator has it."""
        return self.query.by if self.query.by in formula.dimensions else None


async def observe(
    session: AsyncSession, caller: Caller, query: ObservationQuery
) -> ObservationAnswer:
    """Count what is asked for: a fixed number of statements for any number of units and periods.

    422 `unknown_indicator`, `period_invalid`, `not_applicable` (a filter on an indicator without
    that dimension), `wrong_level` (above the root) or `not_found` at the parameter; 422
    `result_too_large` beyond 100,000 cells. Declared indicators have no statistics yet: each of
    their cells is `not_computable`.
    """
    today = clock.today()
    pieces = tuple(periods.parse(query.period, query.every))
    whole = periods.parse(query.period)[0]
    indicators = await _indicators(session, query)
    services = await _services(session, query)
    roots = await _roots(session, caller, query, today)
    asked = Asked(query, today, whole, pieces, query.level, roots, services)
    targets = await _targets(session, asked)
    if len(indicators) * len(targets) * len(pieces) > MOST_CELLS:
        raise ResultTooLarge
    formulas = [FORMULAS[i.code] for i in indicators if i.code in FORMULAS]
    await _enter(session, caller, asked, formulas)
    counted = {
        (measure, by): await _count(session, asked, measure, by)
        for measure, by in dict.fromkeys((m, asked.by(f)) for f in formulas for m in f.measures)
    }
    items = [
        item for indicator in indicators for item in _items(asked, indicator, targets, counted)
    ]
    verified_share = None
    if any(indicator.code.startswith("events.") for indicator in indicators):
        verified_share = await _verified_share(session, asked)
    versions = {indicator.code: indicator.definition_version for indicator in indicators}
    content = [query.boundary, versions, verified_share, str(min(today, whole.last))]
    meta = ObservationMeta(
        data_version=_digest(_ITEMS.dump_json(items), content),
        computed_at=clock.now(),
        complete_through=min(today, whole.last),
        boundary=query.boundary,
        definition_versions=versions,
        verified_share=verified_share,
    )
    return ObservationAnswer(items=items, meta=meta)


def entity_tag(caller: Caller, query: ObservationQuery, answer: ObservationAnswer) -> str:
    """Return the strong `ETag` of an answer: its data version, query, scope and format."""
    asked = {
        name: sorted(value) if name in FILTERS else value
        for name, value in query.model_dump(mode="json").items()
    }
    reach = caller.reach(Permission.aggregates_read)
    scope = [sorted(reach.provinces), sorted(reach.communes), sorted(reach.units)]
    return f'"{_digest(answer.meta.data_version.encode(), [asked, scope])}"'


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
        for name, dimension in FILTERS.items()
        for code in codes
        if getattr(query, name)
        and (code not in FORMULAS or dimension not in FORMULAS[code].dimensions)
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


_STATES = """
    cross join lateral (
        select array_agg(coalesce(upper(s.during) - 1, date '9999-12-31')
                         order by s.during) as ends,
               array_agg(s.code order by s.during) as codes,
               array_agg(s.name order by s.during) as names
        from admin_unit_state s where s.unit_key = u.key
    ) state
"""
# By default the scope: those of its units that lie in no other of them.
_ROOTS = text(f"""
    select u.key, u.id, u.level, ends, codes, names,
           array[coalesce(u.valid_from, date '0001-01-01')] as since,
           array[coalesce(u.valid_to, date '9999-12-31')] as until
    from admin_unit u {_STATES}
    where u.deleted_at is null
      and (u.id = cast(:unit_id as uuid) or u.key = any(cast(:keys as integer[])))
      and not exists (
          select from placement above
          where above.unit_key = u.key and above.during @> cast(:today as date)
            and above.ancestor_key = any(cast(:keys as integer[])) and above.ancestor_key <> u.key)
""")  # noqa: S608 - put together from constants
_TARGETS = text(f"""
    select u.key, u.id, u.level, ends, codes, names, below.since, below.until
    from (
        select u.key,
               array_agg(coalesce(lower(stood.during), date '0001-01-01')) as since,
               array_agg(coalesce(upper(stood.during) - 1, date '9999-12-31')) as until
        from admin_unit root
        join placement p on p.ancestor_key = root.key and p.level = root.level
        join admin_unit u on u.key = p.unit_key and u.level = :level and u.deleted_at is null
        cross join lateral (
            select p.during * daterange(u.valid_from, u.valid_to, '[]') as during
        ) stood
        where root.key = any(cast(:roots as integer[]))
          and stood.during && daterange(cast(:first as date), cast(:last as date), '[]')
        group by u.key
    ) below
    join admin_unit u on u.key = below.key {_STATES}
""")  # noqa: S608 - put together from constants


async def _units(session: AsyncSession, statement: Any, parameters: dict[str, Any]) -> list[Unit]:
    units = [
        Unit(
            row.key,
            row.id,
            Level(row.level),
            tuple(zip(row.since, row.until, strict=True)),
            tuple(zip(row.ends, row.codes, row.names, strict=True)),
        )
        for row in await session.execute(statement, parameters)
    ]
    return sorted(units, key=lambda unit: (unit.names[-1][1] or "", unit.names[-1][2], unit.id))


async def _roots(
    session: AsyncSession, caller: Caller, query: ObservationQuery, today: date
) -> tuple[Unit, ...]:
    """Return the root asked for, or the disjoint units that the caller's scope consists of."""
    keys = [] if query.unit_id else caller.roots(Permission.aggregates_read)
    parameters = {"unit_id": query.unit_id, "keys": keys, "today": today}
    roots = await _units(session, _ROOTS, parameters)
    if query.unit_id and not (roots and await _covers(session, caller, roots[0], today)):
        raise not_found_at("/query/unit_id")
    lowest = max((_LEVELS.index(root.level) for root in roots), default=0)
    if query.level and _LEVELS.index(query.level) < lowest:
        expected = ", ".join(_LEVELS[lowest:])
        raise ValidationFailed(FieldError("/query/level", "wrong_level", {"expected": expected}))
    return tuple(roots)


async def _covers(session: AsyncSession, caller: Caller, root: Unit, today: date) -> bool:
    """Tell whether a root lies in the caller's reach, on its last day if it has ended."""
    ((since, until),) = root.standing
    asked = (root.id, max(since, min(today, until)))
    place = (await find_places(session, [asked])).get(asked)
    return isinstance(place, Place) and caller.reach(Permission.aggregates_read).covers(place)


async def _targets(session: AsyncSession, asked: Asked) -> list[Unit]:
    """Return the units to count in: the roots, or those of the level that stood under them.

    A root that itself did not stand is always one: its cells say so.
    """
    if asked.level is None:
        return list(asked.roots)
    first, last = asked.window(asked.whole)
    parameters = {
        "roots": [root.key for root in asked.roots],
        "level": asked.level,
        "first": first,
        "last": last,
    }
    below = await _units(session, _TARGETS, parameters)
    return below + [root for root in asked.roots if not root.stands(first, last)]


# What is recorded in the roots, on any day: provinces all of whose rows are, and other units.
_TERRITORY = text("""
    with here as materialized (
        select distinct p.unit_key as key
        from admin_unit root
        join placement p on p.ancestor_key = root.key and p.level = root.level
        where root.key = any(cast(:roots as integer[]))
    ), province as materialized (
        select u.key from admin_unit u join here using (key)
        where u.level in ('nation', 'province') and not exists (
            select from placement p
            join admin_unit c on c.key = p.unit_key and c.level in ('commune', 'village')
                 and p.during && daterange(c.valid_from, c.valid_to, '[]')
            where p.ancestor_key = u.key and p.level = 'province'
              and c.key not in (select key from here))
    ), recorded as (  -- the days of a unit that are recorded under one of those provinces
        select p.unit_key as key, range_agg(p.during) as days
        from province join placement p on p.ancestor_key = province.key and p.level = 'province'
        group by p.unit_key
    )
    select array(select key from province) as provinces,
           array(select u.key
                 from here join admin_unit u using (key) left join recorded using (key)
                 where u.level in ('commune', 'village')
                   and not coalesce(recorded.days @> daterange(u.valid_from, u.valid_to, '[]'),
                                    false)) as units
""")
_STRANGE_TEAMS = text("""
    select array(
        select distinct e.team_id from support_event e
        where e.occurred_on between cast(:first as date) and cast(:last as date)
          and not exists (select from team t where t.id = e.team_id))
""")


async def _enter(
    session: AsyncSession, caller: Caller, asked: Asked, formulas: Sequence[Formula]
) -> None:
    """Let the database show what was ever recorded in the roots, for the rest of the transaction.

    More than the caller's own reach where a village has moved away since (its past belongs to the
    root's), less where the root is a part of it. Each fact is placed again when it is counted, so
    that showing too much of the roots adds nothing. Teams from elsewhere that worked in the roots
    are shown by their ids, for their kind. Households helped elsewhere are found as far as the
    caller's own reach goes.
    """
    parameters = {"roots": [root.key for root in asked.roots]}
    found = (await session.execute(_TERRITORY, parameters)).one()
    here = Reach(provinces=frozenset(found.provinces), units=frozenset(found.units))
    reaches = dict.fromkeys(FACT_READS, here)
    if any(measure.elsewhere for formula in formulas for measure in formula.measures):
        own = caller.reach(Permission.aggregates_read)
        reaches[Permission.events_read] = Reach(
            here.provinces | own.provinces, own.communes, here.units | own.units
        )
    await present(session, reaches)
    split_by_kind = asked.query.by is By.kind or asked.query.team_kind
    if split_by_kind and any(By.service_type in formula.dimensions for formula in formulas):
        days = {"first": asked.whole.first, "last": asked.whole.last}
        teams = await session.scalar(_STRANGE_TEAMS, days)
        reaches[Permission.teams_read] = Reach(
            here.provinces, units=here.units, teams=frozenset(teams)
        )
        await present(session, reaches)


async def _count(session: AsyncSession, asked: Asked, measure: Measure, by: By | None) -> Counts:
    """Count a measure's facts in one statement, whatever the number of units and periods."""
    begun, query = asked.begun, asked.query
    if not begun:
        return {}
    filters = {
        name: list(asked.services) if name == "service_type" else getattr(query, name)
        for name in FILTERS
        if getattr(query, name)
    }
    statement = counting(
        measure,
        by,
        {FILTERS[name]: name for name in filters},
        current=asked.current,
        below=asked.level is not None,
    )
    parameters = filters | {
        "roots": [root.key for root in asked.roots],
        "root_levels": sorted({root.level for root in asked.roots}),
        "level": asked.level,
        "today": asked.today,
        "first": begun[0].first,
        "last": begun[-1].last,
        "firsts": [piece.first for piece in begun],
        "ats": [asked.at(piece) for piece in begun],
        "trees": [asked.tree(piece) for piece in begun],
    }
    counts: Counts = {}
    for row in await session.execute(statement, parameters):
        counts.setdefault((row.target, row.n), {})[row.part] = row.value
    return counts


async def _verified_share(session: AsyncSession, asked: Asked) -> float | None:
    """Return verified ÷ counted events of the roots, the filters and the whole period, 0-100."""
    formula = FORMULAS["events.verified_share"]
    at_once = replace(asked, pieces=(asked.whole,), level=None)
    sums = []
    for measure in formula.measures:
        counts = await _count(session, at_once, measure, None)
        sums.append(sum(value for parts in counts.values() for value in parts.values()))
    numerator, denominator = sums
    return 100 * numerator / denominator if denominator else None


def _items(
    asked: Asked, indicator: Any, targets: Sequence[Unit], counted: Mapping[Any, Counts]
) -> Iterator[Observation]:
    """Give an indicator's cells: each target's periods in order, then what is unallocated.

    A target that did not stand, a period that has not begun and a declared indicator have one
    cell without a value; otherwise there is one cell, or one for each part of `by` with facts.
    """
    formula = FORMULAS.get(indicator.code)
    by = asked.by(formula) if formula else None
    tables = [counted.get((measure, by), {}) for measure in formula.measures] if formula else []
    for unit in (*targets, None):
        for n, piece in enumerate(asked.pieces, 1):
            cell = _Cell(asked, indicator, formula, piece, unit, by)
            if unit and not cell.exists:
                yield cell.observation(None, [])
                continue
            parts = [table.get((unit.key if unit else None, n), {}) for table in tables]
            named = sorted(set().union(*parts), key=str) if by or not unit else [None]
            for part in named:
                yield cell.observation(part, [numbers.get(part, 0) for numbers in parts])


@dataclass(frozen=True)
class _Cell:
    """An indicator in a period and a unit (`None`: unallocated)."""

    asked: Asked
    indicator: Any
    formula: Formula | None
    piece: Period
    unit: Unit | None
    by: By | None

    @property
    def exists(self) -> bool:
        """Whether there is something to count: the period has begun, and the unit stood in it."""
        return (
            self.formula is not None
            and self.unit is not None
            and self.piece.first <= self.asked.today
            and self.unit.stands(*self.asked.window(self.piece, self.formula))
        )

    def unit_of_count(self, part: str | None) -> str | None:
        """Return what is counted; `None` for services with several units of count at once."""
        if self.indicator.unit_of_count != "service":
            return str(self.indicator.unit_of_count)
        if part and self.by is By.service_type:
            return self.asked.services.get(part)
        units = set(self.asked.services.values())
        return units.pop() if len(units) == 1 else None

    def observation(self, part: str | None, numbers: Sequence[int]) -> Observation:
        """Return the cell with its numbers: those of the formula's measures, or none."""
        share = self.formula is not None and self.formula.share
        unit_of_count = self.unit_of_count(part)
        numerator, denominator = (*numbers, None, None)[:2]
        value: float | None = numerator if unit_of_count and not share else None
        if share and numerator is not None and denominator:
            value = 100 * numerator / denominator
        status = ObservationStatus.ok if value is not None else ObservationStatus.not_computable
        code, name = self.unit.called(self.asked.tree(self.piece)) if self.unit else (None, None)
        return Observation(
            indicator=self.indicator.code,
            period=self.piece.label,
            unit_id=self.unit.id if self.unit else None,
            unit_code=code,
            unit_name=name,
            service_type=part if self.by is By.service_type else None,
            channel=part if self.by is By.channel else None,
            outcome=part if self.by is By.outcome else None,
            kind=part if self.by is By.kind else None,
            value=value,
            numerator=numerator if share else None,
            denominator=denominator if share else None,
            unit_of_count=unit_of_count,
            status=status if self.unit else ObservationStatus.unallocated,
        )
