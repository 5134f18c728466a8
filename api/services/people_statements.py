"""The statements that count people by their rolls: what was folded, and what has changed since.

The sources of an answer are `:provinces`, `:communes`, `:units` and the `:targets` that they count
in, written as text; its periods begin on `:firsts`, and all lie between `:first` and `:last`. What
is found comes as arrays, one row for a period: a country has tens of thousands of numbers.
"""

from typing import Final

from api.services.counting import UNAIDED

SOURCE_COLUMNS: Final = ("provinces", "communes", "units", "targets")
# Until the next statement, the database shows the rolls of these sources: `:totals`.
_SOURCES: Final = """
    told as materialized (
        select set_config('noidai.scopes', (current_setting('noidai.scopes')::jsonb
            || jsonb_build_object('totals', cast(:totals as jsonb)))::text, true) as scopes
    ), source as materialized (
        select s.* from told cross join unnest(
            cast(cast(:provinces as text) as integer[]),
            cast(cast(:communes as text) as integer[]),
            cast(cast(:units as text) as integer[]),
            cast(cast(:targets as text) as integer[]){arrays})
            as s (province_key, commune_key, unit_key, target{columns})
        where told.scopes is not null
    ), apart as (
        select distinct province_key, commune_key from source where unit_key <> 0)
"""
SOURCES: Final = _SOURCES.format(arrays="", columns="")
SOURCES_IN_DAYS: Final = _SOURCES.format(
    arrays=", cast(cast(:sinces as text) as date[]), cast(cast(:untils as text) as date[])",
    columns=", since, until",
)
FIRSTS: Final = "cast(:firsts as date[])"
BETWEEN: Final = "between cast(:first as date) and cast(:last as date)"
BY_PERIOD: Final = "select n, array_agg(target) as targets, array_agg(value) as people"
# Each by the index: the planner would go through the whole country's.
ROLLED: Final = f"""
    select s.target, width_bucket(r.starts, {FIRSTS}) as n, sum(r.people)::bigint as value
    from source s cross join lateral (
        select starts, people from people_roll r
        where r.province_key = s.province_key and r.commune_key = s.commune_key
          and r.measure = :measure and r.every = :every and r.starts {BETWEEN}
        offset 0) r
    where s.unit_key = 0
    group by 1, 2
"""  # noqa: S608 - put together from constants
# No roll tells units apart: where only they tell the targets apart, each household is looked at.
HOUSEHOLDS: Final = f"""
    with {SOURCES}
    {BY_PERIOD} from ({ROLLED}) r group by n
    union all
    {BY_PERIOD} from (
        select s.target, m.n, count(*) as value
        from apart cross join lateral (
            select * from household_reach r  -- its months are in order
            where r.commune_key = apart.commune_key and r.province_key = apart.province_key
              and r.months[1] <= cast(:last as date)
              and r.months[cardinality(r.months)] >= cast(:first as date)
            offset 0) r
        join source s on s.unit_key = r.unit_key and s.commune_key = r.commune_key
             and s.province_key = r.province_key
        cross join lateral ({{periods}}) m
        group by 1, 2
    ) r group by n
"""  # noqa: S608 - put together from constants
REACHED: Final = f"""
    select distinct width_bucket(m.month, {FIRSTS}) as n
    from unnest(r.months, r.events) as m (month, events)
    where m.events > 0 and m.month {BETWEEN}
"""  # noqa: S608 - put together from constants
FIRST: Final = f"""
    select width_bucket(min(m.month), {FIRSTS}) as n
    from unnest(r.months, r.events) as m (month, events)
    where m.events > 0
    having min(m.month) <= cast(:last as date)
"""  # noqa: S608 - put together from constants
SINCE: Final = f"""
    select generate_series(greatest(each.n, 1), cardinality({FIRSTS})) as n from ({FIRST}) each
"""  # noqa: S608 - put together from constants
TURNS: Final = """
    select m.n, {day} as day, r.unit_key, null::text as part, sum(r.sign) as change
    from household_turns r cross join lateral ({periods}) m
    where r.unit_key is not null
    group by 1, 2, 3
    having sum(r.sign) <> 0
"""
# Reached in the running month for the first time, but by an event that is still to come.
AHEAD: Final = f"""
    union all
    select cardinality({FIRSTS}), {{day}}, h.unit_key, null, -count(*)
    from (
        select distinct e.household_id
        from support_event e
        where e.occurred_on > cast(:last as date) and e.occurred_on <= cast(:month_end as date)
          and e.occurred_at >= cast(cast(:last as date) + 1 as timestamp)
                               at time zone 'Asia/Ho_Chi_Minh'
          and e.household_id is not null and {{counted}}
    ) soon
    join household h on h.id = soon.household_id and h.deleted_at is null
    where not exists (
        select from support_event e
        where e.household_id = soon.household_id and e.occurred_on <= cast(:last as date)
          and {{counted}})
    group by h.unit_key
"""  # noqa: S608 - put together from constants
COUNTED: Final = """
    e.status in ('submitted', 'verified') and e.outcome in ('completed', 'guided')
"""

# Where facts of a period lie in one source only, its roll tells how many people they are of.
ALONE: Final = f"""
    with {SOURCES}
    {BY_PERIOD}, alone from (
        select s.target, width_bucket(r.starts, {FIRSTS}) as n, count(*) = 1 as alone,
               sum(r.people)::bigint as value
        from source s cross join lateral (
            select starts, people from people_roll r
            where r.province_key = s.province_key and r.commune_key = s.commune_key
              and r.measure = 'beneficiary' and r.every = :every and r.starts {BETWEEN}
              and r.people <> 0
            offset 0) r
        where s.unit_key = 0
        group by 1, 2
    ) r group by n, alone
"""  # noqa: S608 - put together from constants
DISTINCT: Final = f"""
    with {SOURCES_IN_DAYS}, found as (
        select s.target, r.month, r.beneficiary_hash
        from source s cross join lateral (
            select * from beneficiary_reach r
            where r.province_key = s.province_key and r.month between s.since and s.until
            offset 0) r
        where s.commune_key = 0 and r.events > 0
        union all
        select s.target, r.month, r.beneficiary_hash
        from source s cross join lateral (
            select * from beneficiary_reach r
            where r.province_key = s.province_key and r.commune_key = s.commune_key
              and r.month between s.since and s.until
            offset 0) r
        where s.commune_key <> 0 and s.unit_key = 0 and r.events > 0
        union all
        select s.target, r.month, r.beneficiary_hash
        from apart cross join lateral (
            select * from beneficiary_reach r
            where r.province_key = apart.province_key and r.commune_key = apart.commune_key
              and r.month {BETWEEN}
            offset 0) r
        join source s on s.unit_key = r.unit_key and s.commune_key = r.commune_key
             and s.province_key = r.province_key and r.month between s.since and s.until
        where r.events > 0
    )
    {BY_PERIOD} from (
        select target, width_bucket(month, {FIRSTS}) as n,
               count(distinct beneficiary_hash) as value
        from found
        group by 1, 2
    ) r group by n
"""  # noqa: S608 - put together from constants
CHANGED: Final = f"""
    select width_bucket(month, {FIRSTS}) as n, {{day}} as day, unit_key, commune_key, province_key,
           null::text as part, beneficiary_hash, stood, stands
    from beneficiary_turns
    where month {BETWEEN} and (stood > 0 or stands > 0)
"""  # noqa: S608 - put together from constants
CHANGE: Final = """
    count(distinct f.beneficiary_hash) filter (where f.stands > 0)
    - count(distinct f.beneficiary_hash) filter (where f.stood > 0) as value
"""
# As recorded, the place is that of the events themselves.
CHANGED_THERE: Final = f"""
    with {UNAIDED} f as materialized ({CHANGED.format(day="null")})
    select case when cast(:level as text) is null then inside.key
                else case cast(:level as text) when 'nation' then nation.key
                     when 'province' then nullif(f.province_key, -1)
                     when 'commune' then nullif(f.commune_key, -1)
                     else case when u.level = 'village' then u.key end end end as target,
           f.n, null as part, {CHANGE}
    from f
    join admin_unit u on u.key = f.unit_key
    cross join (select key from admin_unit where level = 'nation') nation
    cross join lateral (
        select r.key from unnest(cast(:roots as integer[])) r (key)
        where r.key in (nation.key, f.province_key, f.commune_key, f.unit_key)) inside
    group by 1, 2
"""  # noqa: S608 - put together from constants
