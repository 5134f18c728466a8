"""Create the rolls of people: households reached and beneficiaries, by commune and month.

A person counts once however many events there are, so the events of each are counted
(`household_reach`, `beneficiary_reach`), and a roll changes when a person's first event comes or
the last one goes. Households add up over communes; beneficiaries do not, and have rolls of
communes, provinces and the nation of their own. All stand at the snapshot of the rolls of events.
"""

from migrations.scripts import PLACED, policy, run, secure

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

TABLES = """
-- A commune or province of 0 stands for all, -1 for none. `measure` is 'household' or
-- 'beneficiary'; `every` is 'month', 'quarter', 'year' or, for the month in which a household was
-- first reached, 'first'.
create table people_roll (
    measure text not null,
    province_key integer not null,
    commune_key integer not null,
    every text not null,
    starts date not null,
    people bigint not null,
    primary key (province_key, commune_key, measure, every, starts)
) with (fillfactor = 70);

-- Where it was registered when it was last folded: nowhere (null) if it was hidden.
create table household_reach (
    household_id uuid primary key,
    province_key integer,
    commune_key integer,
    unit_key integer,
    months date[] not null,
    events integer[] not null
) with (fillfactor = 80);
create index on household_reach (commune_key);

create table beneficiary_reach (
    beneficiary_hash bytea not null,
    month date not null,
    unit_key integer not null,
    commune_key integer not null,
    province_key integer not null,
    events integer not null,
    primary key (beneficiary_hash, month, unit_key, commune_key, province_key)
) with (fillfactor = 80);
create index on beneficiary_reach (province_key, commune_key, month);

grant select on people_roll, household_reach, beneficiary_reach to noidai_app;
"""

COUNTED = "status in ('submitted', 'verified')"
REACHED = f"household_id is not null and {COUNTED} and outcome in ('completed', 'guided')"
HELPED = f"beneficiary_hash is not null and {COUNTED}"
MONTH = "date_trunc('month', occurred_on)::date"
KEYS = "coalesce(province_key, -1), coalesce(commune_key, -1), unit_key"

# What has changed since the rolls' snapshot, for whoever may read it (`security_invoker`). It is
# found by its transaction, then looked at: else the planner reads all that was ever counted too.
CHANGED = "(select * from event_changes offset 0) change"
CHANGES = f"""
create view beneficiary_changes with (security_invoker = true) as
select beneficiary_hash, {MONTH} as month, unit_key, coalesce(commune_key, -1) as commune_key,
       coalesce(province_key, -1) as province_key, sign
from {CHANGED}
where {HELPED}
union all
select r.beneficiary_hash, {MONTH}, r.unit_key, coalesce(r.commune_key, -1),
       coalesce(r.province_key, -1), r.sign
from beneficiary_renaming r cross join (select folded::pg_snapshot from event_fold) since
where not pg_visible_in_snapshot(r.xid::text::xid8, folded)
  and pg_visible_in_snapshot(r.row_xid::text::xid8, folded)
  and (r.ended_xid is null or not pg_visible_in_snapshot(r.ended_xid::text::xid8, folded));

-- Whatever changed of a household: how it stood when it was folded (-1), and how it stands (1).
create view household_turns with (security_invoker = true) as
with delta as materialized (
    select household_id, {MONTH} as month, sum(sign)::integer as events
    from {CHANGED}
    where {REACHED}
    group by 1, 2
    having sum(sign) <> 0
), touched as materialized (
    select household_id from delta union select household_id from household_move
), stood as materialized (
    select found.*
    from touched cross join lateral (
        select * from household_reach r where r.household_id = touched.household_id offset 0) found
), stands as (
    select household_id, array_agg(month order by month) as months,
           array_agg(events order by month) as events
    from (
        select household_id, month, sum(events)::integer as events
        from (
            select household_id, m.month, m.events
            from stood cross join lateral unnest(months, events) as m (month, events)
            union all
            select household_id, month, events from delta
        ) either
        group by household_id, month
        having sum(events) <> 0
    ) each
    group by household_id
)
select household_id, -1 as sign, province_key, commune_key, unit_key, months, events from stood
union all
select s.household_id, 1, h.province_key, h.commune_key, h.unit_key, s.months, s.events
from stands s
left join lateral (
    select coalesce(province_key, -1) as province_key, coalesce(commune_key, -1) as commune_key,
           unit_key
    from household h where h.id = s.household_id and h.deleted_at is null offset 0) h on true;

-- All of a year of whoever changed in it: the events that were folded, and those there are.
create view beneficiary_turns with (security_invoker = true) as
with delta as materialized (
    select beneficiary_hash, month, unit_key, commune_key, province_key,
           sum(sign)::integer as events
    from beneficiary_changes
    group by 1, 2, 3, 4, 5
    having sum(sign) <> 0
), touched as materialized (
    select distinct beneficiary_hash, date_trunc('year', month)::date as year from delta
)
select beneficiary_hash, month, unit_key, commune_key, province_key, sum(stood) as stood,
       sum(stood) + sum(change) as stands
from (
    select found.*, 0 as change
    from touched cross join lateral (
        select beneficiary_hash, month, unit_key, commune_key, province_key, events as stood
        from beneficiary_reach r
        where r.beneficiary_hash = touched.beneficiary_hash
          and r.month >= touched.year and r.month < (touched.year + interval '1 year')::date
        offset 0) found
    union all
    select beneficiary_hash, month, unit_key, commune_key, province_key, 0, events from delta
) either
group by 1, 2, 3, 4, 5;
grant select on beneficiary_changes, household_turns, beneficiary_turns to noidai_app;
"""

ROLL = "insert into people_roll as roll (measure, province_key, commune_key, every, starts, people)"
ADDED = """
    on conflict (province_key, commune_key, measure, every, starts) do update
    set people = roll.people + excluded.people
"""
# Of `{source}`, households with a sign: the months of each, and the periods that they lie in.
HOUSEHOLDS = """
    select 'household' as measure, province_key, coalesce(commune_key, 0) as commune_key, every,
           starts, sum(sign) as people
    from (
        with standing as materialized (
            select household_id, sign, province_key, commune_key, m.month
            from {source} s cross join lateral unnest(s.months, s.events) as m (month, events)
            where unit_key is not null and m.events > 0
        )
        select sign, province_key, commune_key, 'month' as every, month as starts from standing
        union all
        select sign, province_key, commune_key, 'quarter', date_trunc('quarter', month)::date
        from standing group by household_id, 1, 2, 3, 5
        union all
        select sign, province_key, commune_key, 'year', date_trunc('year', month)::date
        from standing group by household_id, 1, 2, 3, 5
        union all
        select sign, province_key, commune_key, 'first', min(month)
        from standing group by household_id, 1, 2, 3
    ) each
    group by every, starts, grouping sets ((province_key), (province_key, commune_key))
    having sum(sign) <> 0
"""
# Of `{source}`, all facts of some people in some years: how they stood and how they stand.
BENEFICIARIES = """
    select 'beneficiary' as measure, province_key, commune_key, every, starts,
           sum(change) as people
    from (
        select coalesce(province_key, 0) as province_key, coalesce(commune_key, 0) as commune_key,
               every, starts, bool_or(stands > 0)::integer - bool_or(stood > 0)::integer as change
        from {source} s cross join lateral (
            values ('month', month), ('quarter', date_trunc('quarter', month)::date),
                   ('year', date_trunc('year', month)::date)) p (every, starts)
        group by beneficiary_hash, every, starts,
                 grouping sets ((), (province_key), (province_key, commune_key))
    ) each
    where change <> 0
    group by province_key, commune_key, every, starts
    having sum(change) <> 0
"""
PLACES = """
    insert into event_place (province_key, commune_key, unit_key)
    select distinct province_key, commune_key, unit_key
    from {source} f
    where unit_key is not null and not exists (
        select from event_place p
        where p.unit_key = f.unit_key and p.commune_key = f.commune_key
          and p.province_key = f.province_key)
"""
FACTS_OF_HOUSEHOLDS = """
    select household_id, h.province_key, h.commune_key, h.unit_key,
           array_agg(month order by month) as months, array_agg(events order by month) as events
    from (
        select household_id, month, sum(sign)::integer as events
        from {source} e
        group by household_id, month
        having sum(sign) <> 0
    ) each
    left join (
        select id, coalesce(province_key, -1) as province_key,
               coalesce(commune_key, -1) as commune_key, unit_key
        from household where deleted_at is null) h on h.id = household_id
    group by 1, 2, 3, 4
"""
FACTS_OF_BENEFICIARIES = """
    select beneficiary_hash, month, unit_key, commune_key, province_key,
           sum(sign)::integer as events
    from {source} e
    group by 1, 2, 3, 4, 5
    having sum(sign) <> 0
"""
HOUSEHOLD_FACTS = f"select household_id, {MONTH} as month, 1 as sign from support_event"
HOUSEHOLD_FACTS += f" where {REACHED}"
BENEFICIARY_FACTS = f"""
    select beneficiary_hash, {MONTH} as month, unit_key, coalesce(commune_key, -1) as commune_key,
           coalesce(province_key, -1) as province_key, 1 as sign
    from support_event where {HELPED}
"""
# As of the rolls' snapshot: what there is, without what has changed since.
HOUSEHOLDS_THEN = f"""({HOUSEHOLD_FACTS}
    union all select household_id, {MONTH}, -sign from {CHANGED} where {REACHED})"""
BENEFICIARIES_THEN = f"""({BENEFICIARY_FACTS}
    union all
    select beneficiary_hash, month, unit_key, commune_key, province_key, -sign
    from beneficiary_changes)"""

COUNTING = f"""
    insert into household_reach (household_id, province_key, commune_key, unit_key, months, events)
    {FACTS_OF_HOUSEHOLDS.format(source=HOUSEHOLDS_THEN)};
    insert into beneficiary_reach (beneficiary_hash, month, unit_key, commune_key, province_key,
                                   events)
    {FACTS_OF_BENEFICIARIES.format(source=BENEFICIARIES_THEN)};
    {ROLL} {HOUSEHOLDS.format(source="(select *, 1 as sign from household_reach)")};
    {ROLL} {
    BENEFICIARIES.format(source="(select *, 0 as stood, events as stands from beneficiary_reach)")
};
    {PLACES.format(source="household_reach")};
"""

DIFFER = """
    (select count(*) from (select * from recounted_{name} where {of}) w
     full join (select * from people_roll where measure = '{name}' and {of}) r
          using (province_key, commune_key, every, starts)
     where coalesce(w.people, 0) <> coalesce(r.people, 0))
"""
# All act as their owner, in one REPEATABLE READ snapshot; who folds or rebuilds holds the rolls.
FOLDING = f"""
create function fold_households() returns void
language sql security definer set search_path = public, pg_temp set jit = off as $$
    with turn as materialized (
        select * from household_turns
    ), rolled as ({ROLL} {HOUSEHOLDS.format(source="turn")} {ADDED}
    ), placed as ({PLACES.format(source="turn")}
    ), kept as (
        insert into household_reach as reach
            (household_id, province_key, commune_key, unit_key, months, events)
        select household_id, province_key, commune_key, unit_key, months, events
        from turn where sign = 1
        on conflict (household_id) do update
        set province_key = excluded.province_key, commune_key = excluded.commune_key,
            unit_key = excluded.unit_key, months = excluded.months, events = excluded.events
    ), noted as (delete from household_move
    )
    delete from household_reach r using turn t
    where r.household_id = t.household_id and t.sign = -1 and not exists (
        select from turn other where other.household_id = t.household_id and other.sign = 1)
$$;

create function fold_beneficiaries() returns void
language sql security definer set search_path = public, pg_temp set jit = off as $$
    with turn as materialized (
        select * from beneficiary_turns
    ), rolled as ({ROLL} {BENEFICIARIES.format(source="turn")} {ADDED}
    ), kept as (
        insert into beneficiary_reach (beneficiary_hash, month, unit_key, commune_key,
                                       province_key, events)
        select beneficiary_hash, month, unit_key, commune_key, province_key, stands
        from turn where stands <> 0 and stands <> stood
        on conflict (beneficiary_hash, month, unit_key, commune_key, province_key)
        do update set events = excluded.events
    ), noted as (delete from beneficiary_renaming
    )
    delete from beneficiary_reach r using turn t
    where t.stands = 0 and t.stood <> 0 and r.beneficiary_hash = t.beneficiary_hash
      and r.month = t.month and r.unit_key = t.unit_key and r.commune_key = t.commune_key
      and r.province_key = t.province_key
$$;

alter function fold_events() rename to fold_event_rolls;
alter function rebuild_event_rolls() rename to rebuild_rolls_of_events;
create function fold_events() returns bigint
language plpgsql security definer set search_path = public, pg_temp as $$
begin
    if not hold_event_rolls() then
        return null;
    end if;
    perform fold_households();
    perform fold_beneficiaries();
    return fold_event_rolls();
end $$;

create function count_people() returns void
language plpgsql security definer set search_path = public, pg_temp as $$
begin
    {COUNTING}
end $$;
create function rebuild_event_rolls() returns boolean
language plpgsql security definer set search_path = public, pg_temp as $$
begin
    if not rebuild_rolls_of_events() then
        return false;
    end if;
    delete from people_roll;
    delete from household_reach;
    delete from beneficiary_reach;
    delete from household_move;
    delete from beneficiary_renaming;
    perform count_people();
    return true;
end $$;

create function people_roll_differences(
    out households bigint, out households_ever bigint, out beneficiaries bigint)
language sql stable security definer set search_path = public, pg_temp set jit = off as $$
    with household_facts as materialized (
        {FACTS_OF_HOUSEHOLDS.format(source=f"({HOUSEHOLD_FACTS})")}
    ), beneficiary_facts as materialized (
        {FACTS_OF_BENEFICIARIES.format(source=f"({BENEFICIARY_FACTS})")}
    ), recounted_household as materialized (
        {HOUSEHOLDS.format(source="(select *, 1 as sign from household_facts)")}
    ), recounted_beneficiary as materialized (
        {
    BENEFICIARIES.format(source="(select *, 0 as stood, events as stands from beneficiary_facts)")
}
    )
    select {DIFFER.format(name="household", of="every <> 'first'")}
           + (select count(*) from household_facts w
              full join household_reach r using (household_id)
              where (w.province_key, w.commune_key, w.unit_key, w.months, w.events)
                    is distinct from
                    (r.province_key, r.commune_key, r.unit_key, r.months, r.events)),
           {DIFFER.format(name="household", of="every = 'first'")},
           {DIFFER.format(name="beneficiary", of="true")}
           + (select count(*) from beneficiary_facts w
              full join beneficiary_reach r
                   using (beneficiary_hash, month, unit_key, commune_key, province_key)
              where w.events is distinct from r.events)
$$;
revoke execute on function fold_event_rolls, rebuild_rolls_of_events from noidai_app;
revoke execute on function fold_households, fold_beneficiaries, fold_events, count_people,
    rebuild_event_rolls, people_roll_differences from public;
grant execute on function fold_events, rebuild_event_rolls, people_roll_differences to noidai_app;
"""

# Rolls are shown as those of events: `totals` names those that make up an answer. What is kept of
# single people is shown where their facts are, and of a household that has just moved in.
# Subqueries are hashed, as arrays are not: a table of communes names thousands of them.
SHOWN = " or ".join(
    f"{key} in (select unnest(scope_keys(array['totals'], '{kind}')))"
    for key, kind in (("province_key", "provinces"), ("commune_key", "communes"))
)
POLICIES = (
    """
create function is_household_seen(wanted uuid) returns boolean language plpgsql stable as $$
begin
    return exists (select from household where id = wanted);
end $$;
"""
    + secure("people_roll", "household_reach", "beneficiary_reach")
    + f"create policy people_roll_select on people_roll for select to noidai_app using ({SHOWN});\n"
    + policy(
        "household_reach",
        "select",
        ("households_read",),
        PLACED,
        template="{within} or is_household_seen(household_id)",
    )
    + policy("beneficiary_reach", "select", ("events_read",), PLACED)
    + "create policy household_fold on household for select to current_user using (true);\n"
    + "".join(
        f"create policy {table}_fold on {table} to current_user using (true) with check (true);\n"
        for table in ("people_roll", "household_reach", "beneficiary_reach")
    )
)

MOVED = "new.unit_key, new.commune_key, new.province_key, new.deleted_at is null"
MOVING = f"""
create trigger note_move after update on household for each row
    when (({MOVED}) is distinct from ({MOVED.replace("new.", "old.")}))
    execute function note_household_move();
"""
# Nobody folds, erases or wraps hashes meanwhile; events are recorded, and are changes since the
# rolls' snapshot.
FIRST = f"""
set local statement_timeout = '2h';
set local jit = off;
select pg_advisory_xact_lock(hashtext('noidai event rolls')),
       pg_advisory_xact_lock(hashtext('noidai hash keys'));
{COUNTING}
"""
RENAMING = """
create trigger note_renaming after update on support_event for each row
    when (new.beneficiary_hash is distinct from old.beneficiary_hash and new.version = old.version)
    execute function note_beneficiary_renaming();
create trigger note_renaming after update on support_event_version for each row
    when (new.beneficiary_hash is distinct from old.beneficiary_hash)
    execute function note_beneficiary_renaming();
"""


def upgrade() -> None:
    """Create the rolls and count what there is: about two minutes for ten million events.

    Households cannot be read meanwhile; events are read and recorded.
    """
    run(TABLES + CHANGES + FOLDING + POLICIES + MOVING)
    run(FIRST)
    run(RENAMING)
