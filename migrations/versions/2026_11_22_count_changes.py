"""Count what changes, so that an answer that still holds need not be counted again.

A table's number of changes is a sum over rows that are only ever added: writers never wait for each
other, and a change that commits late still makes the sum another one. Folding rows into their sum
leaves it as it is. Events have no such rows: they tell by `xid` what is new since a snapshot. Only
what changes without a new version of its event (a rotation or an erasure of hashes) is counted.
"""

from migrations.scripts import run

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

TREE = ("tree", "admin_unit", "unit_succession")
NOUNS = ("team", "member", "membership", "household", "service_type", "indicator")

TABLES = """
create table data_change (noun text not null, changes bigint not null default 1);
grant select on data_change to noidai_app;

-- When figures were first seen as they are; to lose it costs every dashboard one answer.
create unlogged table data_version (version text primary key, at timestamptz not null);
create index on data_version (at);
grant select, insert, delete on data_version to noidai_app;

create function count_change() returns trigger
language plpgsql security definer set search_path = public, pg_temp as $$
begin
    insert into data_change (noun) values (tg_argv[0]);
    return null;
end $$;

create function changes_of(nouns text[]) returns text language sql stable as $$
    select coalesce(string_agg(noun || ' ' || changes, ', ' order by noun), '')
    from (select noun, sum(changes) as changes from data_change
          where noun = any(nouns) group by noun) n
$$;

create function fold_changes() returns bigint
language plpgsql security definer set search_path = public, pg_temp as $$
declare
    found bigint := (select count(*) from data_change);
begin
    if found < 100 then
        return 0;
    end if;
    with gone as (
        delete from data_change
        where ctid = any(array(select ctid from data_change for update skip locked))
        returning noun, changes
    )
    insert into data_change select noun, sum(changes) from gone group by noun;
    return found;
end $$;
"""

# A plan for the very snapshot: what is new is then a few rows at the end of an index.
EVENTS = """
create function events_changed(since text, everywhere boolean, provinces integer[],
                               communes integer[], units integer[], first date, last date)
returns boolean language plpgsql stable security definer
set search_path = public, pg_temp set plan_cache_mode = force_custom_plan as $$
declare
    known pg_snapshot := since;
    oldest bigint := pg_snapshot_xmin(known)::text::bigint;
begin
    return exists (
        select from (
            select * from (
                select xid, province_key, commune_key, unit_key, occurred_on
                from support_event where xid >= oldest offset 0) written
            union all
            select * from (
                select ended_xid, province_key, commune_key, unit_key, occurred_on
                from support_event_version where ended_xid >= oldest offset 0) replaced
        ) e
        where not pg_visible_in_snapshot(xid::text::xid8, known)
          and occurred_on between first and last
          and (everywhere or coalesce(province_key, -1) = any(provinces)
               or coalesce(commune_key, -1) = any(communes) or unit_key = any(units)));
end $$;
revoke execute on function count_change, fold_changes, events_changed from public;
grant execute on function fold_changes, events_changed to noidai_app;
"""


def _counted(table: str, noun: str, what: str = "insert or update or delete or truncate") -> str:
    return (
        f"create trigger count_change after {what} on {table}\n"
        f"    for each statement execute function count_change('{noun}');\n"
    )


TRIGGERS = "".join(_counted(table, "tree") for table in TREE)
TRIGGERS += "".join(_counted(table, table) for table in NOUNS)
TRIGGERS += _counted("support_event", "support_event", "update of beneficiary_hash or truncate")


def upgrade() -> None:
    """Create the tables, the functions and the triggers."""
    for script in (TABLES, EVENTS, TRIGGERS):
        run(script)
