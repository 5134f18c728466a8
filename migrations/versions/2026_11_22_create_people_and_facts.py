"""Create principals, grants and the nouns: catalogue, teams, members, households, events.

Every table that holds rows of some place carries unit, commune and province of the row's own day
and is bound by row-level security. Events have no foreign keys: their references are checked as
sets in the inserting statement, and referenced rows are never physically deleted.
"""

import csv
import json
from pathlib import Path

import sqlalchemy as sa
from alembic import op

from api import ids
from migrations.scripts import PLACED, policy, run, secure

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

DATA = Path(__file__).parents[2] / "api" / "data"

RECORD = """
    id uuid primary key,
    version integer not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    deleted_at timestamptz,
    created_by uuid,
    content_hash bytea
"""
PLACE = """
    unit_id uuid not null,
    unit_key integer not null references admin_unit (key),
    commune_key integer references admin_unit (key),
    province_key integer references admin_unit (key)
"""

TABLES = f"""
create function scope_keys(wanted text[], kind text) returns integer[]
language sql stable parallel safe as $$
    select coalesce(array_agg(k::integer), '{{}}')
    from jsonb_array_elements(
             coalesce(nullif(current_setting('noidai.scopes', true), ''), '[]')::jsonb) s,
         jsonb_array_elements_text(s -> kind) k
    where s -> 'permissions' ?| wanted
$$;
create function scope_teams(wanted text[]) returns uuid[]
language sql stable parallel safe as $$
    select coalesce(array_agg(k::uuid), '{{}}')
    from jsonb_array_elements(
             coalesce(nullif(current_setting('noidai.scopes', true), ''), '[]')::jsonb) s,
         jsonb_array_elements_text(s -> 'teams') k
    where s -> 'permissions' ?| wanted
$$;

create table principal (
    id uuid primary key,
    kind text not null check (kind in ('user', 'client')),
    login text not null unique,
    secret_hash text not null,
    name text not null,
    member_id uuid,
    must_change_password boolean not null default false,
    disabled_at timestamptz,
    version integer not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    created_by uuid references principal (id),
    content_hash bytea
);
create index on principal (created_by);

create table signing_key (
    kid text primary key,
    created_at timestamptz not null,
    retired_at timestamptz,
    public_jwk jsonb not null,
    private_pem bytea not null
);

create table service_type (
    {RECORD},
    code text not null unique,
    parent_code text references service_type (code),
    category text not null,
    unit_of_count text not null,
    name_vi text not null,
    name_en text not null,
    platform text,
    status text not null,
    active_from date,
    active_to date,
    province_key integer references admin_unit (key)
);
create index on service_type (parent_code);
create index on service_type (province_key);

create table indicator (
    {RECORD},
    code text not null unique,
    kind text not null,
    name_vi text not null,
    name_en text not null,
    unit_of_count text not null,
    additive boolean not null,
    formula text,
    definition_version integer not null
);

create table team (
    {RECORD},
    {PLACE},
    name text not null,
    kind text not null,
    founded_on date not null,
    decision_number text,
    establishing_body text,
    zalo_group_url text,
    dissolved_on date,
    external_ids jsonb not null,
    search text not null generated always as (search_text(name)) stored,
    check (dissolved_on >= founded_on)
);
create index on team (unit_key, founded_on);
create index on team (commune_key, founded_on);
create index on team (province_key, founded_on);
create index on team using gin (search gin_trgm_ops);

create table role_grant (
    {RECORD},
    {PLACE},
    principal_id uuid not null references principal (id),
    role text not null,
    team_id uuid references team (id),
    valid_from date,
    valid_to date,
    check (valid_to >= valid_from)
);
create index on role_grant (principal_id);
create index on role_grant (team_id);
create index on role_grant (unit_key);
create index on role_grant (commune_key);
create index on role_grant (province_key);

create table member (
    {RECORD},
    full_name text not null,
    birth_year integer,
    gender text not null,
    phone text,
    occupation text,
    is_youth_union_member boolean not null,
    trained_on date,
    external_ids jsonb not null
);

create table membership (
    team_id uuid not null references team (id),
    member_id uuid not null references member (id) deferrable initially deferred,
    joined_on date not null,
    left_on date,
    role text not null,
    {PLACE},
    primary key (team_id, member_id, joined_on),
    constraint membership_no_overlap exclude using gist (
        team_id with =, member_id with =, daterange(joined_on, left_on, '[]') with &&),
    check (left_on >= joined_on)
);
create index on membership (member_id);
create index on membership (unit_key);
create index on membership (commune_key);
create index on membership (province_key);

create table household (
    {RECORD},
    {PLACE},
    head_name text not null,
    address text,
    phone text,
    people_count integer,
    is_business boolean not null,
    business_name text,
    consent jsonb,
    external_ids jsonb not null,
    search text not null generated always as (search_text(head_name)) stored
);
create index on household (unit_key, id);
create index on household (commune_key, id);
create index on household (province_key, id);

create table support_event (
    {RECORD},
    unit_id uuid not null,
    unit_key integer not null,
    commune_key integer,
    province_key integer,
    team_id uuid not null,
    team_unit_key integer not null,
    team_commune_key integer,
    member_ids uuid[] not null,
    household_id uuid,
    service_type text not null,
    occurred_at timestamptz not null,
    occurred_on date not null
        generated always as ((occurred_at at time zone 'Asia/Ho_Chi_Minh')::date) stored,
    quantity integer not null check (quantity >= 1),
    outcome text not null,
    mode text not null,
    channel text not null,
    status text not null,
    beneficiary_age_band text,
    beneficiary_gender text,
    beneficiary_hash bytea,
    lat double precision,
    lon double precision,
    note text,
    external_ids jsonb not null
);
create index on support_event (unit_key, occurred_at, id);
create index on support_event (commune_key, occurred_at, id);
create index on support_event (province_key, occurred_at, id);
create index on support_event (team_id, occurred_at, id);
create index on support_event (team_commune_key, occurred_at, id);
create index on support_event (household_id) where household_id is not null;

create table external_system (
    name text primary key,
    principal_id uuid not null references principal (id)
);
create index on external_system (principal_id);
create table external_id (
    resource text not null,
    system text not null references external_system (name),
    value text not null,
    row_id uuid not null,
    primary key (resource, system, value),
    unique (resource, row_id, system)
);
create index on external_id (system);

grant select, insert, update on principal, signing_key, service_type, indicator, team, role_grant,
    member, household, support_event to noidai_app;
grant select, insert, update, delete on membership, external_id to noidai_app;
grant select, insert on external_system to noidai_app;
grant select on alembic_version to noidai_app;
"""

TEAM = PLACED | {"id": "teams"}
BY_TEAM = PLACED | {"team_id": "teams"}
EVENT_BY_TEAM = {
    "province_key": "provinces",
    "team_commune_key": "communes",
    "team_unit_key": "units",
    "team_id": "teams",
}
HAS_MEMBERSHIP = "exists (select from membership m where m.member_id = member.id and {within})"
MINE = "principal_id::text = current_setting('noidai.principal', true) or {within}"

POLICIES = (
    secure("team", "role_grant", "member", "membership", "household", "support_event")
    + policy("team", "select", ("teams_read",), TEAM)
    + policy("team", "insert", ("teams_write",), TEAM)
    + policy("team", "update", ("teams_write", "team_link_write"), TEAM)
    + policy("role_grant", "select", ("principals_write", "teams_write"), PLACED, template=MINE)
    + policy("role_grant", "insert", ("principals_write",), PLACED)
    + policy("role_grant", "update", ("principals_write", "teams_write"), PLACED)  # a team moves
    + policy("membership", "select", ("members_read", "teams_read"), BY_TEAM)
    + policy("membership", "insert", ("members_write",), BY_TEAM)
    + policy("membership", "update", ("members_write", "teams_write"), BY_TEAM)
    + policy("membership", "delete", ("members_write",), BY_TEAM)
    + policy("member", "select", ("members_read",), BY_TEAM, template=HAS_MEMBERSHIP)
    + policy("member", "insert", ("members_write",), BY_TEAM, template=HAS_MEMBERSHIP)
    + policy("member", "update", ("members_write",), BY_TEAM, template=HAS_MEMBERSHIP)
    + policy("household", "select", ("households_read",), PLACED)
    + policy("household", "insert", ("households_write",), PLACED)
    + policy("household", "update", ("households_write",), PLACED)
    + policy("support_event", "select", ("events_read",), PLACED | EVENT_BY_TEAM)
    + policy("support_event", "insert", ("events_write",), EVENT_BY_TEAM)
    + policy("support_event", "update", ("events_write", "teams_write"), PLACED | EVENT_BY_TEAM)
)

_CATALOGUE = sa.text("""
    insert into service_type (id, version, created_at, updated_at, code, category, unit_of_count,
                              name_vi, name_en, platform, status, active_from, active_to)
    select id, 1, now(), now(), code, category, unit_of_count, name_vi, name_en,
           nullif(platform, ''), status, nullif(active_from, '')::date, nullif(active_to, '')::date
    from jsonb_to_recordset(cast(:rows as jsonb)) as s (
        id uuid, code text, category text, unit_of_count text, name_vi text, name_en text,
        platform text, status text, active_from text, active_to text)
""")
_INDICATORS = sa.text("""
    insert into indicator (id, version, created_at, updated_at, code, kind, name_vi, name_en,
                           unit_of_count, additive, formula, definition_version)
    select id, 1, now(), now(), code, kind, name_vi, name_en, unit_of_count, additive, formula, 1
    from jsonb_to_recordset(cast(:rows as jsonb)) as i (
        id uuid, code text, kind text, name_vi text, name_en text, unit_of_count text,
        additive boolean, formula text)
""")


def _rows(name: str, kind: str) -> str:
    with (DATA / name).open(encoding="utf-8", newline="") as file:
        rows = [
            row | {"id": str(ids.catalogue_id(kind, row["code"]))} for row in csv.DictReader(file)
        ]
    return json.dumps(rows)


def upgrade() -> None:
    """Create the tables and policies, then load the catalogue and the indicators."""
    run(TABLES)
    run(POLICIES)
    bind = op.get_bind()
    bind.execute(_CATALOGUE, {"rows": _rows("service_types.csv", "service_type")})
    bind.execute(_INDICATORS, {"rows": _rows("indicators.csv", "indicator")})
