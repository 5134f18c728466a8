"""Remember which version last changed a field, which changes were applied, and first answers.

A trigger keeps the fields, so that no path forgets one. What changed before this migration is not
known: the first change after it leaves the version until then under the pointer "" (everything),
and of a row without any entry nothing is known at all.

Neither table holds a value or a place, and both are read by the id of a row that is locked in
scope already: they have no policies. Answers are their callers' own.
"""

from migrations.scripts import run, secure

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

FIELDS = """
create table field_change (
    resource text not null,
    row_id uuid not null,
    pointer text not null,
    version integer not null,
    changed_by uuid,
    primary key (resource, row_id, pointer)
);
comment on column field_change.pointer is 'JSON pointer; "" is everything';
grant select on field_change to noidai_app;

-- Members of objects are fields of their own, since they are merged one by one.
create function field_pointers(row_values jsonb) returns table (pointer text, field jsonb)
language sql immutable as $$
    select '/' || case f.key when 'beneficiary_age_band' then 'beneficiary/age_band'
                             when 'beneficiary_gender' then 'beneficiary/gender'
                             when 'beneficiary_hash' then 'beneficiary/identifier'
                             else f.key end || coalesce('/' || m.key, ''),
           coalesce(m.value, f.value)
    from jsonb_each(row_values) f
    left join lateral jsonb_each(
        case when jsonb_typeof(f.value) = 'object' then f.value else '{}' end) m on true
    where f.value <> 'null' and f.value <> '{}' and m.value is distinct from 'null'
      and f.key <> all('{id,version,created_at,updated_at,deleted_at,created_by,content_hash,
                         search,unit_key,commune_key,province_key,team_unit_key,team_commune_key,
                         occurred_on,beneficiary_key,xid,status,action,changed_by,reason,
                         restricted_at,redacted_at}')
$$;

create function keep_field_changes() returns trigger
language plpgsql security definer set search_path = public, pg_temp as $$
declare
    actor constant uuid :=
        nullif(current_setting('noidai.context', true), '')::jsonb ->> 'principal';
    was constant jsonb := to_jsonb(old);
    becomes constant jsonb := to_jsonb(new);
begin
    insert into field_change (resource, row_id, pointer, version)
    values (tg_argv[0], new.id, '', old.version)
    on conflict do nothing;
    insert into field_change (resource, row_id, pointer, version, changed_by)
    select distinct tg_argv[0], new.id, d.pointer, new.version, actor
    from ((select * from field_pointers(becomes) except select * from field_pointers(was))
          union all
          (select * from field_pointers(was) except select * from field_pointers(becomes))) d
    on conflict (resource, row_id, pointer)
        do update set version = excluded.version, changed_by = excluded.changed_by;
    return null;
end $$;

create function refuse_unversioned_change() returns trigger language plpgsql as $$
begin
    if (select array_agg(p order by pointer) from field_pointers(to_jsonb(old)) p)
       is distinct from
       (select array_agg(p order by pointer) from field_pointers(to_jsonb(new)) p) then
        raise exception 'what is merged by field changes with its version only';
    end if;
    return null;
end $$;
revoke execute on function keep_field_changes, refuse_unversioned_change from public;
"""

NOUNS = {
    "team": "teams",
    "member": "members",
    "household": "households",
    "support_event": "support_events",
}
TRIGGERS = "".join(
    f"create trigger keep_field_changes after update on {table}\n"
    f"    for each row when (new.version <> old.version)\n"
    f"    execute function keep_field_changes('{resource}');\n"
    for table, resource in NOUNS.items()
)
# (Events have had such a rule since they have versions.)
TRIGGERS += "".join(
    f"create trigger refuse_unversioned_change after update on {table}\n"
    f"    for each row when (new.version = old.version)\n"
    f"    execute function refuse_unversioned_change();\n"
    for table in ("team", "member", "household")
)

REPEATS = f"""
create table applied_change (
    row_id uuid not null,
    change bytea not null,
    applied_at timestamptz not null default now(),
    primary key (row_id, change)
);
create index on applied_change (applied_at);
comment on column applied_change.change is 'Keyed hash of an item of a batch: base and change';
grant select, insert, delete on applied_change to noidai_app;
grant select, delete on applied_change to noidai_subjects;

create table idempotency_key (
    principal_id uuid not null references principal (id),
    key_hash bytea not null,
    request_hash bytea not null,
    answer bytea not null,
    expires_at timestamptz not null,
    primary key (principal_id, key_hash)
);
create index on idempotency_key (expires_at);
comment on column idempotency_key.answer is 'The first answer, encrypted';
grant select, insert, update, delete on idempotency_key to noidai_app;
{secure("idempotency_key")}
create policy idempotency_key_own on idempotency_key to noidai_app
    using (principal_id::text = current_setting('noidai.principal', true));
create policy idempotency_key_expired on idempotency_key for select to noidai_app
    using (expires_at < now());
create policy idempotency_key_delete on idempotency_key for delete to noidai_app
    using (expires_at < now());
"""


def upgrade() -> None:
    """Create the tables and the triggers."""
    for script in (FIELDS, TRIGGERS, REPEATS):
        run(script)
