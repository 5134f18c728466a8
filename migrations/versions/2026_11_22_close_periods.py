"""Close periods: frozen figures with their hash, and what the live ones became since.

Nothing of it is ever changed: triggers refuse it to everybody, the owner included, and there are
no grants for it. Figures about people lie in rows of their own, which the database shows only to
whoever reads the people of the whole unit.
"""

from migrations.scripts import PLACED, audited, policy, run, secure

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

PLACE = """
    unit_key integer not null references admin_unit (key),
    commune_key integer references admin_unit (key),
    province_key integer references admin_unit (key)
"""
TABLES = f"""
create table closed_period (
    id uuid primary key,
    version integer not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    deleted_at timestamptz,
    created_by uuid,
    content_hash bytea,
    unit_id uuid not null,
    {PLACE},
    period text not null,
    first_on date not null,
    last_on date not null check (first_on <= last_on),
    closed_at timestamptz not null,
    hash text not null,
    data_version text not null,
    verified_share double precision,
    definition_versions jsonb not null,
    unique (unit_key, period)
);
create index on closed_period (commune_key);
create index on closed_period (province_key);

create table closed_figures (
    closed_period_id uuid not null references closed_period (id),
    people boolean not null,
    {PLACE},
    hash text not null,
    figures jsonb not null,
    primary key (closed_period_id, people)
);
create index on closed_figures (unit_key);
create index on closed_figures (commune_key);
create index on closed_figures (province_key);

-- `snapshot` is that of the live figures: an older one never follows a newer one.
create table closed_period_revision (
    closed_period_id uuid not null references closed_period (id),
    people boolean not null,
    number integer not null,
    {PLACE},
    at timestamptz not null,
    snapshot text not null,
    indicator text not null,
    unit_id uuid,
    service_type text,
    was double precision,
    became double precision,
    primary key (closed_period_id, people, number),
    check (was is distinct from became)
);
create index on closed_period_revision (unit_key);
create index on closed_period_revision (commune_key);
create index on closed_period_revision (province_key);

create function refuse_reopening() returns trigger language plpgsql as $$
begin
    raise exception 'what is closed stays as it is' using errcode = 'restrict_violation';
end $$;
"""
CLOSED = ("closed_period", "closed_figures", "closed_period_revision")
FINAL = "".join(
    f"""
create trigger refuse_reopening before update or delete or truncate on {table}
    for each statement execute function refuse_reopening();
grant select, insert on {table} to noidai_app;
"""
    for table in CLOSED
)


def _people(table: str) -> str:
    """Return the policy by which figures about people are for those who read these people."""
    whole = policy(table, "select", ("aggregates_read",), PLACED)
    people = policy(table, "select", ("people_read",), PLACED, template="not people or {within}")
    return whole + people.replace(f"{table}_select ", f"{table}_people ").replace(
        "permissive", "restrictive"
    )


POLICIES = (
    secure(*CLOSED)
    + policy("closed_period", "select", ("aggregates_read", "periods_close"), PLACED)
    + policy("closed_period", "insert", ("periods_close",), PLACED)
    + _people("closed_figures")
    + policy("closed_figures", "insert", ("periods_close",), PLACED)
    + _people("closed_period_revision")
    + policy("closed_period_revision", "insert", ("aggregates_read",), PLACED)
    # `period_closing` tells those who edit what lies below of what was closed above them.
    + "create policy closed_period_guard on closed_period for select to current_user using (true);"
)

# Whoever edits what a closed period holds shares the turn of every unit above; whoever closes one
# of these takes it alone. Each statement here sees what was committed while it waited. Units share
# 256 turns, so that a transaction with thousands of edits holds no more locks than that.
TURNS = """
create function closing_turn(unit integer) returns void language sql volatile as $$
    select pg_advisory_xact_lock(hashtext('noidai closing'), unit % 256)
$$;

create function period_closing(unit integer, first date, last date) returns text
language plpgsql volatile security definer set search_path = public, pg_temp as $$
declare
    above integer[] := array(
        select unit union
        select ancestor_key from placement
        where unit_key = unit and during && daterange(first, last, '[]') union
        select key from admin_unit where level = 'nation'
        order by 1);
    one integer;
begin
    foreach one in array above loop
        perform pg_advisory_xact_lock_shared(hashtext('noidai closing'), one % 256);
    end loop;
    return (select p.period from closed_period p
            where p.unit_key = any(above) and p.first_on <= period_closing.first
              and period_closing.last <= p.last_on
            order by p.first_on, p.last_on limit 1);
end $$;
revoke execute on function period_closing from public;
grant execute on function period_closing to noidai_app;

create function refuse_closed_edit() returns trigger language plpgsql as $$
declare
    closed text;
begin
    if tg_op <> 'INSERT' then
        closed := period_closing(old.unit_key, coalesce(old.first_on, old.last_on), old.last_on);
    end if;
    if closed is null and tg_op <> 'DELETE' then
        closed := period_closing(new.unit_key, coalesce(new.first_on, new.last_on), new.last_on);
    end if;
    if closed is not null then
        raise exception 'the period is closed' using errcode = 'NC001', detail = closed;
    end if;
    return coalesce(new, old);
end $$;
create trigger refuse_closed_edit before insert or update or delete on statistic
    for each row execute function refuse_closed_edit();
create trigger refuse_closed_edit before insert or update or delete on target
    for each row execute function refuse_closed_edit();
"""
SHOWN = "unit_id period closed_at hash definition_versions"


def upgrade() -> None:
    """Create the tables, what keeps them as they are, and the turns."""
    for script in (TABLES, FINAL, POLICIES, TURNS):
        run(script)
    run(audited("closed_period", "closed_periods", SHOWN))
