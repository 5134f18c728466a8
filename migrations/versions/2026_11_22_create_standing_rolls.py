"""Create the rolls of what stands from a day on: teams, members, households; and of activities.

`standing` keeps how each of them was folded: where, and on which days it counts (of a member also
while young, and since trained). A member who is in teams of several places counts once in each unit
that holds them, so a roll holds those who lie in it with all that they have; the others are looked
up (`grain`). What is noted as changed is looked at one by one until it is folded: how it was
folded, and how it is.
"""

from migrations.scripts import PLACED, run, secure

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None

TABLES = """
-- Keys of -1 stand for none. `grain`: all that the thing has in the measure lies in one unit (3),
-- in one commune (2), in one province (1), as recorded, or in none (0).
create table standing (
    noun text not null,
    id uuid not null,
    measure text not null,
    province_key integer not null,
    commune_key integer not null,
    unit_key integer not null,
    part text not null,
    amount integer not null,
    grain integer not null,
    days datemultirange not null,
    primary key (id, noun, measure, unit_key, commune_key, province_key)
) with (fillfactor = 90);
create index on standing (commune_key, measure);
create index standing_beyond_communes on standing (commune_key, measure) where grain < 2;
create index standing_beyond_provinces on standing (province_key, measure) where grain < 1;

-- Of a commune, or of a whole province (commune 0): those that count from a day or a month on
-- (`begun`, with their `amount`), and until the day before it (`ended`).
create table standing_roll (
    measure text not null,
    province_key integer not null,
    commune_key integer not null,
    every text not null,
    starts date not null,
    part text not null,
    begun bigint not null,
    ended bigint not null,
    amount bigint not null,
    primary key (province_key, commune_key, measure, every, starts, part)
) with (fillfactor = 70);

grant select on standing, standing_roll to noidai_app;
"""

KEYS = "coalesce({0}.province_key, -1), coalesce({0}.commune_key, -1), {0}.unit_key"
ON = "datemultirange(daterange({0}, {0}, '[]'))"
REGISTERED_ON = "cast(h.created_at at time zone 'Asia/Ho_Chi_Minh' as date)"
COLUMNS = "noun, id, measure, province_key, commune_key, unit_key, part, amount, days"
# The facts of each noun, as rows of `COLUMNS`; {only} narrows them.
FACTS = {
    "team": f"""
        select 'team', t.id, m.measure, {KEYS.format("t")}, t.kind, 1,
               datemultirange(daterange(t.founded_on, t.dissolved_on, '[]'))
        from team t cross join lateral (
            values ('team', true), ('team_zalo', t.zalo_group_url is not null)) m (measure, holds)
        where t.deleted_at is null and m.holds {{only}}
    """,
    "member": f"""
        select 'member', stay.id, m.measure, province, commune, unit, '', 1, stay.days * m.during
        from (
            select m.id, {KEYS.format("t")},
                   m.birth_year, m.is_youth_union_member, m.trained_on,
                   range_agg(daterange(s.joined_on, s.left_on, '[]')) as days
            from member m
            join membership s on s.member_id = m.id
            join team t on t.id = s.team_id and t.deleted_at is null
            where m.deleted_at is null {{only}}
            group by m.id, t.province_key, t.commune_key, t.unit_key
        ) stay (id, province, commune, unit, birth_year, in_union, trained_on, days)
        cross join lateral (
            select least(trained_on, min(a.held_on)) as day
            from training_attended a where a.member_id = stay.id) trained
        cross join lateral (values
            ('member', datemultirange(daterange(null, null))),
            ('member_young', case
                when in_union then datemultirange(daterange(null, null))
                when birth_year is not null then datemultirange(daterange(
                    make_date(birth_year + 16, 1, 1), make_date(birth_year + 31, 1, 1)))
                else '{{{{}}}}' end),
            ('member_trained', case
                when trained.day is not null then datemultirange(daterange(trained.day, null))
                else '{{{{}}}}' end)
        ) m (measure, during)
        where not isempty(stay.days * m.during)
    """,
    "household": f"""
        select 'household', h.id, 'household', {KEYS.format("h")}, '', 1,
               datemultirange(daterange({REGISTERED_ON}, null))
        from household h where h.deleted_at is null {{only}}
    """,
    "activity": f"""
        select 'activity', a.id, 'activity', {KEYS.format("a")}, a.kind,
               coalesce(a.participants, cardinality(a.attendee_ids)), {ON.format("a.held_on")}
        from activity a where a.deleted_at is null {{only}}
    """,
}
ID = {"team": "t.id", "member": "m.id", "household": "h.id", "activity": "a.id"}
ALL = "union all".join(facts.format(only="") for facts in FACTS.values())
TOUCHED = "\n    union all\n".join(
    f"""
    select 1, found.* from touched cross join lateral ({
        facts.format(only=f"and {ID[noun]} = touched.id and touched.noun = '{noun}'")
    } offset 0) found
    """
    for noun, facts in FACTS.items()
)

# What has changed since it was folded, for whoever may read it (`security_invoker`): how it was
# folded (-1), and how it is (1).
CHANGES = f"""
-- Whoever reads: where a team was until it moved, its members can no longer be seen.
create function noted_members() returns setof uuid
language sql stable security definer set search_path = public, pg_temp as $$
    select found.member_id
    from standing_note note cross join lateral (
        select s.member_id from membership s where s.team_id = note.id offset 0) found
    where note.noun = 'team_members'
$$;
revoke execute on function noted_members from public;
grant execute on function noted_members to noidai_app;

create view standing_turns (sign, {COLUMNS}) with (security_invoker = true) as
with touched as materialized (
    select noun, id from standing_note where noun <> 'team_members'
    union
    select 'member', noted_members()
)
select -1, found.* from touched cross join lateral (
    select {COLUMNS} from standing s
    where s.id = touched.id and s.noun = touched.noun offset 0) found
union all
{TOUCHED};
grant select on standing_turns to noidai_app;
"""

GRAIN = """
    case when min(province_key) {over} <> max(province_key) {over} then 0
         when min(commune_key) {over} <> max(commune_key) {over} then 1
         when min(unit_key) {over} <> max(unit_key) {over} then 2 else 3 end
"""
OVER = "over (partition by id, noun, measure)"
STANDING = f"""
    select {COLUMNS}, {GRAIN.format(over=OVER)} as grain from {{source}} f
"""
# A thing turns on the days on which it begins and ceases to count: all that it has taken together.
ROLLS = f"""
    select measure, place.province_key, place.commune_key, period.every, period.starts, part,
           sum(turn.begun)::bigint as begun, sum(turn.ended)::bigint as ended,
           sum(turn.amount)::bigint as amount
    from (
        select sign, measure, min(part) as part, min(amount) as amount,
               min(province_key) as province_key, min(commune_key) as commune_key,
               {GRAIN.format(over="")} as grain, range_agg(days) as days
        from {{source}} f
        group by sign, id, noun, measure
    ) thing
    cross join lateral unnest(days) during
    cross join lateral (
        values (lower(during), sign, 0, sign * thing.amount), (upper(during), 0, sign, 0)
    ) turn (day, begun, ended, amount)
    cross join lateral (
        values (1, province_key, 0), (2, province_key, commune_key)
    ) place (grain, province_key, commune_key)
    cross join lateral (
        values ('month', date_trunc('month', day)::date), ('day', day)) period (every, starts)
    where thing.grain >= place.grain and turn.day is not null
    group by 1, 2, 3, 4, 5, 6
    having sum(turn.begun) <> 0 or sum(turn.ended) <> 0 or sum(turn.amount) <> 0
"""
ROLL = """
    insert into standing_roll as roll (measure, province_key, commune_key, every, starts, part,
                                       begun, ended, amount)
"""
ADDED = """
    on conflict (province_key, commune_key, measure, every, starts, part) do update
    set begun = roll.begun + excluded.begun, ended = roll.ended + excluded.ended,
        amount = roll.amount + excluded.amount
"""
KEEP = f"insert into standing ({COLUMNS}, grain)"
PLACES = """
    insert into event_place (province_key, commune_key, unit_key)
    select distinct province_key, commune_key, unit_key
    from {source} f
    where not exists (
        select from event_place p
        where p.unit_key = f.unit_key and p.commune_key = f.commune_key
          and p.province_key = f.province_key)
"""
KEY = "id, noun, measure, unit_key, commune_key, province_key"
DIFFERENCES = {
    "teams": "team",
    "teams_with_zalo": "team_zalo",
    "members": "member",
    "members_young": "member_young",
    "members_trained": "member_trained",
    "households_registered": "household",
    "activities": "activity",
}

# All act as their owner, in the REPEATABLE READ snapshot of whoever holds the rolls.
FOLDING = f"""
create function fold_standing() returns void
language sql security definer set search_path = public, pg_temp set jit = off as $$
    with turn as materialized (
        select * from standing_turns
    ), rolled as ({ROLL} {ROLLS.format(source="turn")} {ADDED}
    ), placed as ({PLACES.format(source="(select * from turn where sign = 1)")}
    ), kept as (
        {KEEP} {STANDING.format(source="(select * from turn where sign = 1)")}
        on conflict ({KEY}) do update
        set part = excluded.part, amount = excluded.amount, grain = excluded.grain,
            days = excluded.days
    ), noted as (delete from standing_note
    )
    delete from standing s using (
        select {KEY} from turn where sign = -1 except select {KEY} from turn where sign = 1) gone
    where ({", ".join(f"s.{key}" for key in KEY.split(", "))})
          = ({", ".join(f"gone.{key}" for key in KEY.split(", "))})
$$;

create function count_standing() returns void
language plpgsql security definer set search_path = public, pg_temp set jit = off as $$
begin
    {KEEP} {STANDING.format(source=f"(select * from ({ALL}) a ({COLUMNS}))")};
    {ROLL} {ROLLS.format(source="(select *, 1 as sign from standing)")};
    {PLACES.format(source="standing")};
end $$;

do $$
begin  -- all that is noted is folded by the first part
    execute replace(pg_get_functiondef('fold_events'::regproc), 'perform fold_households();',
                    'if exists (select from standing_note) then
                         perform fold_standing();
                     end if;
                     perform fold_households();');
end $$;

create or replace function rebuild_event_rolls() returns boolean
language plpgsql security definer set search_path = public, pg_temp as $$
begin
    if not rebuild_rolls_of_events() then
        return false;
    end if;
    delete from people_roll;
    delete from household_reach;
    delete from beneficiary_reach;
    delete from household_move;
    delete from beneficiary_renaming;
    perform count_people();
    delete from standing;
    delete from standing_roll;
    delete from standing_note;
    perform count_standing();
    return true;
end $$;

create function standing_differences({", ".join(f"out {name} bigint" for name in DIFFERENCES)})
language sql stable security definer set search_path = public, pg_temp set jit = off as $$
    with fact as materialized (
        {STANDING.format(source=f"(select * from ({ALL}) a ({COLUMNS}))")}
    ), rolled as materialized (
        {ROLLS.format(source="(select *, 1 as sign from fact)")}
    ), differing as (
        select measure
        from fact w
        full join standing s using ({KEY})
        where (w.part, w.amount, w.grain, w.days) is distinct from
              (s.part, s.amount, s.grain, s.days)
        union all
        select measure
        from rolled w
        full join standing_roll r using (province_key, commune_key, measure, every, starts, part)
        where coalesce(w.begun, 0) <> coalesce(r.begun, 0)
           or coalesce(w.ended, 0) <> coalesce(r.ended, 0)
           or coalesce(w.amount, 0) <> coalesce(r.amount, 0)
    )
    select {", ".join(f"count(*) filter (where measure = '{m}')" for m in DIFFERENCES.values())}
    from differing
$$;
revoke execute on function fold_standing, count_standing, standing_differences from public;
grant execute on function standing_differences to noidai_app;
"""


# Looked up by hash: the territory of a province names thousands of units.
def _shown(permission: str, *keys: str) -> str:
    return " or ".join(
        f"{key} in (select unnest(scope_keys(array['{permission}'], '{PLACED[key]}')))"
        for key in keys
    )


POLICIES = (
    secure("standing", "standing_roll")
    + f"""
create policy standing_select on standing for select to noidai_app
    using ({_shown("members_read", *PLACED)});
create policy standing_roll_select on standing_roll for select to noidai_app
    using ({_shown("totals", "province_key", "commune_key")});
create policy standing_fold on standing to current_user using (true) with check (true);
create policy standing_roll_fold on standing_roll to current_user using (true) with check (true);
"""
)

# Nobody folds meanwhile; what is noted from here on is counted anew by the first fold.
FIRST = """
set local statement_timeout = '2h';
select pg_advisory_xact_lock(hashtext('noidai event rolls'));
select count_standing();
"""


def upgrade() -> None:
    """Create the rolls and count what there is: half a minute for a million memberships.

    Teams, members and activities cannot be read meanwhile; events are read and recorded.
    """
    run(TABLES + CHANGES + FOLDING + POLICIES)
    run(FIRST)
