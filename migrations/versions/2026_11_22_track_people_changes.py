"""Keep notes of households that moved or were hidden, and of beneficiaries' hashes replaced.

What rolls count of people rests on more than the versions of events: on where a household is
registered, and on hashes, which a key rotation and an erasure replace in rows that stay the same in
all else. Both are rare, and are noted row by row; whoever folds takes the notes away.
"""

from migrations.scripts import PLACED, policy, run, secure

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None

TABLES = """
create table household_move (  -- where it was registered until then
    household_id uuid not null,
    province_key integer,
    commune_key integer,
    unit_key integer not null
);

-- One fact less (`sign` -1) or more of a person. It was written by `row_xid`, and replaced by
-- `ended_xid` if it is kept as a version: a note tells nothing to whom either is still to come.
create table beneficiary_renaming (
    xid bigint not null default pg_current_xact_id()::text::bigint,
    row_xid bigint not null,
    ended_xid bigint,
    beneficiary_hash bytea not null,
    sign integer not null,
    occurred_on date not null,
    province_key integer,
    commune_key integer,
    unit_key integer not null
);
grant select on household_move, beneficiary_renaming to noidai_app;
"""

NOTING = """
create function note_household_move() returns trigger
language plpgsql security definer set search_path = public, pg_temp as $$
begin
    insert into household_move values (old.id, old.province_key, old.commune_key, old.unit_key);
    return null;
end $$;
create function note_beneficiary_renaming() returns trigger
language plpgsql security definer set search_path = public, pg_temp as $$
begin
    if old.status in ('submitted', 'verified') then
        insert into beneficiary_renaming (row_xid, ended_xid, beneficiary_hash, sign, occurred_on,
                                          province_key, commune_key, unit_key)
        select old.xid, (to_jsonb(old) ->> 'ended_xid')::bigint, hash, sign, old.occurred_on,
               old.province_key, old.commune_key, old.unit_key
        from (values (old.beneficiary_hash, -1), (new.beneficiary_hash, 1)) as each (hash, sign)
        where hash is not null;
    end if;
    return null;
end $$;
revoke execute on function note_household_move, note_beneficiary_renaming from public;
"""

# A household that moved here is seen, so that its note is too.
HERE = "{within} or exists (select from household h where h.id = household_id)"

POLICIES = (
    secure("household_move", "beneficiary_renaming")
    + policy("household_move", "select", ("households_read",), PLACED, template=HERE)
    + policy("beneficiary_renaming", "select", ("events_read",), PLACED)
    + "".join(
        f"create policy {table}_note on {table} to current_user using (true) with check (true);\n"
        for table in ("household_move", "beneficiary_renaming")
    )
)


def upgrade() -> None:
    """Create the notes; their triggers come once what was there before is counted."""
    run(TABLES + NOTING + POLICIES)
