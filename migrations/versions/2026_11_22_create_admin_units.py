"""Create the dated tree of administrative units and load the country's official ones.

Four tables. `admin_unit` is an identity that lasts; `admin_unit_state` what it was called, coded
and placed under, and when; `unit_succession` what became of it; `placement` who stood above whom
on any day, predecessors and successors included, wherever that can be told.
"""

import csv
import json
from datetime import date
from pathlib import Path

import sqlalchemy as sa
from alembic import op

from api import ids
from migrations.scripts import run

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

GEOGRAPHY = Path(__file__).parents[2] / "api" / "data" / "geography"
REFORM = "2025-07-01"

TABLES = """
create extension if not exists unaccent;
create extension if not exists pg_trgm;
create extension if not exists btree_gist;

create function search_text(value text) returns text
language sql immutable strict parallel safe
return lower(public.unaccent('public.unaccent'::regdictionary, normalize(value, NFC)));
comment on function search_text is 'A name without accents and case: muong khuong';

create table admin_unit (
    id uuid primary key,
    key integer generated always as identity unique,
    level text not null check (level in ('nation', 'province', 'district', 'commune', 'village')),
    valid_from date,
    valid_to date,
    lat double precision check (lat between -90 and 90),
    lon double precision check (lon between -180 and 180),
    version integer not null default 1,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    deleted_at timestamptz,
    created_by uuid,
    content_hash bytea,
    check (valid_to >= valid_from)
);
create index on admin_unit (level, key);

create table admin_unit_state (
    unit_key integer not null references admin_unit (key),
    during daterange not null check (not isempty(during)),
    name text not null,
    type text not null,
    code text,
    parent_key integer references admin_unit (key),
    search text not null generated always as (search_text(name)) stored,
    primary key (unit_key, during),
    constraint admin_unit_state_no_overlap exclude using gist (unit_key with =, during with &&)
);
create index on admin_unit_state (parent_key);
create index on admin_unit_state (code);
create index on admin_unit_state using gin (search gin_trgm_ops);

create table unit_succession (
    predecessor_key integer not null references admin_unit (key),
    successor_key integer not null references admin_unit (key),
    happened_on date not null,
    extent text not null check (extent in ('whole', 'part')),
    primary key (predecessor_key, successor_key)
);
create index on unit_succession (successor_key);

-- A district went where its communes went: true looking onward, not looking back (a commune's
-- predecessors are communes).
create view unit_became as
select predecessor_key, successor_key, happened_on, extent from unit_succession
union all
select s.parent_key, x.successor_key, x.happened_on,
       case when count(*) over (partition by s.parent_key) = 1 then 'whole' else 'part' end
from unit_succession x
join admin_unit_state s on s.unit_key = x.predecessor_key and s.during @> x.happened_on - 1
join admin_unit d on d.key = s.parent_key and d.level = 'district'
group by s.parent_key, x.successor_key, x.happened_on;

create table placement (
    unit_key integer not null references admin_unit (key),
    level text not null,
    during daterange not null,
    ancestor_key integer not null references admin_unit (key),
    primary key (unit_key, level, during)
);
create index on placement (ancestor_key, level);

-- Whatever is worked out from the tree is kept under its version, and forgotten when it changes.
create table tree (version uuid not null);
insert into tree values (gen_random_uuid());
create function renew_tree() returns trigger language plpgsql as $$
begin
    update tree set version = gen_random_uuid();
    return null;
end $$;
create trigger renew_tree after insert or update or delete on admin_unit_state
    for each statement execute function renew_tree();
create trigger renew_tree after insert or update or delete on placement
    for each statement execute function renew_tree();

grant select, update on tree to noidai_app;
grant select, insert, update on admin_unit to noidai_app;
grant select, insert, update, delete on admin_unit_state, placement to noidai_app;
grant select on unit_succession, unit_became to noidai_app;
"""

PLACEMENT = """
create function place_villages(villages integer[]) returns void language sql as $$
    delete from placement where unit_key = any(villages);

    -- A village lies where its parent lies; before its first day and after its last where that
    -- parent's territory went; without a parent, wherever all the halves of the last one agree.
    insert into placement (unit_key, level, during, ancestor_key)
    with lying as (
        select s.unit_key,
               daterange(case when lag(s.unit_key) over w is not null then lower(s.during) end,
                         case when lead(s.unit_key) over w is not null then upper(s.during) end
               ) as during,
               coalesce(s.parent_key, (
                   select before.parent_key from admin_unit_state before
                   where before.unit_key = s.unit_key and before.during < s.during
                     and before.parent_key is not null
                   order by before.during desc limit 1)) as parent_key
        from admin_unit_state s
        where s.unit_key = any(villages)
        window w as (partition by s.unit_key order by s.during)
    )
    select l.unit_key, p.level, unnest(range_agg(p.during * l.during)), p.ancestor_key
    from lying l
    join placement p on p.unit_key = l.parent_key and p.during && l.during
    group by l.unit_key, p.level, p.ancestor_key
    union all
    select key, level, daterange(valid_from, valid_to, '[]'), key
    from admin_unit where key = any(villages);
$$;

create function rebuild_placement() returns void language sql as $$
    delete from placement;

    insert into placement (unit_key, level, during, ancestor_key)
    with recursive life as (
        select u.key, u.level, range_merge(range_agg(s.during)) as during
        from admin_unit u join admin_unit_state s on s.unit_key = u.key
        where u.level <> 'village'
        group by u.key, u.level
    ), era as (  -- the days between two changes of the official tree
        select row_number() over w as n, day, daterange(day, lead(day) over w) as during
        from (
            select lower(s.during) as day
            from admin_unit_state s join life on life.key = s.unit_key
            union
            select upper(s.during)
            from admin_unit_state s join life on life.key = s.unit_key
            where upper(s.during) is not null
        ) change
        window w as (order by day nulls first)
    ), standing as (
        select e.n, l.key, l.level, s.parent_key
        from era e
        join admin_unit_state s on s.during @> e.during
        join life l on l.key = s.unit_key
    ), step(onward, from_key, to_key, happened_on) as (
        select true, predecessor_key, successor_key, happened_on from unit_became
        union all
        select false, successor_key, predecessor_key, happened_on from unit_succession
    ), walk(n, key, candidate, onward) as (  -- which units of an era may hold the territory
        select e.n, l.key, l.key, coalesce(upper(l.during) <= e.day, false)
        from era e cross join life l
        union
        select w.n, w.key, x.to_key, w.onward
        from walk w
        join era e on e.n = w.n
        join step x on x.onward = w.onward and x.from_key = w.candidate
             and x.onward = coalesce(x.happened_on <= e.day, false)
        where not exists (select from standing s where s.n = w.n and s.key = w.candidate)
    ), candidate as (
        select w.n, w.key, w.candidate, count(*) over (partition by w.n, w.key) as candidates
        from walk w join standing s on s.n = w.n and s.key = w.candidate
    ), chain(n, key, level, ancestor_key, next_key) as (
        select n, key, level, key, parent_key from standing
        union all
        select c.n, c.key, s.level, s.key, s.parent_key
        from chain c join standing s on s.n = c.n and s.key = c.next_key
    ), agreed as (  -- a row only where every candidate has the same ancestor
        select c.n, c.key, a.level, min(a.ancestor_key) as ancestor_key
        from candidate c join chain a on a.n = c.n and a.key = c.candidate
        group by c.n, c.key, a.level, c.candidates
        having count(*) = c.candidates and min(a.ancestor_key) = max(a.ancestor_key)
    )
    select a.key, a.level, unnest(range_agg(e.during)), a.ancestor_key
    from agreed a join era e on e.n = a.n
    group by a.key, a.level, a.ancestor_key;

    select place_villages(array(select key from admin_unit where level = 'village'));
$$;
"""

# The source tells what became of communes; a province went where its communes went.
PROVINCES = """
insert into unit_succession (predecessor_key, successor_key, happened_on, extent)
with became as (
    select distinct d.parent_key as old_key, n.parent_key as new_key, x.happened_on
    from unit_succession x
    join admin_unit_state s on s.unit_key = x.predecessor_key
    join admin_unit u on u.key = x.predecessor_key and u.level = 'commune'
    join admin_unit_state d on d.unit_key = s.parent_key
    join admin_unit_state n on n.unit_key = x.successor_key
)
select old_key, new_key, happened_on,
       case when count(*) over (partition by old_key) = 1 then 'whole' else 'part' end
from became
"""

REACH = """
create function reach(roots integer[], day date,
                      out provinces integer[], out communes integer[], out units integer[])
language sql stable as $$
    with here as (  -- every unit of any date whose territory lies in the roots on that day
        select p.unit_key as key
        from admin_unit r
        join placement p on p.ancestor_key = r.key and p.level = r.level and p.during @> day
        where r.key = any(roots)
    ), inside as (  -- and split ones, all of whose halves do
        select key from here
        union
        select predecessor_key from unit_became
        where extent = 'part' and happened_on <= day
          and predecessor_key in (
              select h.predecessor_key from unit_became h
              where h.successor_key = any(array(select key from here)))
        group by predecessor_key
        having bool_and(successor_key in (select key from here))
    ), unit as (
        select u.key, u.level from admin_unit u join inside using (key)
    ), village_outside as (
        select s.parent_key from admin_unit_state s
        join admin_unit v on v.key = s.unit_key and v.level = 'village'
        where s.unit_key not in (select key from inside)
    ), commune as (
        select key from unit where level = 'commune'
          and key not in (select parent_key from village_outside where parent_key is not null)
    ), province as (
        select key from unit where level = 'nation'
        union all
        select key from unit
        where level = 'province' and not exists (
            select from placement p
            join admin_unit c on c.key = p.unit_key and c.level = 'commune'
             and p.during && daterange(c.valid_from, c.valid_to, '[]')
            where p.ancestor_key = unit.key and p.level = 'province'
              and c.key not in (select key from commune))
    ), recorded as (  -- is every day of the unit recorded under a province that is all in?
        select u.key, u.level,
               u.level = 'nation' or coalesce(
                   bool_and(p.ancestor_key in (select key from province)), false) as by_province
        from unit
        join admin_unit u using (key)
        left join placement p on p.unit_key = u.key and p.level = 'province'
             and p.during && daterange(u.valid_from, u.valid_to, '[]')
        group by u.key, u.level
    )
    select array(select key from province),
           array(select key from commune join recorded using (key) where not by_province),
           array(select key from recorded
                 where not by_province and case level
                     when 'village' then exists (
                         select from admin_unit_state s
                         where s.unit_key = recorded.key
                           and (s.parent_key is null
                                or s.parent_key not in (select key from commune)))
                     else key not in (select key from commune) end)
$$;
comment on function reach is
    'The smallest set of recorded units that makes up some units'' territory as it lies on a day';
"""


def _rows(name: str) -> list[dict[str, str]]:
    with (GEOGRAPHY / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _load_units() -> None:
    rows = _rows("units.csv")
    parents = {"province": "nation", "district": "province", "commune": "district"}
    units = [
        {
            "id": str(ids.official_unit_id("nation", "VN")),
            "level": "nation",
            "code": "VN",
            "name": "Việt Nam",
            "type": "quốc gia",
        }
    ]
    for row in rows:
        above = "province" if row["valid_from"] and row["level"] == "commune" else None
        above = above or parents[row["level"]]
        units.append(
            row
            | {
                "id": str(ids.official_unit_id(row["level"], row["code"], row["valid_from"])),
                "parent_id": str(
                    ids.official_unit_id("nation", "VN")
                    if above == "nation"
                    else ids.official_unit_id(above, row["parent_code"], row["valid_from"])
                ),
            }
        )
    statement = sa.text("""
        with given as (
            select * from jsonb_to_recordset(cast(:units as jsonb)) as u (
                id uuid, level text, code text, name text, type text, parent_id uuid,
                valid_from text, valid_to text, lat text, lon text)
        ), unit as (
            insert into admin_unit (id, level, valid_from, valid_to, lat, lon)
            select id, level, nullif(valid_from, '')::date, nullif(valid_to, '')::date,
                   nullif(lat, '')::float8, nullif(lon, '')::float8
            from given
            returning id, key, valid_from, valid_to
        )
        insert into admin_unit_state (unit_key, during, name, type, code, parent_key)
        select u.key, daterange(u.valid_from, u.valid_to, '[]'), g.name, g.type, g.code, p.key
        from given g join unit u using (id) left join unit p on p.id = g.parent_id
    """)
    op.get_bind().execute(statement, {"units": json.dumps(units)})


def _load_successions() -> None:
    given = _rows(f"succession_{REFORM}.csv")
    statement = sa.text("""
        with given as (
            select * from jsonb_to_recordset(cast(:rows as jsonb)) as s (
                predecessor uuid, successor uuid, extent text)
        )
        insert into unit_succession (predecessor_key, successor_key, happened_on, extent)
        select p.key, s.key, cast(:day as date), g.extent
        from given g
        join admin_unit p on p.id = g.predecessor
        join admin_unit s on s.id = g.successor
    """)
    rows = [
        {
            "predecessor": str(ids.official_unit_id(row["from_level"], row["from_code"])),
            "successor": str(ids.official_unit_id("commune", row["to_commune_code"], REFORM)),
            "extent": row["extent"],
        }
        for row in given
    ]
    day = date.fromisoformat(REFORM)
    op.get_bind().execute(statement, {"rows": json.dumps(rows), "day": day})
    op.execute("analyze admin_unit, admin_unit_state, unit_succession")  # or it plans blindly
    op.execute(PROVINCES)


def upgrade() -> None:
    """Create the tables, then load 14,149 units and 10,602 successions."""
    for script in (TABLES, PLACEMENT, REACH):
        run(script)
    _load_units()
    _load_successions()
    op.execute("select rebuild_placement()")
    op.execute("analyze placement")
