"""Create commendations: who was commended, or is proposed to be, where and why."""

from migrations.scripts import PLACED, audited, policy, run, secure

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

TABLES = """
create table commendation (
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
    recipient_kind text not null,
    recipient_name text not null,
    team_id uuid references team (id),
    member_id uuid references member (id),
    awarded_on date,
    awarded_by text,
    document text,
    reason text,
    check (recipient_kind = 'individual' or member_id is null)
);
create index on commendation (unit_key, id);
create index on commendation (commune_key, id);
create index on commendation (province_key, id);
create index on commendation (team_id);
create index on commendation (member_id);
grant select, insert, update on commendation to noidai_app;
grant select, update (recipient_name, reason, content_hash, version, updated_at) on commendation
    to noidai_subjects;
grant select on activity to noidai_subjects;
"""

SHOWN = "unit_id recipient_kind team_id member_id awarded_on awarded_by document"
# Of a person: those that name the member, or were given in a team that it was in.
NAMED = """
    member_id in (select id from member)
    or team_id in (select m.team_id from membership m where m.member_id in (select id from member))
"""
POLICIES = (
    secure("commendation")
    + policy("commendation", "select", ("commendations_read",), PLACED)
    + policy("commendation", "insert", ("commendations_write",), PLACED)
    + policy("commendation", "update", ("commendations_write",), PLACED)
    + "".join(
        policy("commendation", action, (), {}, template=NAMED, to="noidai_subjects")
        for action in ("select", "update")
    )
    + policy(
        "activity",
        "select",
        (),
        {},
        template="attendee_ids && array(select id from member)",
        to="noidai_subjects",
    )
    + audited("commendation", "commendations", SHOWN)
)


def upgrade() -> None:
    """Create the table, its policies and its triggers."""
    run(TABLES)
    run(POLICIES)
