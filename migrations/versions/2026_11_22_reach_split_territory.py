"""Let whoever holds all of a split unit's territory reach all that was recorded in it.

Two cases were left out: a village that no half of its split commune was given, and a unit one of
whose halves was itself split later.
"""

from migrations.scripts import run

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

# Step by step, from arrays that are planned for as they are: a plan for a recursive query guesses
# millions of rows, one for any array walks it once for every row.
REACH = """
create or replace function reach(roots integer[], day date,
                                 out provinces integer[], out communes integer[],
                                 out units integer[])
language plpgsql stable set plan_cache_mode = force_custom_plan as $$
declare
    here constant integer[] := array(  -- every unit that lies in the roots on that day
        select p.unit_key
        from admin_unit r
        join placement p on p.ancestor_key = r.key and p.level = r.level and p.during @> day
        where r.key = any(roots));
    before integer[] := '{}';  -- that something in them was made of
    outside integer[] := '{}';  -- of these, what lies elsewhere in part
    step integer[] := here;
    inside integer[];
begin
    while cardinality(step) > 0 loop
        step := array(
            select distinct predecessor_key from unit_succession
            where successor_key = any(step) and happened_on <= day
              and predecessor_key not in (select unnest(before)));
        before := before || step;
    end loop;
    step := array(
        select distinct predecessor_key from unit_succession
        where predecessor_key = any(before) and happened_on <= day
          and predecessor_key not in (select unnest(here))
          and successor_key not in (select unnest(here))
          and successor_key not in (select unnest(before)));
    while cardinality(step) > 0 loop
        outside := outside || step;
        step := array(
            select distinct predecessor_key from unit_succession
            where successor_key = any(step) and happened_on <= day
              and predecessor_key not in (select unnest(here))
              and predecessor_key not in (select unnest(outside)));
    end loop;
    inside := array(
        select unnest(here)
        union
        select key from unnest(before) key where key not in (select unnest(outside)));
    inside := array(
        select unnest(inside)
        union  -- no half was given a village: it lies in all of them
        select s.unit_key
        from admin_unit_state s
        join admin_unit v on v.key = s.unit_key and v.level = 'village'
        where s.parent_key = any(before) and s.parent_key = any(inside)
          and lower(s.during) is not distinct from (
              select lower(l.during) from admin_unit_state l
              where l.unit_key = s.unit_key and l.parent_key is not null
                and coalesce(lower(l.during) <= day, true)
              order by l.during desc limit 1)
          and not exists (
              select from unit_succession x
              where x.predecessor_key = s.unit_key and x.happened_on <= day)
        union  -- a district went where its communes went
        select d.key
        from admin_unit_state s
        join admin_unit d on d.key = s.parent_key and d.level = 'district'
        where s.unit_key = any(inside) and not exists (
            select from admin_unit_state c
            where c.parent_key = d.key and c.unit_key not in (select unnest(inside))));

    with unit as materialized (
        select u.key, u.level from admin_unit u where u.key = any(inside)
    ), commune as materialized (
        select key from unit
        where level = 'commune' and not exists (
            select from admin_unit_state s
            join admin_unit v on v.key = s.unit_key and v.level = 'village'
            where s.parent_key = unit.key and s.unit_key not in (select unnest(inside)))
    ), province as materialized (
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
    into provinces, communes, units;
end
$$;
"""


def upgrade() -> None:
    """Replace the function."""
    run(REACH)
