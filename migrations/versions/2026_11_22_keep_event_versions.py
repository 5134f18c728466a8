"""Keep what every correction of an event replaced, and which transaction wrote what stands.

`xid` tells readers of a snapshot what has changed since another one. A change without a new
version (a key rotation, a team that moves) is none in meaning: it keeps the `xid` and leaves no
version, so it must not touch what is counted. Erasures and rotations reach the kept versions too:
nothing else of them ever changes.
"""

from migrations.scripts import PLACED, policy, run, secure

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

COLUMNS = """
    id, version, created_at, updated_at, deleted_at, created_by, content_hash, unit_id, unit_key,
    commune_key, province_key, team_id, team_unit_key, team_commune_key, member_ids, household_id,
    service_type, occurred_at, occurred_on, quantity, outcome, mode, channel, status,
    beneficiary_age_band, beneficiary_gender, beneficiary_hash, beneficiary_key, lat, lon, note,
    external_ids, xid, action, changed_by, reason
"""
COUNTED = "unit_key, commune_key, province_key, service_type, occurred_at, quantity, outcome"
COUNTED += ", channel, status, household_id, deleted_at"

TABLES = f"""
alter table support_event add column xid bigint not null default 0,
    add column action text, add column changed_by uuid, add column reason text;
alter table support_event alter column xid set default pg_current_xact_id()::text::bigint;
create index on support_event (xid);

create table support_event_version (like support_event,
    ended_xid bigint not null default pg_current_xact_id()::text::bigint);
alter table support_event_version add primary key (id, version);
create index on support_event_version (ended_xid);
create index on support_event_version (team_id);
create index on support_event_version (household_id) where household_id is not null;
create index on support_event_version (beneficiary_hash) where beneficiary_hash is not null;
grant select, insert, update (beneficiary_hash, beneficiary_key) on support_event_version
    to noidai_app;
grant select, insert, update (note, lat, lon, external_ids, content_hash, reason, beneficiary_hash,
                              beneficiary_key) on support_event_version to noidai_subjects;
grant update (action, changed_by, reason) on support_event to noidai_subjects;

-- Possible duplicates are looked for with every event that is shown.
create index on support_event (household_id, service_type, occurred_on)
    where household_id is not null;
create index on support_event (beneficiary_hash, service_type, occurred_on)
    where beneficiary_hash is not null;
drop index support_event_household_id_idx;
drop index support_event_beneficiary_hash_idx;

create function keep_event_version() returns trigger language plpgsql as $$
begin
    if new.version <> old.version then
        new.xid := pg_current_xact_id()::text::bigint;
        insert into support_event_version ({COLUMNS})
        select {", ".join("old." + name.strip() for name in COLUMNS.split(","))};
    elsif ({", ".join("new." + name.strip() for name in COUNTED.split(","))})
          is distinct from
          ({", ".join("old." + name.strip() for name in COUNTED.split(","))}) then
        raise exception 'what is counted of an event changes with its version only';
    end if;
    return new;
end $$;
create trigger keep_version before update on support_event
    for each row execute function keep_event_version();
"""

SHOWN = "version deleted_at unit_id team_id member_ids service_type occurred_at quantity outcome"
SHOWN += " mode channel status action changed_by"
# The audit tells who decided what; the words of a reason stay out of it, since it is never cleaned.
AUDITED = """
drop trigger audit_update on support_event;
create trigger audit_update after update on support_event
    referencing old table as old_rows new table as new_rows
    for each statement execute function audit_rows('support_events', '{shown}');
do $$ begin  -- `xid` is bookkeeping: no entry tells of it
    execute replace(pg_get_functiondef('audit_rows'::regproc), 'beneficiary_hash,',
                    'beneficiary_hash,xid,');
end $$;
"""

EVENT_PLACES = PLACED | {
    "team_commune_key": "communes",
    "team_unit_key": "units",
    "team_id": "teams",
}
SEEN = "{within} or exists (select from support_event e where e.id = support_event_version.id)"

# As of events (0006), and every version of those that are seen now.
NAMED = """
    household_id in (select id from household)
    or member_ids && array(select id from member)
    or beneficiary_hash in (select unnest(identifier_hashes) from data_subject_request
                            where fulfilled_at is null)
    or exists (select from support_event e where e.id = support_event_version.id)
"""

POLICIES = (
    secure("support_event_version")
    + policy("support_event_version", "select", ("events_read",), EVENT_PLACES, template=SEEN)
    + "create policy support_event_version_insert on support_event_version"
    " for insert with check (true);\n"
    + policy("support_event_version", "update", ("events_write",), EVENT_PLACES)
    + "".join(
        policy("support_event_version", action, (), {}, template=NAMED, to="noidai_subjects")
        for action in ("select", "update")
    )
    + "drop policy support_event_update on support_event;"
    + policy(
        "support_event", "update", ("events_write", "events_void", "teams_write"), EVENT_PLACES
    )
)


def upgrade() -> None:
    """Add the columns and the table; the default of old rows needs no rewrite."""
    run(TABLES)
    run(AUDITED.format(shown=SHOWN))
    run(POLICIES)
