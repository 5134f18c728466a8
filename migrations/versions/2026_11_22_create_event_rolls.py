"""Create the rolls of events: their counts by where they were recorded, month and day.

A roll counts the events of one transaction snapshot, `event_fold.folded`. What has changed since
is told by `xid` (`event_changes`), so that rolls and changes together are exact at any moment;
`fold_events` adds the changes to the rolls and moves the snapshot on, in one transaction.
"""

from migrations.scripts import PLACED, policy, run, secure

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

TABLES = """
-- A key of 0 stands for all: a row is of a province, of a commune in it, or of a unit in that.
-- -1 stands for none (a village that had no commune). `every` is 'month' or 'day'.
create table event_roll (
    province_key integer not null,
    commune_key integer not null,
    unit_key integer not null,
    every text not null,
    dimension text not null,
    starts date not null,
    part text not null,
    events bigint not null,
    verified bigint not null,
    completed bigint not null,
    quantity bigint not null,
    quantity_verified bigint not null,
    changes bigint not null,
    primary key (commune_key, unit_key, province_key, every, dimension, starts, part)
) with (fillfactor = 70);

-- Where events were ever recorded, in the order in which the rolls met it.
create table event_place (
    number integer generated always as identity primary key,
    province_key integer not null,
    commune_key integer not null,
    unit_key integer not null,
    unique (unit_key, commune_key, province_key)
);
create index on event_place (commune_key);
create index on event_place (province_key);

create table event_fold (folded text not null);  -- a pg_snapshot

grant select on event_roll, event_place, event_fold to noidai_app;
"""

FACT = """
    id, unit_key, commune_key, province_key, team_id, household_id, service_type, occurred_at,
    occurred_on, quantity, outcome, channel, status, beneficiary_hash, deleted_at
"""

# Read by whoever may read the facts: row-level security applies (`security_invoker`).
CHANGES = f"""
create view event_changes with (security_invoker = true) as
with since as materialized (
    select folded::pg_snapshot as folded,
           pg_snapshot_xmin(folded::pg_snapshot)::text::bigint as xmin
    from event_fold
)
select {FACT}, 1 as sign
from support_event e
where e.xid >= (select xmin from since)
  and not pg_visible_in_snapshot(e.xid::text::xid8, (select folded from since))
union all
select {FACT}, -1
from support_event_version v
where v.ended_xid >= (select xmin from since)
  and not pg_visible_in_snapshot(v.ended_xid::text::xid8, (select folded from since))
  and pg_visible_in_snapshot(v.xid::text::xid8, (select folded from since));
grant select on event_changes to noidai_app;
"""

TALLY = """
    insert into event_roll as roll (province_key, commune_key, unit_key, every, dimension, starts,
                                    part, events, verified, completed, quantity,
                                    quantity_verified, changes)
"""
COUNTED = """
    select province as province_key, coalesce(commune, 0) as commune_key,
           coalesce(unit, 0) as unit_key,
           case when day is null then 'month' else 'day' end as every,
           case when service_type is not null then 'service_type'
                when channel is not null then 'channel'
                when outcome is not null then 'outcome' else '' end as dimension,
           coalesce(day, month) as starts, coalesce(service_type, channel, outcome, '') as part,
           coalesce(sum(sign) filter (where counted), 0) as events,
           coalesce(sum(sign) filter (where status = 'verified'), 0) as verified,
           coalesce(sum(sign) filter (where counted and ending = 'completed'), 0) as completed,
           coalesce(sum(sign * quantity) filter (where counted and helped), 0) as quantity,
           coalesce(sum(sign * quantity) filter (where status = 'verified' and helped), 0)
               as quantity_verified,
           count(*) as changes
    from (
        select coalesce(province_key, -1) as province, coalesce(commune_key, -1) as commune,
               unit_key as unit, service_type, channel, outcome, outcome as ending, status,
               occurred_on as day, date_trunc('month', occurred_on)::date as month,
               quantity, sign, status in ('submitted', 'verified') as counted,
               outcome in ('completed', 'guided') as helped
        from {source}
    ) change
    group by grouping sets (
        (province, month), (province, month, service_type), (province, month, channel),
        (province, month, outcome),
        (province, day), (province, day, service_type), (province, day, channel),
        (province, day, outcome),
        (province, commune, month), (province, commune, month, service_type),
        (province, commune, unit, month))
"""
RECOUNTED = "(select *, 1 as sign from support_event) e"
NUMBERS = ("events", "verified", "completed", "quantity", "quantity_verified")
DIFFERENCES = ", ".join(
    f"count(*) filter (where coalesce(w.{name}, 0) <> coalesce(r.{name}, 0))" for name in NUMBERS
)
PLACES = """
    insert into event_place (province_key, commune_key, unit_key)
    select distinct coalesce(province_key, -1), coalesce(commune_key, -1), unit_key
    from {source} f
    where not exists (
        select from event_place p
        where p.unit_key = f.unit_key and p.commune_key = coalesce(f.commune_key, -1)
          and p.province_key = coalesce(f.province_key, -1))
"""
ADDED = """
    on conflict (commune_key, unit_key, province_key, every, dimension, starts, part) do update
    set events = roll.events + excluded.events, verified = roll.verified + excluded.verified,
        completed = roll.completed + excluded.completed,
        quantity = roll.quantity + excluded.quantity,
        quantity_verified = roll.quantity_verified + excluded.quantity_verified,
        changes = roll.changes + excluded.changes
"""

# All act as their owner, in one REPEATABLE READ snapshot; who folds or rebuilds holds the rolls.
FOLDING = f"""
create function hold_event_rolls() returns boolean language plpgsql as $$
begin
    if current_setting('transaction_isolation') <> 'repeatable read' then
        raise exception 'rolls are folded in one snapshot';
    end if;
    return pg_try_advisory_xact_lock(hashtext('noidai event rolls'));
end $$;

create function fold_events() returns bigint
language plpgsql security definer set search_path = public, pg_temp as $$
declare
    changed bigint;
begin
    if not hold_event_rolls() then
        return null;
    end if;
    with changed as materialized (
        select * from event_changes
    ), rolled as ({TALLY} {COUNTED.format(source="changed")} {ADDED}
    ), placed as ({PLACES.format(source="changed")}
    ), moved as (
        update event_fold set folded = pg_current_snapshot()::text
        where exists (select from changed)
    )
    select count(*) into changed from changed;
    return changed;
end $$;

create function rebuild_event_rolls() returns boolean
language plpgsql security definer set search_path = public, pg_temp as $$
begin
    if not hold_event_rolls() then
        return false;
    end if;
    delete from event_roll;
    {TALLY} {COUNTED.format(source=RECOUNTED)};
    {PLACES.format(source="support_event")};
    update event_fold set folded = pg_current_snapshot()::text;
    return true;
end $$;
create function event_roll_differences(
    out rows bigint, out events bigint, out verified bigint, out completed bigint,
    out quantity bigint, out quantity_verified bigint)
language sql stable security definer set search_path = public, pg_temp as $$
    with recount as materialized ({COUNTED.format(source=RECOUNTED)})
    select count(*), {DIFFERENCES}
    from recount w full join event_roll r using (commune_key, unit_key, province_key, every,
                                                 dimension, starts, part)
$$;
revoke execute on function hold_event_rolls, fold_events, rebuild_event_rolls,
    event_roll_differences from public;
grant execute on function fold_events, rebuild_event_rolls, event_roll_differences to noidai_app;
"""

POLICIES = (
    secure("event_roll")
    + policy("event_roll", "select", ("aggregates_read",), PLACED)
    + """
create policy event_roll_fold on event_roll to current_user using (true) with check (true);
create policy support_event_fold on support_event for select to current_user using (true);
create policy support_event_version_fold on support_event_version for select to current_user
    using (true);
"""
)


FIRST = f"""
with rolled as ({TALLY} {COUNTED.format(source=RECOUNTED)}
), placed as ({PLACES.format(source="support_event")}
)
insert into event_fold values (pg_current_snapshot()::text);
"""


def upgrade() -> None:
    """Create the rolls, and count what there is in one snapshot; old rows carry no transaction."""
    for script in (TABLES, CHANGES, FOLDING, POLICIES, FIRST):
        run(script)
