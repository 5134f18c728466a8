"""Fold a backlog of events in parts, and in time that grows with it.

The rolls may stand at any set of transactions that holds those they saw, and of which all are
committed: at what is committed now of the transactions before some number. A part ends at the
number that makes it large enough. At such a set stand the events that it wrote, and the versions
that it wrote and did not end; it may hold a correction without what was corrected, which then
counts as it was corrected. Where a household is registered, and what a hash was replaced by, each
part takes as it is now, so that the first one takes all notes of it away.
"""

from migrations.scripts import run

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

FACT = """
    id, unit_key, commune_key, province_key, team_id, household_id, service_type, occurred_at,
    occurred_on, quantity, outcome, channel, status, beneficiary_hash, deleted_at
"""
# Whoever folds a part says where it ends; to all others everything has changed that has. Only what
# is committed can be read, so that a number tells what the snapshot of that part sees.
CHANGES = f"""
create or replace view event_changes with (security_invoker = true) as
with since as materialized (
    select folded::pg_snapshot as folded,
           pg_snapshot_xmin(folded::pg_snapshot)::text::bigint as xmin,
           coalesce(nullif(current_setting('noidai.fold_until', true), '')::bigint,
                    9223372036854775807) as until
    from event_fold
)
select {FACT}, 1 as sign
from support_event e
where e.xid >= (select xmin from since) and e.xid < (select until from since)
  and not pg_visible_in_snapshot(e.xid::text::xid8, (select folded from since))
union all
select {FACT}, case when v.ended_xid < (select until from since) then -1 else 1 end
from support_event_version v
where v.ended_xid >= (select xmin from since)
  and not pg_visible_in_snapshot(v.ended_xid::text::xid8, (select folded from since))
  and v.xid < (select until from since)
  and pg_visible_in_snapshot(v.xid::text::xid8, (select folded from since))
      = (v.ended_xid < (select until from since));
"""

# It compared every household that had changed with all the others.
GONE = """
do $$
declare
    was constant text := pg_get_functiondef('fold_households'::regproc);
    compared constant text := substring(was from 'delete from household_reach .*other.sign = 1\\)');
begin
    execute replace(was, compared, 'delete from household_reach r using (
        select household_id from turn group by household_id having max(sign) = -1) gone
    where r.household_id = gone.household_id');
end $$;
"""
FOLDING = """
-- The number of the transaction before which there are `most` changes that the rolls do not see,
-- if there are so many; not before the end of what they see.
create function end_of_part(most integer) returns bigint language sql stable as $$
    with since as materialized (
        select folded::pg_snapshot as folded,
               pg_snapshot_xmin(folded::pg_snapshot)::text::bigint as xmin,
               pg_snapshot_xmax(folded::pg_snapshot)::text::bigint as xmax
        from event_fold
    )
    select greatest(xid + 1, (select xmax from since))
    from (
        (select xid from support_event
         where xid >= (select xmin from since)
           and not pg_visible_in_snapshot(xid::text::xid8, (select folded from since))
         order by xid limit most)
        union all
        (select ended_xid from support_event_version
         where ended_xid >= (select xmin from since)
           and not pg_visible_in_snapshot(ended_xid::text::xid8, (select folded from since))
         order by ended_xid limit most)
    ) changed
    order by xid
    offset most - 1 limit 1
$$;

-- What this snapshot sees of the transactions before a number.
create function snapshot_until(until bigint) returns pg_snapshot language sql stable as $$
    select format('%s:%s:%s', least(pg_snapshot_xmin(now)::text::bigint, until), until,
                  (select string_agg(xid::text, ',' order by xid)
                   from pg_snapshot_xip(now) xid where xid::text::bigint < until))::pg_snapshot
    from pg_current_snapshot() now
$$;

-- Folds whole transactions, the oldest first, until they have `most` changes; without it, all.
drop function fold_events();
create function fold_events(most integer default null) returns bigint
language plpgsql security definer set search_path = public, pg_temp as $$
declare
    until bigint;
    changed bigint;
begin
    if not hold_event_rolls() then
        return null;
    end if;
    if most is not null then
        until := end_of_part(most);
    end if;
    if end_of_part(1000) is not null then
        discard plans;  -- a worker keeps those from when there was little
    end if;
    perform set_config('noidai.fold_until', coalesce(until::text, ''), true);
    perform fold_households();
    perform fold_beneficiaries();
    changed := fold_event_rolls();
    if until is null then
        return changed;
    end if;
    perform set_config('noidai.fold_until', '', true);
    update event_fold set folded = snapshot_until(until)::text;
    return greatest(changed, most);
end $$;
revoke execute on function end_of_part, snapshot_until, fold_events from public;
grant execute on function fold_events to noidai_app;
"""


def upgrade() -> None:
    """Replace the functions; rolls stay as they are."""
    run(CHANGES + GONE + FOLDING)
