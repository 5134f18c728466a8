"""Create activities: trainings, contests, launches and the like, and who was trained by them.

`training_attended` is worked out from the lists of attendees: whoever may count a member counts
its trainings too, wherever they were held.
"""

import csv
import json
from pathlib import Path

import sqlalchemy as sa
from alembic import op

from api import ids
from migrations.scripts import PLACED, audited, policy, run, secure

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

DATA = Path(__file__).parents[2] / "api" / "data"

TABLES = """
create table activity (
    id uuid primary key,
    version integer not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    deleted_at timestamptz,
    created_by uuid,
    content_hash bytea,
    unit_id uuid not null,
    host_unit_id uuid not null generated always as (unit_id) stored,  -- by its public name
    unit_key integer not null references admin_unit (key),
    commune_key integer references admin_unit (key),
    province_key integer references admin_unit (key),
    kind text not null,
    title text not null,
    organiser text not null,
    partners text[] not null,
    team_id uuid references team (id),
    held_on date not null,
    participants integer check (participants >= 0),
    attendee_ids uuid[] not null,
    campaign_id uuid references campaign (id),
    external_ids jsonb not null
);
create index on activity (unit_key, held_on, id);
create index on activity (commune_key, held_on, id);
create index on activity (province_key, held_on, id);
create index on activity (team_id);
create index on activity (campaign_id);
grant select, insert, update on activity to noidai_app;

create table training_attended (
    activity_id uuid not null references activity (id),
    member_id uuid not null,
    held_on date not null,
    primary key (activity_id, member_id)
);
create index on training_attended (member_id, held_on);
grant select on training_attended to noidai_app;

create function keep_trainings() returns trigger
language plpgsql security definer set search_path = public, pg_temp as $$
begin
    delete from training_attended where activity_id = new.id;
    if new.deleted_at is null and new.kind in ('training', 'course') then
        insert into training_attended (activity_id, member_id, held_on)
        select distinct new.id, member_id, new.held_on from unnest(new.attendee_ids) member_id;
    end if;
    return null;
end $$;
revoke execute on function keep_trainings from public;
create trigger keep_trainings
    after insert or update of kind, held_on, attendee_ids, deleted_at on activity
    for each row execute function keep_trainings();

create trigger count_change after insert or update or delete or truncate on activity
    for each statement execute function count_change('activity');
create trigger keep_field_changes after update on activity
    for each row when (new.version <> old.version)
    execute function keep_field_changes('activities');
create trigger refuse_unversioned_change after update on activity
    for each row when (new.version = old.version)
    execute function refuse_unversioned_change();
"""

SHOWN = (
    "unit_id host_unit_id kind title organiser partners team_id held_on participants attendee_ids"
)
SHOWN += " campaign_id external_ids"
BY_TEAM = PLACED | {"team_id": "teams"}
POLICIES = (
    secure("activity", "training_attended")
    + policy("activity", "select", ("activities_read",), BY_TEAM)
    + policy("activity", "insert", ("activities_write",), BY_TEAM)
    + policy("activity", "update", ("activities_write",), BY_TEAM)
    + """
create policy training_attended_select on training_attended for select to noidai_app
    using (member_id in (select m.member_id from membership m));
create policy training_attended_keep on training_attended to current_user
    using (true) with check (true);
"""
    + audited("activity", "activities", SHOWN)
)

_INDICATORS = sa.text("""
    insert into indicator (id, version, created_at, updated_at, code, kind, name_vi, name_en,
                           unit_of_count, additive, formula, definition_version)
    select id, 1, now(), now(), code, kind, name_vi, name_en, unit_of_count, additive, formula, 1
    from jsonb_to_recordset(cast(:rows as jsonb)) as i (
        id uuid, code text, kind text, name_vi text, name_en text, unit_of_count text,
        additive boolean, formula text)
    on conflict (code) do nothing
""")
_FORMULAS = sa.text("""
    update indicator i set formula = r.formula
    from jsonb_to_recordset(cast(:rows as jsonb)) as r (code text, formula text)
    where i.code = r.code and i.code in ('members.trained_share', 'communes.trained')
""")


def upgrade() -> None:
    """Create the tables and policies; add the indicators that an older database lacks."""
    run(TABLES)
    run(POLICIES)
    with (DATA / "indicators.csv").open(encoding="utf-8", newline="") as file:
        rows = [
            row | {"id": str(ids.catalogue_id("indicator", row["code"]))}
            for row in csv.DictReader(file)
        ]
    for statement in (_INDICATORS, _FORMULAS):
        op.get_bind().execute(statement, {"rows": json.dumps(rows)})
