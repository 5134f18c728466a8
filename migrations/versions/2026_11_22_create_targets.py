"""Create targets and their versions.

A part of an allocated target is written by whoever allocates it, which needs no right to set
targets.
"""

from migrations.scripts import PLACED, audited, policy, run, secure

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

COLUMNS = """
    id uuid not null,
    version integer not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    deleted_at timestamptz,
    created_by uuid,
    content_hash bytea,
    unit_id uuid not null,
    unit_key integer not null,
    commune_key integer,
    province_key integer,
    indicator text not null,
    owner text not null,
    team_id uuid,
    period text not null,
    first_on date not null,
    last_on date not null,
    measure text not null,
    baseline numeric(18, 4),
    baseline_period text,
    denominator text,
    comparator text not null,
    value numeric(18, 4) not null,
    minimum_per_unit integer,
    service_types text[] not null,
    team_kind text,
    activity_kind text,
    channel text,
    campaign_id uuid,
    document text,
    allocated_from_id uuid
"""

TABLES = f"""
create table target ({COLUMNS},
    primary key (id),
    foreign key (unit_key) references admin_unit (key),
    foreign key (commune_key) references admin_unit (key),
    foreign key (province_key) references admin_unit (key),
    foreign key (indicator) references indicator (code),
    foreign key (denominator) references indicator (code),
    foreign key (team_id) references team (id),
    foreign key (campaign_id) references campaign (id),
    foreign key (allocated_from_id) references target (id),
    check (first_on <= last_on)
);
create index on target (unit_key, id);
create index on target (commune_key, id);
create index on target (province_key, id);
create index on target (indicator);
create index on target (denominator);
create index on target (team_id);
create index on target (campaign_id);
create index on target (allocated_from_id);
create unique index target_part on target (allocated_from_id, unit_id, team_id)
    nulls not distinct where allocated_from_id is not null and deleted_at is null;
grant select, insert, update on target to noidai_app;

create table target_version ({COLUMNS}, primary key (id, version));
grant select, insert on target_version to noidai_app;

create function keep_target_version() returns trigger language plpgsql as $$
begin
    insert into target_version select old.*;
    return null;
end $$;
create trigger keep_version after update on target for each row
    when (new.version <> old.version) execute function keep_target_version();
"""

YOUTH = "{within} and owner = 'youth_union'"
PART = "{within} and allocated_from_id is not null"
SEEN = "exists (select from target t where t.id = target_version.id)"


def _also(name: str, action: str, permission: str, template: str) -> str:
    made = policy("target", action, (permission,), PLACED, template=template)
    return made.replace(f"policy target_{action}", f"policy target_{action}_{name}")


POLICIES = (
    secure("target", "target_version")
    + policy("target", "select", ("targets_read",), PLACED)
    + "".join(
        policy("target", action, ("all_targets_write", "national_targets_write"), PLACED)
        + _also("youth", action, "youth_union_write", YOUTH)
        + _also("part", action, "targets_allocate", PART)
        for action in ("insert", "update")
    )
    + policy("target_version", "select", (), {}, template=SEEN)
    + "create policy target_version_insert on target_version for insert with check (true);\n"
)
SHOWN = """
    unit_id indicator owner team_id period first_on last_on measure baseline baseline_period
    denominator comparator value minimum_per_unit service_types team_kind activity_kind channel
    campaign_id document allocated_from_id
"""


def upgrade() -> None:
    """Create the tables, their policies and their traces in the audit."""
    run(TABLES)
    run(POLICIES)
    run(audited("target", "targets", " ".join(SHOWN.split())))
