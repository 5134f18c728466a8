"""The statement that counts a measure: facts, placed in a tree, by unit, period and part."""

from collections.abc import Mapping

from sqlalchemy import TextClause, text

from api.models.observations import By
from api.services.measures import COLUMNS, DISTINCT, Measure

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
            from inside join told using (unit_key)
            union all
            select unit_key, null, inside.days - coalesce(anyhow.days, '{}')
            from inside left join anyhow using (unit_key)
        ) either
        where not isempty(days))
"""

_ALL_IN_THE_NATION = """
            union all
            select unit_key, 'nation', cast(:nation as integer), daterange(null, null) from unit
"""


def counting(
    measure: Measure,
    by: By | None,
    filters: Mapping[By, str],
    *,
    dated: bool,
    below: bool,
    everywhere: bool,
) -> TextClause:
    """Return the statement that counts a measure for every target and period at once.

    Rows are (target, n, part, value): the key of the target unit, `None` where the tree does not
    tell; the number of the period, from 1; the part of `by`. `filters` maps dimensions to the
    array parameters that they must be in. `dated` places all facts in the tree of `:tree_day`.
    The targets are the units `:roots` (of the levels `:root_levels`) or, `below`, those of
    `:level` in them. `everywhere`, `:nation` is one of the roots, which everything lies in at all
    times, also a unit that was founded on nothing later. `:ats` and `:trees` are the days of
    stocks, one each for every period.

    The facts are gathered first, on their own: mixed with the placements, whose numbers the
    planner cannot guess, it chooses nested loops that take seconds.
    """
    conditions = [f"{COLUMNS[d]} = any(cast(:{name} as text[]))" for d, name in filters.items()]
    n, day = "p.n", "p.tree"
    if measure.day:
        n = f"width_bucket({measure.day}, cast(:firsts as date[]))"
        day = "cast(:tree_day as date)" if dated else measure.day
    distinct = measure.value == DISTINCT
    return text(f"""
        with period as (
            select n, at, tree
            from unnest(cast(:ats as date[]), cast(:trees as date[]))
                 with ordinality as p (at, tree, n)
        ), person as materialized (  -- row-level security looks at each of them only once
            select id, birth_year, is_youth_union_member, trained_on
            from member where deleted_at is null
        ), f as materialized (
            select {n} as n, {day} as day, {measure.unit} as unit_key,
                   {COLUMNS[by] if by else "null"} as part,
                   {measure.thing if distinct else measure.value} as thing
            from {measure.facts}
            where {" and ".join((*measure.where, *conditions))}
            {"" if distinct else "group by 1, 2, 3, 4"}
        ), unit as materialized (
            select distinct unit_key from f
        ), placed as (
            select unit_key, level, ancestor_key, during
            from placement join unit using (unit_key)
            {"where during @> cast(:tree_day as date)" if dated else ""}
            {_ALL_IN_THE_NATION if everywhere else ""}
        ), {_BELOW_ROOTS if below else _AT_ROOTS}
        select place.target, f.n, f.part,
               {"count(distinct f.thing)" if distinct else "sum(f.thing)::bigint"} as value
        from f join place on place.unit_key = f.unit_key and place.days @> f.day
        group by 1, 2, 3
    """)  # noqa: S608 - put together from constants
