"""Create second factors and devices: TOTP secrets, recovery codes, codes that enrol a device.

A device is a principal without a password. Its row is seen by whoever may enrol devices in one of
its teams, by the device itself, and by whoever knows its code (set for one transaction).
"""

from migrations.scripts import policy, run, secure

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

TABLES = """
alter table principal alter column secret_hash drop not null;
alter table principal drop constraint principal_kind_check;
alter table principal add constraint principal_kind_check
    check (kind in ('user', 'client', 'device'));

alter table session add column otp_at timestamptz;
comment on column session.otp_at is 'When it proved the second factor';

create table totp (
    principal_id uuid primary key references principal (id),
    secret bytea not null,
    created_at timestamptz not null,
    confirmed_at timestamptz,
    last_step bigint not null
);
comment on column totp.secret is 'Encrypted by the service';
comment on column totp.last_step is 'Of 30 s each: the last whose number was accepted';

create table recovery_code (
    principal_id uuid not null references principal (id),
    code_hash bytea not null,
    primary key (principal_id, code_hash)
);

create table device (
    id uuid primary key references principal (id),
    version integer not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    deleted_at timestamptz,
    created_by uuid,
    content_hash bytea,
    member_id uuid not null references member (id),
    team_ids uuid[] not null check (cardinality(team_ids) > 0),
    name text,
    code_hash bytea not null unique,
    code_expires_at timestamptz not null,
    enrolled_at timestamptz
);
create index on device (member_id);
create index on device (created_at, id);
create index on device using gin (team_ids);

grant select, insert, update, delete on totp to noidai_app;
grant select, insert, delete on recovery_code to noidai_app;
grant select, insert, update on device to noidai_app;
"""

TEAM = {
    "t.province_key": "provinces",
    "t.commune_key": "communes",
    "t.unit_key": "units",
    "t.id": "teams",
}
TEAMS_WITHIN = "array(select t.id from team t where {within})"  # once a statement, not once a row
OF_ITS_TEAMS = f"team_ids && {TEAMS_WITHIN}"
ONLY_WITHIN = f"team_ids <@ {TEAMS_WITHIN}"
BY_CODE = "code_hash = decode(nullif(current_setting('noidai.enrolment', true), ''), 'hex')"
ITSELF = "id = nullif(current_setting('noidai.principal', true), '')::uuid"

POLICIES = (
    secure("device")
    + policy(
        "device",
        "select",
        ("devices_write",),
        TEAM,
        template=f"{ITSELF} or {BY_CODE} or {OF_ITS_TEAMS}",
    )
    + policy("device", "insert", ("devices_write",), TEAM, template=ONLY_WITHIN)
    + policy("device", "update", ("devices_write",), TEAM, template=f"{BY_CODE} or {OF_ITS_TEAMS}")
)

ANNOUNCEMENTS = """
create function announce_row() returns trigger language plpgsql as $$
begin
    perform pg_notify('noidai_changes', tg_argv[0] || ':' || (to_jsonb(new) ->> tg_argv[1]));
    return null;
end $$;

create trigger announce_proof after update of otp_at on session for each row
    when (new.otp_at is distinct from old.otp_at)
    execute function announce_row('principal', 'principal_id');
create trigger announce_deleted after update of deleted_at on member for each row
    when (new.deleted_at is distinct from old.deleted_at)
    execute function announce_row('member', 'id');
create trigger announce_changed after update on device referencing new table as changed
    for each statement execute function announce_changes('principal', 'id');
create trigger announce_new after insert on membership referencing new table as changed
    for each statement execute function announce_changes('member', 'member_id');
create trigger announce_changed after update on membership referencing new table as changed
    for each statement execute function announce_changes('member', 'member_id');
create trigger announce_ended after delete on membership referencing old table as changed
    for each statement execute function announce_changes('member', 'member_id');
"""
"""A device's rights follow its member's stays; a session's, the factor that it has proved."""


def upgrade() -> None:
    """Create the tables and policies; announce what changes a device's or a session's rights."""
    run(TABLES)
    run(POLICIES)
    run(ANNOUNCEMENTS)
