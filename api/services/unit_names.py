"""Units by their names: accents aside, old names too, the best match first, typos forgiven.

A search reads the distinct names first (`unit_name`), then the units that bear the best of them
on the day asked, or bore them before. What stands of a name's former bearer on that day is found
by walking what became of it, however many steps: all parts of what was split.
"""

from datetime import date
from typing import Any

from sqlalchemy import Date, Subquery, Text, Uuid, text
from sqlalchemy import column as named
from sqlalchemy.ext.asyncio import AsyncSession

from api import ids
from api.models.admin_units import AdminUnitQuery
from api.models.types import Level

MOST_UNITS = 500
"""Units in the order of relevance: the best of any number. In an order of names there are all."""
MOST_SIMILAR = 100
"""Names that are only like the one that was asked for, when nothing else narrows the search."""
MOST_FORMER = 2_000
"""Former bearers of a name that are walked from, the best names' first."""
NATION = ids.official_unit_id("nation", "VN")
LEVELS = list(Level)

_WORD = r"""
    with recursive word as materialized (
        select given.whole, bare_name(given.whole) as bare,
               '% ' || regexp_replace(given.whole, '([\\%_])', '\\\1', 'g') || '%' as inside,
               given.whole ~ '^[[:alnum:]]{3}' as is_word
        from (select search_text(:q) collate "C" as whole) given
    )"""
_LITERAL = """, hit as materialized (
        select case when n.search = w.whole or n.bare = w.whole then '0'
                    when starts_with(n.search, w.whole) or starts_with(n.bare, w.whole) then '1'
                    else '2' end as quality, n.level, n.search
        from word w cross join lateral (
            select b.* from generate_series(1, 5) as l cross join lateral (
                select n.level, n.search, n.bare from unit_name n
                where n.level = l and n.bare >= w.whole and n.bare < w.whole || chr(1114111)
                  and (l < 5 or length(w.whole) > 2 or n.bare = w.whole) offset 0) b
            union
            select b.* from generate_series(1, 5) as l cross join lateral (
                select n.level, n.search, n.bare from unit_name n
                where n.level = l and n.search >= w.whole and n.search < w.whole || chr(1114111)
                offset 0) b
            where w.bare <> w.whole
            union
            select n.level, n.search, n.bare from unit_name n
            where n.bare like w.inside and w.is_word) n
        where w.whole <> ''
    )"""
_SIMILAR = """, hit as materialized (
        select '3' || lpad((1000 - 1000 * n.alike)::integer::text, 4, '0') as quality,
               n.level, n.search
        from (select n.level, n.search, similarity(w.bare, n.bare) as alike
              from word w join unit_name n on w.bare <% n.bare
              where w.bare ~ '[[:alnum:]]'
              order by alike desc, n.level, n.search limit :names) n
    )"""
_FORGIVE = text("""
    select set_config('pg_trgm.word_similarity_threshold',
                      case when length(search_text(:q)) < 8 then '0.5' else '0.54' end, true)
""")
_LEVEL = "(cast(:levels as integer[]) is null or {} = any(cast(:levels as integer[])))"
_OWN = """, placed as materialized (
        select h.*, h.quality || h.level || h.search collate "C" as place from hit h
    ), own as (
        select h.quality || '0' || h.level || h.search as rank, u.key, u.id, 'name' as kind,
               u.name, u.code, u.id as unit_id, cast(null as date) as until
        from (select * from placed h where {level} order by place) h
        cross join lateral (
            select u.key, u.id, s.name, s.code
            from admin_unit_state s join admin_unit u on u.key = s.unit_key
            where s.search collate "C" = h.search and s.during @> cast(:day as date)
              and u.level = (cast(:all_levels as text[]))[h.level] and u.deleted_at is null
              and {narrow} and {inside}
            offset 0) u
        order by h.place, u.id limit :most
    )"""
# Limits and offsets inside keep each step a look into an index: joins would read whole tables.
_FOUND = """, enough as materialized (
        select coalesce(max(rank collate "C") filter (where n = :most), '9') as rank
        from (select rank, row_number() over (order by rank collate "C") as n from own) o
    ), old as materialized (
        select h.quality, s.*
        from placed h
        cross join lateral (
            select u.key, u.id, s.name, s.code, upper(s.during) - 1 as until
            from admin_unit_state s join admin_unit u on u.key = s.unit_key
            where s.search collate "C" = h.search
              and upper(s.during) is not null and upper(s.during) <= cast(:day as date)
              and u.level = (cast(:all_levels as text[]))[h.level] and u.deleted_at is null
            offset 0) s
        where h.quality || '1' < (select rank from enough)
        order by h.place, s.id, s.until limit :former
    ), walk (start, key) as (
        select key, key from old
        union
        select w.start, x.successor_key
        from walk w cross join lateral (
            select successor_key from unit_succession
            where predecessor_key = w.key and happened_on <= cast(:day as date) offset 0) x
    ), former as (
        select o.quality || case when u.key = o.key then '1' else '2' end
                   || array_position(cast(:all_levels as text[]), u.level) || s.search as rank,
               u.key, u.id, case when u.key = o.key then 'former_name' else 'predecessor' end,
               o.name, o.code, o.id, o.until
        from old o
        join walk w on w.start = o.key and {inside_walk}
        cross join lateral (
            select u.key, u.id, u.level from admin_unit u
            where u.key = w.key and u.deleted_at is null
              and coalesce(u.valid_to, 'infinity') >= cast(:day as date) limit 1) u
        cross join lateral (
            select s.search from admin_unit_state s
            where s.unit_key = u.key and s.during @> cast(:day as date) and {narrow} limit 1) s
        where {former_level}
    ), best as (
        select distinct on (id) * from (table own union all table former) f
        order by id, rank collate "C", until desc nulls first, unit_id
    )
    select key, id, rank collate "C" as rank, kind, name, code, unit_id, until from best
    order by rank collate "C", id limit :most
"""
_NARROW = {
    "code": "s.code = any(cast(:code as text[]))",
    "parent_id": "s.parent_key = any(array("
    "select key from admin_unit where id = any(cast(:parent_id as uuid[]))))",
}
_INSIDE = """, inside as materialized (
        select p.unit_key as key from admin_unit a join placement p on p.ancestor_key = a.key
        where a.id = any(cast(:within as uuid[])) and p.during @> cast(:day as date)
    )"""


async def forgive(session: AsyncSession, q: str) -> None:
    """Come before a search for similar names: say how many of the trigrams must be there.

    A typo changes three of them, so that a short name keeps half.
    """
    await session.execute(_FORGIVE, {"q": q})


def find(query: AdminUnitQuery, day: date, *, similar: bool, bounded: bool) -> Subquery:
    """Select the units of a day that are called `q`, with why, by their rank.

    `similar` forgives typos and another word for the kind of unit. `bounded` keeps the best
    `MOST_UNITS`. The rest of the query narrows the units; no bound comes before that, but for
    `MOST_FORMER`.
    """
    given = {"code": query.code, "parent_id": query.parent_id}
    if NATION not in query.within:  # which would be read whole, and is no narrowing
        given["within"] = query.within
    values: dict[str, Any] = {name: values for name, values in given.items() if values}
    narrow = " and ".join([part for name, part in _NARROW.items() if name in values] or ["true"])
    # Hashed once; as a join it would be made anew for each name.
    inside = "({}.{} in (table inside)) is true" if "within" in values else "true"
    level = "array_position(cast(:all_levels as text[]), u.level)"
    statement = _WORD + (_SIMILAR if similar else _LITERAL)
    statement += _INSIDE if "within" in values else ""
    statement += _OWN.format(
        level=_LEVEL.format("h.level"), narrow=narrow, inside=inside.format("s", "unit_key")
    )
    statement += _FOUND.format(
        narrow=narrow, former_level=_LEVEL.format(level), inside_walk=inside.format("w", "key")
    )
    if similar:
        values["names"] = None if values or query.level else MOST_SIMILAR
    return (
        text(statement)
        .bindparams(
            q=" ".join(str(query.q).split()),
            day=day,
            levels=[LEVELS.index(each) + 1 for each in query.level] or None,
            all_levels=[each.value for each in LEVELS],
            most=MOST_UNITS if bounded else None,
            former=MOST_FORMER,
            **values,
        )
        .columns(
            named("key"),
            named("id", Uuid),
            named("rank", Text(collation="C")),
            named("kind", Text),
            named("name", Text),
            named("code", Text),
            named("unit_id", Uuid),
            named("until", Date),
        )
        .subquery("found")
    )
