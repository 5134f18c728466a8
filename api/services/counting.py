"""The statement that counts a measure: facts, placed in a tree, by unit, period and part."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import TextClause, text

from api.models.observations import By
from api.models.types import Level
from api.services.measures import AT_LEAST, COLUMNS, DISTINCT, FILTERS, TEAM, Measure
from api.services.observation_units import Asked

_AT_ROOTS = """
    place as materialized (
        select unit_key, ancestor_key as target, range_agg(during) as days
        from placed
        where level = any(cast(:root_levels as text[]))
          and ancestor_key = any(cast(:roots as integer[]))
        group by unit_key, ancestor_key)
"""
# Where a unit lies in the roots, but in no unit of the level that can be told: target null.
_BELOW_ROOTS = """
    inside as materialized (
        select unit_key, range_agg(during) as days
        from placed
        where level = any(cast(:root_levels as text[]))
          and ancestor_key = any(cast(:roots as integer[]))
        group by unit_key
    ), told as materialized (
        select unit_key, ancestor_key as target, range_agg(during) as days
        from placed
        where level = :level
        group by unit_key, ancestor_key
    ), anyhow as (
        select unit_key, range_agg(days) as days from told group by unit_key
    ), place as materialized (
        select unit_key, target, days
        from (
            select unit_key, target, inside.days * told.days as days
            from inside full join told using (unit_key)
            union all
            select unit_key, null, inside.days - coalesce(anyhow.days, '{}')
            from inside full join anyhow using (unit_key)
        ) either
        where not coalesce(isempty(days), true))
"""

_ALL_IN_THE_NATION = """
            union all
            select unit_key, 'nation', cast(:nation as integer), daterange(null, null) from unit
"""

IN_ROOTS = """
    e.unit_key in (select unit_key from placement
                   where ancestor_key = any(cast(:roots as integer[])))
"""
"""Events that may be placed in the roots, by their index: scope alone would not drive it."""

UNAIDED: Final = "unaided as (select set_config('noidai.unaided', '', true)),"
"""Opens a statement that the planner's helpers would not help, though it expects so.

None come where a setting might be changed; this one never is, since nothing asks for it."""

_COUNTED_FROM = """
    period as (
        select n, at, tree
        from unnest(cast(:ats as date[]), cast(:trees as date[]))
             with ordinality as p (at, tree, n)
    ), person as materialized (  -- row-level security looks at each of them only once
        select id, birth_year, is_youth_union_member, trained_on
        from member where deleted_at is null
    ),
"""


def counting(measure: Measure, by: str | None, asked: Asked) -> TextClause:
    """Return the statement that counts a measure for every target and period at once.

    Rows are (target, n, part, value), see `placed`; for a measure with a `life`, the value is by
    how much the number differs from that of period n - 1. `:ats` and `:trees` are the days of
    stocks, one each for every period; the filters' values are parameters of their names. Split by
    `TEAM`, only `:teams` count.
    """
    conditions = [FILTERS[name] for name in asked.filters if name in measure.filters]
    if measure.unit == "e.unit_key" and not asked.nation:
        conditions.append(IN_ROOTS)
    part = COLUMNS[By(by)] if by and by != TEAM else "null"
    if by == TEAM:
        part = f"{measure.team}::text"
        conditions.append(f"{measure.team} = any(cast(:teams as uuid[]))")
    n, day = "p.n", "p.tree"
    if measure.day:
        n = f"width_bucket({measure.day}, cast(:firsts as date[]))"
        day = measure.day if asked.tree_day is None else "cast(:tree_day as date)"
    if measure.life:
        return _standing(measure, part, conditions, asked)
    distinct, at_least = measure.value == DISTINCT, measure.value == AT_LEAST
    made = {DISTINCT: measure.thing, AT_LEAST: "1"}.get(measure.value, measure.value)
    facts = f"""
        select {n} as n, {day} as day, {measure.unit} as unit_key,
               {part} as part,
               {made} as thing
        from {measure.facts}
        where {" and ".join((*measure.where, *conditions))}
        {"" if distinct else "group by 1, 2, 3, 4"}
        {f"having {AT_LEAST}" if at_least else ""}
    """  # noqa: S608 - put together from constants
    value = "count(distinct f.thing)" if distinct else "sum(f.thing)::bigint"
    return placed(facts, f"{value} as value", asked, first=_COUNTED_FROM)


def placed(facts: str, values: str, asked: Asked, *, first: str = "") -> TextClause:
    """Return the statement that adds `values` of facts up by target, period and part.

    Facts are `f` (n, day, unit_key, part, …). Rows are (target, n, part, …): the key of the target
    unit, `None` where the tree does not tell; the number of the period, from 1; the part of `by`.
    All are placed in the tree of `:tree_day`, if there is one. The targets are the units `:roots`
    (of the levels `:root_levels`) or, with a level, those of `:level` in them. In the `:nation`
    lies everything at all times, also a unit that was founded on nothing later. These are the
    parameters `asked.placing`.

    The facts are gathered first, on their own: mixed with the placements, whose numbers the
    planner cannot guess, it chooses nested loops that take seconds. A full join is never one,
    while its conditions may hold for nulls: of ten thousand units the planner expects one.
    """
    return text(f"""
        with {first} {_gathered(facts, asked)}
        select place.target, f.n, f.part, {values}
        from f full join place using (unit_key)
        where coalesce(place.days @> f.day, false)
        group by 1, 2, 3
    """)  # noqa: S608 - put together from constants


def _gathered(facts: str, asked: Asked) -> str:
    return f"""
        f as materialized ({facts}
        ), unit as materialized (
            select distinct unit_key from f
        ), placed as (
            select unit_key, level, ancestor_key, during
            from placement join unit using (unit_key)
            {"where during @> cast(:tree_day as date)" if asked.tree_day else ""}
            {_ALL_IN_THE_NATION if asked.nation else ""}
        ), {_BELOW_ROOTS if asked.level else _AT_ROOTS}
    """  # noqa: S608 - put together from constants


_BEGINS = "1 + coalesce(width_bucket(lower({life}) - 1, cast(:ats as date[])), 0)"
_ENDS = "1 + width_bucket(upper({life}) - 1, cast(:ats as date[]))"


def _standing(measure: Measure, part: str, conditions: Sequence[str], asked: Asked) -> TextClause:
    """Return the statement for facts that stand from a day until another.

    Each tells in which periods it begins to count and ceases to, so that no fact is looked at
    once for every period. As recorded, the tree is that of the day on which the stock is taken:
    then it stands in a unit as long as that holds its place.
    """
    where = " and ".join((*measure.where, *conditions)) or "true"
    read = f"{measure.unit} as unit_key, {part} as part, {measure.life} as life"
    facts = f"select {read} from {measure.facts} where {where}"  # noqa: S608 - constants
    if asked.tree_day:
        stood = f"""
            {_on_day(asked)}, stood as (
                select place.target, f.part, {_BEGINS.format(life="life")} as begins,
                       {_ENDS.format(life="life")} as ends, count(*) as number
                from ({facts}) f join place using (unit_key)
                group by 1, 2, 3, 4)
        """  # noqa: S608 - put together from constants
    else:
        alike = f"select unit_key, part, life, count(*) as number from ({facts}) f group by 1, 2, 3"  # noqa: S608 - constants
        stood = f"""
            {_gathered(alike, asked)}, stood as (
                select place.target, f.part, {_BEGINS.format(life="stand")} as begins,
                       {_ENDS.format(life="stand")} as ends, f.number
                from f join place using (unit_key)
                cross join lateral unnest(place.days * datemultirange(f.life)) stand)
        """  # noqa: S608 - put together from constants
    return text(f"""
        with {stood}
        select target, turn.n, part, sum(turn.change * number)::bigint as value
        from stood cross join lateral (values (begins, 1), (ends, -1)) turn (n, change)
        where turn.n <= cardinality(cast(:ats as date[]))
        group by 1, 2, 3
    """)  # noqa: S608 - put together from constants


def _on_day(asked: Asked) -> str:
    """Return where every unit of the roots lies on one day: for many facts, all units at once."""
    inside = """
        select unit_key, ancestor_key as root from placement
        where level = any(cast(:root_levels as text[]))
          and ancestor_key = any(cast(:roots as integer[])) and during @> cast(:tree_day as date)
    """
    if asked.nation:
        inside = "select key as unit_key, cast(:nation as integer) as root from admin_unit"
    if asked.level in {None, Level.nation} and (asked.nation or not asked.level):
        return f"place as (select unit_key, root as target from ({inside}) i)"  # noqa: S608
    return f"""
        inside as materialized ({inside}), told as materialized (
            select unit_key, ancestor_key as target from placement
            where level = :level and during @> cast(:tree_day as date)
        ), place as (
            select unit_key, target from inside left join told using (unit_key))
    """  # noqa: S608 - put together from constants
