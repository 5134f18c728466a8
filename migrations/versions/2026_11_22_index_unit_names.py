"""Keep every name that a unit ever had once, beside its level, so that a search reads names.

Names of villages repeat a thousand times ("Thôn 1"): what a search costs follows the distinct
names that match, and from them the best units are read until there are enough.
"""

from migrations.scripts import run

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

NAMES = r"""
-- The words for a unit's kind, and their usual short forms: "thi tran pho rang" -> "pho rang".
create function bare_name(search text) returns text
language sql immutable strict parallel safe
return regexp_replace(search, '^(?:(?:quoc gia|tinh|thanh pho|quan|huyen|thi xa|thi tran|xa|phuong'
    '|dac khu|thon|ban|ap|khom|to dan pho|to|lang|buon|bon|xom|soc|phum|khu pho|khu dan cu|khu vuc'
    '|khu|cum dan cu)(?: so)?|tp|tx|tt|[pqhxt](?=\.))(?: |\. ?)(?=.)', '');
comment on function bare_name is 'A searched name without the word for the kind of unit';

create table unit_name (
    level smallint not null,
    search text collate "C" not null,
    bare text collate "C" not null generated always as (bare_name(search)) stored,
    primary key (level, search)
);
comment on table unit_name is 'Every name that units of a level (1 nation, 5 village) ever had';
comment on column unit_name.bare is 'Without the word for the kind of unit';

insert into unit_name (level, search)
select distinct array_position(array['nation', 'province', 'district', 'commune', 'village'],
                               u.level), s.search
from admin_unit_state s join admin_unit u on u.key = s.unit_key;

create index on unit_name (level, bare, search);
create index on unit_name using gin (bare gin_trgm_ops);

-- A name stays when its last unit is gone: it leads to no state then, and may come back.
create function keep_unit_names() returns trigger language plpgsql as $$
begin
    insert into unit_name (level, search)
    select distinct array_position(array['nation', 'province', 'district', 'commune', 'village'],
                                   u.level), c.search
    from changed c join admin_unit u on u.key = c.unit_key
    order by 1, 2
    on conflict do nothing;
    return null;
end $$;
create trigger keep_unit_names after insert on admin_unit_state referencing new table as changed
    for each statement execute function keep_unit_names();
create trigger keep_new_unit_names after update on admin_unit_state referencing new table as changed
    for each statement execute function keep_unit_names();

grant select, insert on unit_name to noidai_app;

drop index admin_unit_state_search_idx;
create index on admin_unit_state ((search collate "C"));
create index on admin_unit_state ((search collate "C")) where upper(during) is not null;
-- A subtree is read from the index alone.
drop index placement_ancestor_key_level_idx;
create index on placement (ancestor_key, level) include (unit_key, during);
"""


def upgrade() -> None:
    """Create the names, the triggers that keep them, and the way from a name to its units."""
    run(NAMES)
