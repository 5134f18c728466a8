"""The statements that count by the rolls of what stands: what was folded, and what changed since.

The sources of an answer are as in `people_statements`. A roll of a province or commune tells of all
that lies in it with all that it has. What it does not tell is looked up in `standing`: members of
several such places, and everything where only units tell the targets apart.
"""

from typing import Final

from api.services.people_statements import BETWEEN, FIRSTS, SOURCES

ATS: Final = "cast(:ats as date[])"
PART: Final = "cast(:parts as text[]) is null or part = any(cast(:parts as text[]))"
# Each by the index: the planner would go through the whole country's.
_UNITS: Final = f"""
    select s.target, r.id, r.part, r.amount, r.grain, r.days
    from apart cross join lateral (
        select * from standing r
        where r.commune_key = apart.commune_key and r.measure = :measure
          and r.province_key = apart.province_key and ({PART})
        offset 0) r
    join source s on s.unit_key = r.unit_key and s.commune_key = r.commune_key
         and s.province_key = r.province_key
"""  # noqa: S608 - put together from constants
_BEYOND_COMMUNES: Final = f"""
    select s.target, r.id, r.part, r.amount, r.grain, r.days
    from source s cross join lateral (
        select * from standing r
        where r.commune_key = s.commune_key and r.measure = :measure and r.grain < 2
          and r.province_key = s.province_key and ({PART})
        offset 0) r
    where s.unit_key = 0 and s.commune_key <> 0
"""  # noqa: S608 - put together from constants
_BEYOND_PROVINCES: Final = f"""
    select s.target, r.id, r.part, r.amount, r.grain, r.days
    from source s cross join lateral (
        select * from standing r
        where r.province_key = s.province_key and r.measure = :measure and r.grain < 1 and ({PART})
        offset 0) r
    where s.commune_key = 0
"""  # noqa: S608 - put together from constants
_NOTHING: Final = """
    select null::integer as target, null::uuid as id, null as part, 0 as amount, 0 as grain,
           null::datemultirange as days
    where false
"""
# One by one, but each only once in a target: all the days that it has there.
_STANDS: Final = """
    looked as materialized ({looked}
    ), stands as (
        select target, part, amount, during
        from looked cross join lateral unnest(days) during
        where grain = 3
        union all
        select target, part, amount, during
        from (
            select target, part, min(amount) as amount, range_agg(days) as days
            from looked where grain < 3 group by target, id, part) person
        cross join lateral unnest(days) during
    )
"""


def looked_up(*, units: bool, roaming: bool) -> str:
    """Return what is looked up where sources are units, or things lie in several sources."""
    found = [_UNITS] if units else []
    found += [_BEYOND_COMMUNES, _BEYOND_PROVINCES] if roaming else []
    return "union all".join(found) or _NOTHING


_ROLLS: Final = f"""
    select s.target, r.*
    from source s cross join lateral (
        select part, starts, begun, ended, amount from standing_roll r
        where r.province_key = s.province_key and r.commune_key = s.commune_key
          and r.measure = :measure and r.every = {{every}} and ({PART}) and {{days}}
        offset 0) r
    where s.unit_key = 0
"""  # noqa: S608 - put together from constants

# By how much the number of each period differs from that of the one before.
STOCK: Final = f"""
    with {SOURCES}, {_STANDS}, rolled as (
        select target, part, begun - ended as change, 1 + width_bucket(
            case when :every = 'month' then (starts + interval '1 month')::date - 1 else starts end
            - 1, {ATS}) as n
        from ({_ROLLS.format(every=":every", days="r.starts <= cast(:last as date)")}) r
    ), found as (
        select target, part, n, change from rolled
        union all
        select target, part, turn.n, turn.change
        from stands cross join lateral (
            values (1 + coalesce(width_bucket(lower(during) - 1, {ATS}), 0), 1),
                   (1 + width_bucket(upper(during) - 1, {ATS}), -1)) turn (n, change)
        {{more}}
    )
    select target, n::integer, {{part}} as part, sum(change)::bigint as things, 0 as amount
    from found
    where n <= cardinality({ATS})
    group by 1, 2, 3
"""  # noqa: S608 - put together from constants
# Of months that have not ended on the day that counts (`:ragged`), single days are read.
RAGGED: Final = f"""
        union all
        select single.target, single.part, turn.n, single.change * turn.sign
        from (
            select s.target, r.part, s.n, sum(r.change) as change
            from (
                select source.*, p.*
                from source cross join unnest({ATS}) with ordinality p (at, n)
                where unit_key = 0 and p.n = any(cast(:ragged as integer[]))) s
            cross join lateral (
                select part, begun - ended as change from standing_roll r
                where r.province_key = s.province_key and r.commune_key = s.commune_key
                  and r.measure = :measure and r.every = 'day' and ({PART})
                  and r.starts between date_trunc('month', s.at)::date and s.at
                offset 0) r
            group by 1, 2, 3
        ) single cross join lateral (values (n, 1), (n + 1, -1)) turn (n, sign)
"""  # noqa: S608 - put together from constants
FLOW: Final = f"""
    with {SOURCES}, {_STANDS}, found as (
        select target, part, starts, begun, amount
        from ({_ROLLS.format(every=":every", days=f"r.starts {BETWEEN}")}) r
        union all
        select target, part, lower(during), 1, amount from stands where lower(during) {BETWEEN}
    )
    select target, width_bucket(starts, {FIRSTS}) as n, {{part}} as part,
           sum(begun)::bigint as things, sum(amount)::bigint as amount
    from found
    group by 1, 2, 3
"""  # noqa: S608 - put together from constants

NOTED: Final = "select distinct noun from standing_note"
STOCK_TURNS: Final = f"""
    select p.n::integer as n, {{day}} as day, r.unit_key, {{part}} as part, r.id, r.sign, r.amount
    from standing_turns r
    cross join unnest({ATS}, cast(:trees as date[])) with ordinality p (at, tree, n)
    where r.measure = :measure and r.days @> p.at and ({PART})
"""  # noqa: S608 - put together from constants
FLOW_TURNS: Final = f"""
    select width_bucket(lower(r.days), {FIRSTS}) as n, {{day}} as day, r.unit_key, {{part}} as part,
           r.id, r.sign, r.amount
    from standing_turns r
    where r.measure = :measure and lower(r.days) {BETWEEN} and ({PART})
"""  # noqa: S608 - put together from constants
TURNED: Final = """
    count(distinct f.id) filter (where f.sign = 1) - count(distinct f.id) filter (where f.sign = -1)
        as things, sum(f.sign * f.amount)::bigint as amount
"""
