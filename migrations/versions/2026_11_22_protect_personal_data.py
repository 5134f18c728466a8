"""Keep the ledger of consent, broken glass, data subjects' requests and generations of hashes.

`noidai_subjects` is the role in which the service answers data subjects' requests. Its policies
show only the persons whom open requests name, wherever their rows lie under the caller's units,
and its grants let it change nothing but what redaction, withdrawal and restriction change.
"""

from migrations.scripts import PLACED, policy, run, secure

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

SUBJECTS = "noidai_subjects"

TABLES = """
alter table role_grant
    add column expires_at timestamptz,
    add column reason text,
    add constraint role_grant_glass_mends
        check (role <> 'break_glass' or (expires_at is not null and reason is not null));

alter table member
    add column restricted_at timestamptz,
    add column redacted_at timestamptz;
alter table household
    add column restricted_at timestamptz,
    add column redacted_at timestamptz;
-- The generation of a beneficiary's hash: how many further keys wrap it.
alter table support_event add column beneficiary_key smallint not null default 0;
create index on support_event (beneficiary_hash) where beneficiary_hash is not null;
create index on principal (member_id);

-- Every legal basis that a household ever had; an entry without one tells of its removal.
create table consent_entry (
    id uuid primary key,
    household_id uuid not null references household (id),
    basis text,
    notice_version text,
    method text,
    given_at timestamptz,
    withdrawn_at timestamptz,
    recorded_at timestamptz not null,
    recorded_by uuid
);
create index on consent_entry (household_id, recorded_at, id);

-- Whatever changes a household's legal basis, by whatever path, leaves its entry.
create function record_consent() returns trigger language plpgsql as $$
declare
    consent jsonb = nullif(new.consent, 'null');
    before jsonb = case when tg_op = 'UPDATE' then nullif(old.consent, 'null') end;
begin
    if consent is not distinct from before then
        return null;
    end if;
    insert into consent_entry (id, household_id, basis, notice_version, method, given_at,
                               withdrawn_at, recorded_at, recorded_by)
    values (uuidv7(), new.id, consent ->> 'basis', consent ->> 'notice_version',
            consent ->> 'method', (consent ->> 'given_at')::timestamptz,
            (consent ->> 'withdrawn_at')::timestamptz, new.updated_at,
            (nullif(current_setting('noidai.context', true), '')::jsonb ->> 'principal')::uuid);
    return null;
end $$;
create trigger record_consent after insert or update on household
    for each row execute function record_consent();

-- `identifier_hashes`: of a beneficiary, by generation; random once the request is fulfilled.
create table data_subject_request (
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
    kind text not null,
    member_id uuid references member (id) deferrable initially deferred,
    household_id uuid references household (id) deferrable initially deferred,
    identifier_hashes bytea[] not null,
    note text,
    due_at timestamptz not null,
    fulfilled_at timestamptz,
    fulfilled_by uuid,
    outcome text,
    check (num_nonnulls(member_id, household_id) < 2)
);
create index on data_subject_request (unit_key);
create index on data_subject_request (commune_key);
create index on data_subject_request (province_key);
create index on data_subject_request (member_id);
create index on data_subject_request (household_id);
"""

GRANTS = f"""
grant select, insert on consent_entry to noidai_app;
grant select, insert, update on data_subject_request to noidai_app;

grant select on data_subject_request, member, membership, household, support_event, consent_entry,
    principal, external_id to {SUBJECTS};
grant insert, update (method) on consent_entry to {SUBJECTS};
grant update (head_name, address, phone, business_name, consent, external_ids, content_hash,
              restricted_at, redacted_at, version, updated_at) on household to {SUBJECTS};
grant update (full_name, phone, occupation, external_ids, content_hash, restricted_at,
              redacted_at, version, updated_at) on member to {SUBJECTS};
grant update (note, lat, lon, beneficiary_hash, beneficiary_key, external_ids, content_hash,
              version, updated_at) on support_event to {SUBJECTS};
grant update (login, secret_hash, name, public_jwks, disabled_at, content_hash, version,
              updated_at) on principal to {SUBJECTS};
grant select, update (name, deleted_at, content_hash, version, updated_at) on device to {SUBJECTS};
grant select, delete on external_id, session, totp, recovery_code to {SUBJECTS};
"""

_NAMED = "in (select {column} from data_subject_request where fulfilled_at is null)"
_MEMBERS = _NAMED.format(column="member_id")
MEMBERSHIP = f"member_id {_MEMBERS} and {{within}}"
MEMBER = f"id {_MEMBERS} and exists (select from membership m where m.member_id = member.id)"
DEVICE = "member_id in (select id from member)"
HOUSEHOLD = f"id {_NAMED.format(column='household_id')} and {{within}}"
# A household's and a member's events belong to them wherever they lie; a hash is one everywhere.
EVENT = f"""
    household_id in (select id from household)
    or member_ids && array(select id from member)
    or beneficiary_hash {_NAMED.format(column="unnest(identifier_hashes)")}
"""
OF_HOUSEHOLD = "exists (select from household h where h.id = consent_entry.household_id{more})"
WRITTEN = OF_HOUSEHOLD.format(more=" and {within}")
ALL_READ = OF_HOUSEHOLD.format(more="")
DPO = ("subjects_write",)
H_PLACED = {f"h.{column}": kind for column, kind in PLACED.items()}

POLICIES = (
    secure("consent_entry", "data_subject_request")
    + policy("consent_entry", "select", (), {}, template=ALL_READ)
    + policy("consent_entry", "insert", ("households_write",), H_PLACED, template=WRITTEN)
    + policy("data_subject_request", "select", DPO, PLACED)
    + policy("data_subject_request", "insert", DPO, PLACED)
    + policy("data_subject_request", "update", DPO, PLACED)
    + policy("data_subject_request", "select", DPO, PLACED, to=SUBJECTS)
    + policy("membership", "select", DPO, PLACED, template=MEMBERSHIP, to=SUBJECTS)
    + "".join(
        policy("member", action, (), {}, template=MEMBER, to=SUBJECTS)
        + policy("device", action, (), {}, template=DEVICE, to=SUBJECTS)
        + policy("household", action, DPO, PLACED, template=HOUSEHOLD, to=SUBJECTS)
        + policy("support_event", action, (), {}, template=EVENT, to=SUBJECTS)
        for action in ("select", "update")
    )
    + "".join(
        policy("consent_entry", action, (), {}, template=ALL_READ, to=SUBJECTS)
        for action in ("select", "insert", "update")
    )
)


def upgrade() -> None:
    """Create the tables, the trigger, the grants and the policies."""
    run(TABLES)
    run(GRANTS)
    run(POLICIES)
