"""Let an event name the campaign that it was part of.

No foreign key, as with all references of events. Rolls do not know campaigns: an answer by
campaign is counted from its events, which the index finds.
"""

from migrations.scripts import run

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

TABLES = """
alter table support_event add column campaign_id uuid;
alter table support_event_version add column campaign_id uuid;
create index on support_event (campaign_id, occurred_at, id) where campaign_id is not null;

do $$
declare
    source text := pg_get_functiondef('keep_event_version'::regproc);
begin
    source := replace(source, 'household_id', 'household_id, campaign_id');
    source := replace(source, 'old.household_id, campaign_id', 'old.household_id, old.campaign_id');
    source := replace(source, 'new.household_id, campaign_id', 'new.household_id, new.campaign_id');
    execute source;
end $$;
"""

SHOWN = "version deleted_at unit_id team_id member_ids service_type occurred_at quantity outcome"
SHOWN += " mode channel status action changed_by campaign_id"
AUDITED = f"""
drop trigger audit_update on support_event;
create trigger audit_update after update on support_event
    referencing old table as old_rows new table as new_rows
    for each statement execute function audit_rows('support_events', '{SHOWN}');
"""


def upgrade() -> None:
    """Add the column, keep it in versions, and show it in the audit."""
    run(TABLES)
    run(AUDITED)
