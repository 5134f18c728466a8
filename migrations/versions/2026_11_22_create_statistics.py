"""Create statistics, declared with a source, and keep former definitions of indicators.

Row-level security says three things of a writer: it declares everybody's figures there, or the
youth union's, or only its own (`own_statistics_write`), which then is also all that it reads.
"""

from migrations.scripts import PLACED, audited, policy, run, secure

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

TABLES = """
create table statistic (
    id uuid primary key,
    version integer not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    deleted_at timestamptz,
    created_by uuid,
    content_hash bytea,
    unit_id uuid not null,
    unit_key integer not null references admin_unit (key),
    commune_key integer references admin_unit (key),
    province_key integer references admin_unit (key),
    indicator text not null references indicator (code),
    as_of date,
    period text,
    first_on date,
    last_on date not null,
    value numeric(18, 4) not null,
    precision text not null,
    attribution text not null,
    source text,
    external_ids jsonb not null,
    check ((as_of is null) <> (period is null)),
    check ((period is null) = (first_on is null)),
    check (first_on <= last_on)
);
create index on statistic (indicator, unit_key, last_on);
create index on statistic (unit_key, id);
create index on statistic (commune_key, id);
create index on statistic (province_key, id);
create index on statistic (created_by, id);
grant select, insert, update on statistic to noidai_app;

create table indicator_version (
    id uuid not null references indicator (id),
    definition_version integer not null,
    name_vi text not null,
    name_en text not null,
    unit_of_count text not null,
    additive boolean not null,
    formula text,
    ended_at timestamptz not null,
    primary key (id, definition_version)
);
grant select, insert on indicator_version to noidai_app;

create function keep_definition() returns trigger language plpgsql as $$
begin
    insert into indicator_version
    values (old.id, old.definition_version, old.name_vi, old.name_en, old.unit_of_count,
            old.additive, old.formula, new.updated_at);
    return null;
end $$;
create trigger keep_definition after update on indicator for each row
    when (new.definition_version <> old.definition_version) execute function keep_definition();

create trigger count_change after insert or update or delete or truncate on statistic
    for each statement execute function count_change('statistic');
"""

MINE = "{within} and created_by::text = current_setting('noidai.principal', true)"
YOUTH = "{within} and attribution = 'youth_union'"


def _also(name: str, action: str, permission: str, template: str) -> str:
    made = policy("statistic", action, (permission,), PLACED, template=template)
    return made.replace(f"policy statistic_{action}", f"policy statistic_{action}_{name}")


POLICIES = (
    secure("statistic")
    + policy("statistic", "select", ("all_statistics_read",), PLACED)
    + _also("own", "select", "statistics_read", MINE)
    + "".join(
        policy("statistic", action, ("all_statistics_write",), PLACED)
        + _also("own", action, "own_statistics_write", MINE)
        + _also("youth", action, "youth_union_write", YOUTH)
        for action in ("insert", "update")
    )
)
SHOWN = "unit_id indicator as_of period first_on last_on value precision attribution source"
SHOWN += " external_ids"


def upgrade() -> None:
    """Create the tables, their policies and their traces in the audit."""
    run(TABLES)
    run(POLICIES)
    run(audited("statistic", "statistics", SHOWN))
