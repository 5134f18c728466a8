"""Create reorganisations; place the units that a change concerns, instead of the whole country.

`affected_units` names every unit whose placement may depend on some changed ones, `place_units`
places those anew, with the same result as `rebuild_placement`. A village that was merged or split
lies where its successors lie.
"""

from migrations.scripts import audited, run

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

TABLES = """
-- `number`: order of application. `unit_ids`, `created`: ids and keys of the units that it created;
-- `touched`: keys of these and of those that it changed. `undo`: by unit, what the tree said
-- `before`, and a checksum of what it said `after`; a checksum of the `placement` before.
create table reorganisation (
    id uuid primary key,
    version integer not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    deleted_at timestamptz,
    created_by uuid,
    content_hash bytea,
    number bigint generated always as identity,
    effective_on date not null,
    document_number text not null,
    document_issued_on date not null,
    document_issuer text not null,
    changes jsonb not null,
    affected jsonb not null,
    unplaced uuid[] not null,
    unit_ids uuid[] not null,
    touched integer[] not null,
    created integer[] not null,
    undo jsonb not null,
    reverted_at timestamptz,
    reverted_by uuid,
    revert_reason text
);
create unique index on reorganisation (document_number, document_issued_on, document_issuer)
    where reverted_at is null;
create index on reorganisation (effective_on, id);
create index on reorganisation using gin (touched);

grant select, insert, update on reorganisation to noidai_app;
grant insert, delete on unit_succession to noidai_app;
grant delete on admin_unit to noidai_app;
"""

AFFECTED = """
create function affected_units(changed integer[]) returns integer[] language sql stable as $$
    with recursive became as materialized (
        select predecessor_key, successor_key from unit_became
    ), below(key) as (  -- a district went where its communes went, hence districts too
        select unnest(changed)
        union
        select s.parent_key from admin_unit_state s
        join admin_unit d on d.key = s.parent_key and d.level = 'district'
        where s.unit_key = any(changed)
        union
        select s.unit_key from below b join admin_unit_state s on s.parent_key = b.key
    ), former(key) as (
        select key from below
        union
        select x.predecessor_key from former f join became x on x.successor_key = f.key
    ), later(key) as (
        select key from below
        union
        select x.successor_key from later l join unit_succession x on x.predecessor_key = l.key
    ), official as (
        select key from former union select key from later
    )
    select array(
        select key from official
        union
        select s.unit_key from official o
        join admin_unit_state s on s.parent_key = o.key
        join admin_unit v on v.key = s.unit_key and v.level = 'village')
$$;
comment on function affected_units is
    'Every unit whose placement may depend on the states or successions of some changed ones';
"""

PLACING = """
create or replace function place_villages(villages integer[]) returns void language plpgsql as $$
declare
    placed integer[];
    former record;
begin
    with recursive v(key) as (  -- who was merged into one of them lies where it lies
        select unnest(villages)
        union
        select x.predecessor_key from v join unit_succession x on x.successor_key = v.key
    )
    select array_agg(key) into placed from v;
    delete from placement where unit_key = any(placed);

    -- A village lies where its parent lies; before its first day and after its last (when it has
    -- no successor) where that parent's territory went; without a parent, wherever all the halves
    -- of the last one agree.
    insert into placement (unit_key, level, during, ancestor_key)
    with heir as (
        select predecessor_key, min(happened_on) as day from unit_succession
        where predecessor_key = any(placed) group by predecessor_key
    ), lying as (
        select s.unit_key,
               daterange(case when lag(s.unit_key) over w is not null then lower(s.during) end,
                         case when lead(s.unit_key) over w is not null then upper(s.during)
                              else h.day end
               ) as during,
               coalesce(s.parent_key, (
                   select before.parent_key from admin_unit_state before
                   where before.unit_key = s.unit_key and before.during < s.during
                     and before.parent_key is not null
                   order by before.during desc limit 1)) as parent_key
        from admin_unit_state s
        left join heir h on h.predecessor_key = s.unit_key
        where s.unit_key = any(placed)
        window w as (partition by s.unit_key order by s.during)
    )
    select l.unit_key, p.level, unnest(range_agg(p.during * l.during)), p.ancestor_key
    from lying l
    join placement p on p.unit_key = l.parent_key and p.during && l.during
    group by l.unit_key, p.level, p.ancestor_key
    union all
    select key, level, daterange(valid_from, valid_to, '[]'), key
    from admin_unit where key = any(placed);

    -- After it was merged or split: wherever all its successors lie. The latest first.
    for former in
        select predecessor_key as key, happened_on as day, array_agg(successor_key) as heirs
        from unit_succession where predecessor_key = any(placed)
        group by predecessor_key, happened_on order by happened_on desc
    loop
        insert into placement (unit_key, level, during, ancestor_key)
        select former.key, level, unnest(range_intersect_agg(lying)), ancestor_key
        from (
            select p.unit_key, p.level, p.ancestor_key,
                   range_agg(p.during * daterange(former.day, null)) as lying
            from placement p
            where p.unit_key = any(former.heirs) and p.during && daterange(former.day, null)
            group by p.unit_key, p.level, p.ancestor_key
        ) heir
        group by level, ancestor_key
        having count(*) = cardinality(former.heirs);
    end loop;
end $$;

create function place_units(keys integer[]) returns void language plpgsql as $$
begin
    delete from placement where unit_key = any(keys);

    insert into placement (unit_key, level, during, ancestor_key)
    with recursive wanted as materialized (
        select u.key, u.level from unnest(keys) k (key) join admin_unit u using (key)
        where u.level <> 'village'
    ), became as materialized (
        select predecessor_key, successor_key, happened_on from unit_became
    ), onward(key) as (
        select key from wanted
        union
        select x.successor_key from onward o join became x on x.predecessor_key = o.key
    ), back(key) as (
        select key from wanted
        union
        select x.predecessor_key from back b join unit_succession x on x.successor_key = b.key
    ), involved(key) as (  -- whoever may hold the territory, and whoever stood above them
        select key from (select key from onward union select key from back) o
        union
        select s.parent_key from involved i join admin_unit_state s on s.unit_key = i.key
        where s.parent_key is not null
    ), life as materialized (
        select u.key, u.level, range_merge(range_agg(s.during)) as during
        from involved i
        join admin_unit u on u.key = i.key
        join admin_unit_state s on s.unit_key = u.key
        group by u.key, u.level
    ), era as materialized (  -- the days between two changes of these units
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
    ), standing as materialized (
        select e.n, l.key, l.level, s.parent_key
        from life l
        join admin_unit_state s on s.unit_key = l.key
        join era e on s.during @> e.during
    ), step(onward, from_key, to_key, happened_on) as materialized (
        select true, predecessor_key, successor_key, happened_on from became
        union all
        select false, successor_key, predecessor_key, happened_on from unit_succession
    ), walk(n, key, candidate, onward) as (  -- which units of an era may hold the territory
        select e.n, l.key, l.key, coalesce(upper(l.during) <= e.day, false)
        from era e cross join life l join wanted w on w.key = l.key
        union
        select w.n, w.key, x.to_key, w.onward
        from walk w
        join era e on e.n = w.n
        join step x on x.onward = w.onward and x.from_key = w.candidate
             and x.onward = coalesce(x.happened_on <= e.day, false)
        where not exists (select from standing s where s.n = w.n and s.key = w.candidate)
    ), candidate as materialized (
        select w.n, w.key, w.candidate, count(*) over (partition by w.n, w.key) as candidates
        from walk w join standing s on s.n = w.n and s.key = w.candidate
    ), chain(n, key, level, ancestor_key, next_key) as (
        select s.n, s.key, s.level, s.key, s.parent_key
        from standing s join (select distinct n, candidate from candidate) c
          on c.n = s.n and c.candidate = s.key
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

    perform place_villages(array(
        select u.key from unnest(keys) k (key) join admin_unit u using (key)
        where u.level = 'village'));
end $$;
"""

# What a revert must bring back, a unit: its days, states and successions.
IMAGES = """
create function tree_images(keys integer[]) returns table (key integer, image jsonb)
language sql stable as $$
    select u.key, jsonb_build_object(
        'valid_from', u.valid_from, 'valid_to', u.valid_to,
        'states', (
            select jsonb_agg(jsonb_build_object(
                'unit_key', s.unit_key, 'during', s.during, 'name', s.name, 'type', s.type,
                'code', s.code, 'parent_key', s.parent_key) order by s.during)
            from admin_unit_state s where s.unit_key = u.key),
        'successions', coalesce((
            select jsonb_agg(to_jsonb(x) order by x.predecessor_key, x.successor_key)
            from unit_succession x where u.key in (x.predecessor_key, x.successor_key)), '[]'))
    from admin_unit u where u.key = any(keys)
$$;
create function placement_checksum(keys integer[]) returns text language sql stable as $$
    select md5(coalesce(string_agg(p::text, ',' order by p.unit_key, p.level, p.during), ''))
    from placement p where p.unit_key = any(keys)
$$;
"""

SHOWN = (
    "effective_on document_number document_issued_on document_issuer changes affected unplaced"
    " unit_ids reverted_at reverted_by revert_reason number"
)


def upgrade() -> None:
    """Create the table and the functions."""
    for script in (TABLES, AFFECTED, PLACING, IMAGES):
        run(script)
    run(audited("reorganisation", "reorganisations", SHOWN))
