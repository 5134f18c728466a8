"""Create the identities of people at other OpenID Connect issuers, and the ID tokens used already.

A session that began with an identity ends with it. Who somebody is at an issuer may be a citizen's
number, so it is kept as a keyed hash only.
"""

from migrations.scripts import audited, run

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TABLES = """
create table external_identity (
    id uuid primary key,
    principal_id uuid not null references principal (id),
    issuer text not null,
    subject_hash bytea not null unique,
    created_at timestamptz not null,
    created_by uuid
);
create index on external_identity (principal_id, created_at, id);

create table used_id_token (
    token_hash bytea primary key,
    expires_at timestamptz not null
);
create index on used_id_token (expires_at);
comment on table used_id_token is 'ID tokens used already, until they are too old in any case';

alter table session
    add column identity_id uuid references external_identity (id) on delete cascade;
create index on session (identity_id);
comment on column session.identity_id is 'What it began with, when that was an ID token';

grant select, insert, delete on external_identity to noidai_app;
grant select, delete on external_identity to noidai_subjects;
grant select, insert, update, delete on used_id_token to noidai_app;
"""


def upgrade() -> None:
    """Create the tables; let the audit tell who was linked to which issuer."""
    run(TABLES)
    run(audited("external_identity", "identities", "principal_id issuer"))
