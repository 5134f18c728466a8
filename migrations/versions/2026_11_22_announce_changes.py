"""Announce at commit whose rights may have changed, and when the tree of units did.

Workers keep callers in memory and forget those that are named on the channel `noidai_changes`
(`principal:{id}`, `member:{id}`); an empty payload means everybody. Events and other facts announce
nothing: an announcement at every commit would make commits wait for each other.
"""

from migrations.scripts import run

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

FUNCTIONS = """
create function announce_changes() returns trigger language plpgsql as $$
declare
    named text[];
begin
    execute format('select array_agg(distinct %I::text) from changed', tg_argv[1]) into named;
    if cardinality(named) > 100 then
        perform pg_notify('noidai_changes', '');
    else
        perform pg_notify('noidai_changes', tg_argv[0] || ':' || name) from unnest(named) as name;
    end if;
    return null;
end $$;

create function announce_tree() returns trigger language plpgsql as $$
begin
    perform pg_notify('noidai_changes', '');
    return null;
end $$;

create trigger announce_tree after update on tree
    for each statement execute function announce_tree();
create trigger announce_new after insert on role_grant referencing new table as changed
    for each statement execute function announce_changes('principal', 'principal_id');
create trigger announce_changed after update on role_grant referencing new table as changed
    for each statement execute function announce_changes('principal', 'principal_id');
create trigger announce_changed after update on principal referencing new table as changed
    for each statement execute function announce_changes('principal', 'id');
create trigger announce_ended after delete on session referencing old table as changed
    for each statement execute function announce_changes('principal', 'principal_id');
"""

SCOPES = """
create function scope_text(wanted text[], kind text) returns text
language plpgsql stable parallel safe as $$
declare
    given jsonb := nullif(current_setting('noidai.scopes', true), '')::jsonb;
    permission text;
    found text := '';
begin
    if jsonb_typeof(given) = 'array' then  -- as the previous release writes it
        return (select '{' || string_agg(k, ',') || '}'
                from jsonb_array_elements(given) as g, jsonb_array_elements_text(g -> kind) as k
                where g -> 'permissions' ?| wanted);
    end if;
    foreach permission in array wanted loop
        found := concat_ws(',', nullif(found, ''), given -> permission ->> kind);
    end loop;
    return '{' || found || '}';
end $$;
comment on function scope_text is 'Where some permissions hold, as the text of an array';

create or replace function scope_keys(wanted text[], kind text) returns integer[]
language plpgsql stable parallel safe as $$
begin
    return coalesce(scope_text(wanted, kind), '{}')::integer[];
end $$;
create or replace function scope_teams(wanted text[]) returns uuid[]
language plpgsql stable parallel safe as $$
begin
    return coalesce(scope_text(wanted, 'teams'), '{}')::uuid[];
end $$;
"""
"""Arrays by permission, read by PL/pgSQL: asked for at every statement, and three times as fast as
searching a list of scopes."""


def upgrade() -> None:
    """Create the triggers; let the arrays of scope be found by permission."""
    run(FUNCTIONS)
    run(SCOPES)
