"""Create sessions that can be refreshed and ended, the counts of failed sign-ins, clients' keys.

A session is one row: signing out deletes it, and with it its access tokens end. No secret is kept
readable: refresh tokens, places and `jti`s are hashes.
"""

from migrations.scripts import run

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TABLES = """
create table session (
    id uuid primary key,
    principal_id uuid not null references principal (id),
    created_at timestamptz not null,
    last_used_at timestamptz not null,
    origin bytea not null,
    next_hashes bytea[] not null,
    previous_hash bytea
);
create index on session (principal_id);
comment on column session.origin is 'Keyed hash of the network address that signed in';
comment on column session.next_hashes is 'Refresh tokens handed out, none of them used yet';
comment on column session.previous_hash is 'The last one used: may be repeated until a next one is';

create table sign_in_failure (
    key bytea primary key,
    failures integer not null,
    last_at timestamptz not null,
    blocked_until timestamptz not null
);
create index on sign_in_failure (last_at);
comment on column sign_in_failure.key is 'Keyed hash of a name and an address, or of an address';

create table client_assertion (
    principal_id uuid not null references principal (id),
    jti_hash bytea not null,
    expires_at timestamptz not null,
    primary key (principal_id, jti_hash)
);
comment on table client_assertion is 'Assertions (RFC 7523) used already, until they expire';

alter table principal add column public_jwks jsonb;

grant select, insert, update, delete on session, sign_in_failure to noidai_app;
grant select, insert, delete on client_assertion to noidai_app;
grant delete on signing_key to noidai_app;
"""


def upgrade() -> None:
    """Create the tables."""
    run(TABLES)
