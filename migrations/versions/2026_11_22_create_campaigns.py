"""Create campaigns: named efforts of a unit between two days."""

from migrations.scripts import PLACED, audited, policy, run, secure

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

TABLES = """
create table campaign (
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
    name text not null,
    starts_on date not null,
    ends_on date not null,
    service_types text[] not null,
    baseline_on date,
    check (ends_on >= starts_on),
    check (baseline_on < starts_on)
);
create index on campaign (unit_key, starts_on);
create index on campaign (commune_key, starts_on);
create index on campaign (province_key, starts_on);
grant select, insert, update on campaign to noidai_app;
"""

# Whoever stands under a campaign's unit reads it too: its reach names the units above.
POLICIES = (
    secure("campaign")
    + policy("campaign", "select", ("campaigns_read",), PLACED)
    + policy("campaign", "insert", ("campaigns_write",), PLACED)
    + policy("campaign", "update", ("campaigns_write",), PLACED)
    + audited("campaign", "campaigns", "unit_id name starts_on ends_on service_types baseline_on")
)


def upgrade() -> None:
    """Create the table, its policies and its triggers."""
    run(TABLES)
    run(POLICIES)
