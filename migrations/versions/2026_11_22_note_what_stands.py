"""Note which teams, members, households and activities have changed, for their rolls.

A note names a thing, not a change, so that writers only ever add rows and wait for nobody: whoever
folds counts the thing anew, as of one snapshot, and takes the notes away that it sees. What a team
is decides what its members are: they are named by it, whoever joins meanwhile.
"""

from migrations.scripts import run

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None

TABLE = """
create table standing_note (noun text not null, id uuid not null);
comment on column standing_note.noun is 'What the id is of; team_members: all members of that team';
grant select on standing_note to noidai_app;
"""

NOTING = """
create function note_standing() returns trigger
language plpgsql security definer set search_path = public, pg_temp as $$
begin
    insert into standing_note values (tg_argv[0], (to_jsonb(new) ->> tg_argv[1])::uuid);
    return null;
end $$;
create function note_all_standing() returns trigger
language plpgsql security definer set search_path = public, pg_temp as $$
begin
    execute format('insert into standing_note select distinct $1, %I from changed', tg_argv[1])
        using tg_argv[0];
    return null;
end $$;
revoke execute on function note_standing, note_all_standing from public;
"""


def _noted(table: str, noun: str, key: str, *actions: str) -> str:
    return "".join(
        f"create trigger note_{noun}_{action} after {action} on {table}\n"
        f"    referencing {'old' if action == 'delete' else 'new'} table as changed\n"
        f"    for each statement execute function note_all_standing('{noun}', '{key}');\n"
        for action in actions
    )


def _noted_change(table: str, noun: str, key: str, *columns: str) -> str:
    became, was = (", ".join(c.format(row) for c in columns) for row in ("new", "old"))
    return (
        f"create trigger note_{noun}_update after update on {table} for each row\n"
        f"    when (({became}) is distinct from ({was}))\n"
        f"    execute function note_standing('{noun}', '{key}');\n"
    )


PLACE = ("{}.unit_key", "{}.commune_key", "{}.province_key", "{}.deleted_at is null")
TRIGGERS = (
    _noted("team", "team", "id", "insert")
    + _noted_change(
        *("team", "team", "id", *PLACE, "{}.kind", "{}.founded_on", "{}.dissolved_on"),
        "{}.zalo_group_url is null",
    )
    + _noted_change("team", "team_members", "id", *PLACE)
    + _noted("membership", "member", "member_id", "insert", "delete")
    + _noted_change("membership", "member", "member_id", "{}.joined_on", "{}.left_on", "{}.team_id")
    + _noted_change(
        *("member", "member", "id", "{}.deleted_at is null", "{}.birth_year"),
        *("{}.is_youth_union_member", "{}.trained_on"),
    )
    + _noted("training_attended", "member", "member_id", "insert", "delete")
    + _noted("household", "household", "id", "insert")
    + _noted_change("household", "household", "id", *PLACE, "{}.created_at")
    + _noted("activity", "activity", "id", "insert")
    + _noted_change(
        *("activity", "activity", "id", *PLACE, "{}.kind", "{}.held_on", "{}.participants"),
        "{}.attendee_ids",
    )
)
POLICIES = "".join(
    f"create policy {table}_fold on {table} for select to current_user using (true);\n"
    for table in ("team", "member", "membership", "activity")
)


def upgrade() -> None:
    """Create the notes and their triggers."""
    run(TABLE + NOTING + TRIGGERS + POLICIES)
