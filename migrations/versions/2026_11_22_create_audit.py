"""Create the audit: every change by triggers, kept by months, sealed by a chain of roots.

Three rules hold whatever path a write takes. A column is shown in an entry only where it is
listed here; every other one, and any that is added later, appears as `***` (external ids too:
some are people's numbers). Entries are only ever
added: triggers refuse the rest to everybody, the owner included (what is too old goes a whole
month at a time, by dropping its partition). And the application can neither choose an entry's
moment nor its transaction, which is what the seals count by.
"""

from migrations.scripts import PLACED, audited, policy, run, secure

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TABLES = """
create table audit_entry (
    id uuid not null default uuidv7(),
    at timestamptz not null default now(),
    xid bigint not null default pg_current_xact_id()::text::bigint,  -- seals close ranges of it
    actor_id uuid,
    grant_id uuid,
    client_id uuid,
    session_id uuid,
    device_id uuid,
    request_id text,
    action text not null,
    resource text not null,
    row_id uuid,
    unit_id uuid,
    unit_key integer,
    commune_key integer,
    province_key integer,  -- the nation's own key for what has no place
    before jsonb,
    after jsonb,
    ids uuid[],
    query jsonb,
    primary key (id, at)
) partition by range (at);
create index on audit_entry (xid);
create index on audit_entry (province_key, at, id);
create index on audit_entry (commune_key, at, id);
create index on audit_entry (unit_key, at, id);
create index on audit_entry (row_id, at, id);
create index on audit_entry (actor_id, at, id);

-- Entries of the transactions from_xid <= xid < to_xid, all of which were over.
create table audit_seal (
    number bigint primary key,
    from_xid bigint not null,
    to_xid bigint not null,
    sealed_at timestamptz not null default now(),
    entries bigint not null,
    root bytea not null,
    previous_root bytea not null
);
"""

# Partitions have no grants and no policies: they are reached through `audit_entry` alone.
PARTITIONS = """
create function refuse_change() returns trigger language plpgsql as $$
begin
    raise exception 'the audit is only ever added to' using errcode = 'restrict_violation';
end $$;
create trigger refuse_change before update or delete or truncate on audit_entry
    for each statement execute function refuse_change();
create trigger refuse_change before update or delete or truncate on audit_seal
    for each statement execute function refuse_change();

create function add_audit_partition(name text, bounds text) returns void
language plpgsql as $$
begin
    execute format('create table %I partition of audit_entry %s', name, bounds);
    execute format('alter table %I enable row level security', name);
    execute format('alter table %I force row level security', name);
    execute format('create trigger refuse_change before update or delete or truncate on %I '
                   'for each statement execute function refuse_change()', name);
end $$;
revoke execute on function add_audit_partition from public;
select add_audit_partition('audit_entry_other', 'default');

create function make_audit_partitions() returns void
language plpgsql security definer set search_path = public, pg_temp set lock_timeout = '2s' as $$
declare
    month date;
    name text;
begin
    for month in select generate_series(date_trunc('month', now() at time zone 'UTC'),
                                        now() at time zone 'UTC' + interval '3 months',
                                        interval '1 month') loop
        name := 'audit_entry_' || to_char(month, 'YYYY_MM');
        continue when to_regclass(name) is not null;
        perform pg_advisory_xact_lock(hashtext('noidai audit partitions'));
        continue when to_regclass(name) is not null;
        begin
            perform add_audit_partition(name, format(
                'for values from (%L) to (%L)', month::text || ' 00:00+00',
                (month + interval '1 month')::date::text || ' 00:00+00'));
        exception when check_violation then null;  -- the default one took that month's first rows
        end;
    end loop;
end $$;
select make_audit_partitions();
"""

# Both read whole rows as their owner; timestamps are written in one zone, whoever asks.
SEALS = """
create function audit_root(previous bytea, from_xid bigint, to_xid bigint,
                           out entries bigint, out root bytea)
language sql stable security definer
set search_path = public, pg_temp set timezone = 'UTC' set datestyle = 'ISO, MDY' as $$
    select count(*), sha256(
        audit_root.previous
        || convert_to(format('%s|%s|%s|', audit_root.from_xid, audit_root.to_xid, count(*)), 'UTF8')
        || coalesce(string_agg(e.digest, ''::bytea order by e.xid, e.id), ''::bytea))
    from (
        select xid, id, sha256(convert_to(row(
            id, at, xid, actor_id, grant_id, client_id, session_id, device_id, request_id, action,
            resource, row_id, unit_id, unit_key, commune_key, province_key, before, after, ids,
            query)::text, 'UTF8')) as digest
        from audit_entry a
        where a.xid >= audit_root.from_xid and a.xid < audit_root.to_xid
    ) e
$$;

create function seal_audit() returns bigint
language plpgsql security definer set search_path = public, pg_temp as $$
declare
    last audit_seal;
    until bigint;
    made record;
begin
    if not pg_try_advisory_xact_lock(hashtext('noidai audit seals')) then
        return null;
    end if;
    select * into last from audit_seal order by number desc limit 1;
    if not found then
        last.number := 0; last.to_xid := 0; last.root := ''::bytea;
    end if;
    until := pg_snapshot_xmin(pg_current_snapshot())::text::bigint;
    perform from audit_entry where xid >= last.to_xid and xid < until limit 1;
    if not found then
        return null;
    end if;
    made := audit_root(last.root, last.to_xid, until);
    insert into audit_seal (number, from_xid, to_xid, entries, root, previous_root)
    values (last.number + 1, last.to_xid, until, made.entries, made.root, last.root);
    return last.number + 1;
end $$;
revoke execute on function seal_audit, audit_root, make_audit_partitions from public;
grant execute on function seal_audit, audit_root, make_audit_partitions to noidai_app;
grant select on audit_seal to noidai_app;
"""

COLUMNS = """
    actor_id, grant_id, client_id, session_id, device_id, request_id, action, resource, row_id,
    unit_id, unit_key, commune_key, province_key, before, after, ids, query
"""
POLICIES = (
    secure("audit_entry")
    + policy("audit_entry", "select", ("audit_read",), PLACED)
    + f"""
create policy audit_entry_insert on audit_entry for insert with check (true);
create policy audit_entry_seal on audit_entry for select to current_user using (true);
grant select, insert ({COLUMNS}) on audit_entry to noidai_app;
grant insert ({COLUMNS}) on audit_entry to noidai_subjects;
grant select on admin_unit, placement to noidai_subjects;
"""
)

# One statement's rows become entries at once. Arrays keep the order in which the statement met
# the rows, so the n-th old row and the n-th new one are the same row. Whoever writes generated
# rows (the demo) says so, and leaves one entry a statement, with their number.
CAPTURE = f"""
create function audit_place(source text, value jsonb,
    out unit_id uuid, out unit_key integer, out commune_key integer, out province_key integer)
language sql stable as $$
    select unit_id, unit_key, commune_key, province_key
    from (
        select m.unit_id, m.unit_key, m.commune_key, m.province_key, m.joined_on as newest
        from membership m
        where m.member_id = case source when 'member' then value ->> 'id'
                                        when 'device' then value ->> 'member_id' end::uuid
        union all
        select u.id, u.key, c.ancestor_key, p.ancestor_key, null
        from admin_unit u
        join placement p on p.level = 'province' and p.during @> current_date
             and p.unit_key = coalesce((value ->> 'parent_key')::integer, u.key)
        left join placement c on c.level = 'commune' and c.during @> current_date
             and c.unit_key = p.unit_key
        where u.key = case source when 'admin_unit' then value ->> 'key'
                                  when 'admin_unit_state' then value ->> 'unit_key'
                                  when 'service_type' then value ->> 'province_key' end::integer
        union all
        select id, key, null, key, date '0001-01-01' from admin_unit where level = 'nation'
    ) place
    order by newest desc limit 1  -- nulls come first
$$;

create function audit_shown(name text, value jsonb, shown text[]) returns jsonb
language sql immutable
return case
    when value = 'null' or name = any(shown) then value
    when name = 'consent' and value ? 'method' then value || '{{"method": "***"}}'
    when name = 'consent' then value
    else '"***"' end;

create function audit_rows() returns trigger language plpgsql as $$
declare
    shown constant text[] := string_to_array(tg_argv[1], ' ');
    left_out constant text[] := '{{id,content_hash,created_at,created_by,updated_at,search,key,
        unit_key,commune_key,province_key,team_unit_key,team_commune_key,occurred_on,
        beneficiary_hash,beneficiary_key}}';
    said constant jsonb := coalesce(nullif(current_setting('noidai.context', true), ''), '{{}}');
    actor constant uuid := said ->> 'principal';
    by_grant constant uuid := said ->> 'grant';
    client constant uuid := said ->> 'client';
    sitting constant uuid := said ->> 'session';
    device constant uuid := said ->> 'device';
    request constant text := said ->> 'request_id';
    was jsonb[];
    became jsonb[];
    masked text[];
    placed boolean;
begin
    if tg_op = 'INSERT' and current_setting('noidai.generated', true) = 'on' then
        perform audit_generated(tg_argv[0], (select count(*) from new_rows));
        return null;
    end if;
    if tg_op <> 'INSERT' then
        select array_agg(to_jsonb(o)) into was from old_rows o;
    end if;
    if tg_op <> 'DELETE' then
        select array_agg(to_jsonb(n)) into became from new_rows n;
    end if;
    if coalesce(was, became) is null then
        return null;
    end if;
    masked := array(select name from jsonb_object_keys(coalesce(became[1], was[1])) name
                    where name <> all(left_out) and name <> all(shown));
    placed := coalesce(became[1], was[1]) ? 'unit_id';

    insert into audit_entry ({COLUMNS})
    select actor, by_grant, client, sitting, device, request,
           case when tg_op = 'INSERT' then 'create' when tg_op = 'DELETE' then 'delete'
                when c.before -> 'deleted_at' = 'null' then 'delete'
                when c.before ? 'deleted_at' then 'undelete' else 'update' end,
           tg_argv[0],
           coalesce((whole ->> 'id')::uuid, (whole ->> 'member_id')::uuid, p.unit_id),
           coalesce(p.unit_id, (whole ->> 'unit_id')::uuid),
           coalesce(p.unit_key, (whole ->> 'unit_key')::integer),
           coalesce(p.commune_key, (whole ->> 'commune_key')::integer),
           coalesce(p.province_key, (whole ->> 'province_key')::integer),
           case when tg_op = 'DELETE' then kept else c.before end,
           case when tg_op = 'INSERT' then kept else c.after end,
           null, null
    from unnest(was, became) as r (was, became)
    cross join lateral (select coalesce(r.became, r.was)) as w (whole)
    left join lateral (
        select * from audit_place(tg_table_name, whole) where not placed) p on true
    left join lateral (
        select jsonb_strip_nulls(whole - left_out - masked) || coalesce((
            select jsonb_object_agg(name, audit_shown(name, whole -> name, shown))
            from unnest(masked) name where whole -> name <> 'null'), '{{}}') as kept
        where tg_op <> 'UPDATE') k on true
    left join lateral (
        select jsonb_object_agg(n.key, audit_shown(n.key, r.was -> n.key, shown)) as before,
               jsonb_object_agg(n.key, audit_shown(n.key, n.value, shown)) as after
        from jsonb_each(r.became) n
        where tg_op = 'UPDATE' and n.key <> all(left_out) and n.value <> r.was -> n.key
        ) c on true
    where tg_op <> 'UPDATE' or c.after is not null;
    return null;
end $$;

create function audit_generated(resource text, number bigint) returns void language sql as $$
    insert into audit_entry (action, resource, unit_id, unit_key, province_key, after)
    select 'generate', resource, id, key, key, jsonb_build_object('rows', number)
    from admin_unit where level = 'nation'
$$;

create function audit_session() returns trigger language plpgsql as $$
declare
    said constant jsonb := coalesce(nullif(current_setting('noidai.context', true), ''), '{{}}');
    begun constant boolean := tg_op = 'INSERT';
begin
    insert into audit_entry (actor_id, session_id, request_id, action, resource, row_id,
                             unit_id, unit_key, province_key)
    select case when begun then new.principal_id else (said ->> 'principal')::uuid end,
           case when begun then new.id else (said ->> 'session')::uuid end,
           said ->> 'request_id', case when begun then 'sign_in' else 'sign_out' end,
           'sessions', case when begun then new.id else old.id end, id, key, key
    from admin_unit where level = 'nation';
    return null;
end $$;
create trigger audit after insert or delete on session
    for each row execute function audit_session();
"""

# New events come in by the hundred: their entries have no personal column at all, not even masked.
EVENTS = """
create function audit_new_events() returns trigger language plpgsql as $$
declare
    said constant jsonb := coalesce(nullif(current_setting('noidai.context', true), ''), '{{}}');
    actor constant uuid := said ->> 'principal';
    by_grant constant uuid := said ->> 'grant';
    client constant uuid := said ->> 'client';
    sitting constant uuid := said ->> 'session';
    device constant uuid := said ->> 'device';
    request constant text := said ->> 'request_id';
begin
    if current_setting('noidai.generated', true) = 'on' then
        perform audit_generated('support_events', (select count(*) from new_rows));
        return null;
    end if;
    insert into audit_entry ({columns})
    select actor, by_grant, client, sitting, device, request, 'create', 'support_events', n.id,
           n.unit_id, n.unit_key, n.commune_key, n.province_key, null,
           jsonb_build_object({shown}), null, null
    from new_rows n;
    return null;
end $$;
drop trigger audit_insert on support_event;
create trigger audit_insert after insert on support_event referencing new table as new_rows
    for each statement execute function audit_new_events();
"""

SHOWN = {
    "team": (
        "teams",
        (
            "unit_id name kind founded_on decision_number establishing_body zalo_group_url"
            " dissolved_on external_ids"
        ),
    ),
    "member": ("members", "gender is_youth_union_member trained_on restricted_at redacted_at"),
    "membership": ("memberships", "team_id member_id unit_id role joined_on left_on"),
    "device": ("devices", "member_id team_ids code_expires_at enrolled_at"),
    "household": ("households", "unit_id people_count is_business restricted_at redacted_at"),
    "support_event": (
        "support_events",
        (
            "unit_id team_id member_ids service_type occurred_at quantity outcome mode channel"
            " status"
        ),
    ),
    "role_grant": (
        "role_grants",
        "unit_id principal_id role team_id valid_from valid_to expires_at",
    ),
    "data_subject_request": (
        "data_subject_requests",
        "unit_id kind member_id household_id due_at fulfilled_at fulfilled_by outcome",
    ),
    "principal": ("principals", "kind member_id must_change_password disabled_at public_jwks"),
    "service_type": (
        "service_types",
        (
            "code parent_code category unit_of_count name_vi name_en platform status active_from"
            " active_to"
        ),
    ),
    "indicator": (
        "indicators",
        "code kind name_vi name_en unit_of_count additive formula definition_version",
    ),
    "admin_unit": ("admin_units", "level valid_from valid_to lat lon"),
    "admin_unit_state": ("admin_unit_states", "during name type code parent_key"),
}
"""Table -> its resource in the audit, and the columns that an entry may show."""


def upgrade() -> None:
    """Create the tables, the seals and the triggers."""
    for script in (TABLES, PARTITIONS, SEALS, POLICIES, CAPTURE):
        run(script)
    run("".join(audited(table, *said) for table, said in SHOWN.items()))
    shown = ", ".join(f"'{name}', n.{name}" for name in SHOWN["support_event"][1].split())
    run(EVENTS.format(columns=COLUMNS, shown=shown))
