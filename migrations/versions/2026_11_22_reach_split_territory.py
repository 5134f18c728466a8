"""Let whoever holds all of a split unit's territory reach all that was recorded in it.

Two cases were left out: a village that no half of its split commune was given, and a unit one of
whose halves was itself split later.
"""

from migrations.scripts import run

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

REACH = """
create or replace function reach(roots integer[], day date,
                                 out provinces integer[], out communes integer[],
                                 out units integer[])
language sql stable as $$
    with recursive here as materialized (  -- every unit that lies in the roots on that day
        select p.unit_key as key
        from admin_unit r
        join placement p on p.ancestor_key = r.key and p.level = r.level and p.during @> day
        where r.key = any(roots)
    ), split(key) as (  -- and that something in them was made of
        select b.predecessor_key from unit_became b
        where b.successor_key = any(array(select key from here)) and b.happened_on <= day
        union
        select b.predecessor_key from split s
        join unit_became b on b.successor_key = s.key and b.happened_on <= day
    ), leaving(key) as (  -- but part of which lies elsewhere
        select b.predecessor_key
        from split s join unit_became b on b.predecessor_key = s.key and b.happened_on <= day
        where b.predecessor_key not in (select key from here)
          and b.successor_key not in (select key from here union all select key from split)
        union
        select b.predecessor_key
        from leaving l join unit_became b on b.successor_key = l.key and b.happened_on <= day
        where b.predecessor_key not in (select key from here)
    ), whole as materialized (
        select key from here
        union
        select key from split where key not in (select key from leaving)
    ), inside as materialized (  -- no half was given a village: it lies in all of them
        select key from whole
        union
        select s.unit_key
        from admin_unit_state s join admin_unit v on v.key = s.unit_key and v.level = 'village'
        where s.parent_key = any(array(select key from split)) and lower(s.during) is not distinct
              from (
                  select lower(l.during) from admin_unit_state l
                  where l.unit_key = s.unit_key and l.parent_key is not null
                    and coalesce(lower(l.during) <= day, true)
                  order by l.during desc limit 1)
          and s.parent_key in (select key from whole)
          and not exists (
              select from unit_succession x
              where x.predecessor_key = s.unit_key and x.happened_on <= day)
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
"""


def upgrade() -> None:
    """Replace the function."""
    run(REACH)
