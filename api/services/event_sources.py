"""Which rolls of events make up the units of an answer, and what has to be counted from facts.

A source is a row key of `event_roll` (a province, a commune in it, or a unit in that, as recorded)
all of whose events lie in one unit of the answer. The coarsest that do are taken: the whole of a
province is one row a month.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cached_property
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from api.auth.caller import totals_of
from api.auth.scope import Reach
from api.db import once
from api.models.types import Level

ALL: Final = 0
"""A key that stands for all of them; null keys are -1."""


@dataclass(frozen=True)
class Sources:
    """Keys of rolls and the unit that each counts in, `None` where the tree does not tell."""

    rows: tuple[tuple[int, int, int, int | None], ...] = ()
    """(province, commune, unit, target)."""
    apart: frozenset[int] = frozenset()
    """Communes, as recorded, whose events are counted from the facts, but for whole provinces."""
    _served: dict[tuple[bool, bool], "Sources"] = field(default_factory=dict, compare=False)

    def served(self, *, communes: bool, units: bool) -> "Sources":
        """Return the sources where rolls of communes, or of units, do not tell what is asked."""
        if (communes, units) not in self._served:
            lacking = frozenset(
                commune
                for _, commune, unit, _ in self.rows
                if (unit != ALL and not units) or (commune != ALL and not communes)
            )
            kept = tuple(row for row in self.rows if row[1] not in lacking)
            self._served[communes, units] = Sources(kept, self.apart | lacking)
        return self._served[communes, units]

    @cached_property
    def columns(self) -> tuple[list[Any], ...]:
        """The rows, column by column."""
        return tuple(list(column) for column in zip(*self.rows, strict=True)) or ([], [], [], [])

    @cached_property
    def written(self) -> tuple[str, ...]:
        """The rows, column by column, as the database reads arrays.

        Written once: a driver that encodes each of some hundred thousand keys takes as long as
        the statement.
        """
        columns = ((str(key) if key is not None else "null" for key in c) for c in self.columns)
        return tuple(f"{{{','.join(column)}}}" for column in columns)

    @cached_property
    def totals(self) -> str:
        """The rows as row-level security reads them (`totals`)."""
        return totals_of(self.reach)

    @cached_property
    def reach(self) -> Reach:
        """The rows as a reach, for row-level security."""
        return Reach(
            frozenset(p for p, commune, _, _ in self.rows if commune == ALL),
            frozenset(c for _, c, unit, _ in self.rows if c != ALL and unit == ALL),
            frozenset(unit for *_, unit, _ in self.rows if unit != ALL),
        )


# Every place lies where its unit lies on the day asked for, and in the nation on every day.
_ON_DAY = """
    select e.province_key, e.commune_key, e.unit_key,
           case when cast(:level as text) is null then at.root
                when cast(:level as text) = 'nation' then coalesce(told.ancestor_key, at.nation)
                else told.ancestor_key end as target
    from (select * from event_place where number > :since) e
    left join placement inside on inside.unit_key = e.unit_key
         and inside.during @> cast(:day as date)
         and inside.level = any(cast(:root_levels as text[]))
         and inside.ancestor_key = any(cast(:roots as integer[]))
    left join placement told on told.unit_key = e.unit_key and told.during @> cast(:day as date)
         and told.level = cast(:level as text)
    cross join lateral (
        select coalesce(inside.ancestor_key, cast(:nation as integer)) as root,
               cast(:nation as integer) as nation) at
    where at.root is not null
"""
# Every place lies where it was recorded; its district is that of its commune's days.
_RECORDED = """
    select e.province_key, e.commune_key, e.unit_key,
           case when cast(:level as text) is null then inside.key
                else case cast(:level as text) when 'nation' then nation.key
                     when 'province' then at.province when 'district' then district.key
                     when 'commune' then at.commune else at.village end end as target
    from (select * from event_place where number > :since) e
    join admin_unit u on u.key = e.unit_key
    cross join (select key from admin_unit where level = 'nation') nation
    cross join lateral (
        select nullif(e.province_key, -1) as province, nullif(e.commune_key, -1) as commune,
               case when u.level = 'village' then u.key end as village
    ) at
    left join lateral (
        select d.ancestor_key as key
        from admin_unit c
        join placement d on d.unit_key = c.key and d.level = 'district'
             and d.during && daterange(c.valid_from, c.valid_to, '[]')
        where c.key = e.commune_key
        limit 1
    ) district on 'district' = any(array[:level] || cast(:root_levels as text[]))
    cross join lateral (
        select r.key from unnest(cast(:roots as integer[])) r (key)
        where r.key in (nation.key, at.province, district.key, at.commune, e.unit_key)
    ) inside
    where e.commune_key <> all(cast(:apart as integer[]))
"""
_WHOLE = """
    with place as materialized ({places}
    ), total as materialized (
        select province_key, commune_key, count(*) as places from event_place group by 1, 2
    ), commune as materialized (
        select p.province_key, p.commune_key, min(p.target) as target,
               count(*) = t.places and count(distinct coalesce(p.target, 0)) = 1 as whole
        from place p join total t using (province_key, commune_key)
        group by p.province_key, p.commune_key, t.places
    ), province as materialized (
        select c.province_key, min(c.target) as target
        from commune c
        group by c.province_key
        having bool_and(c.whole) and count(distinct coalesce(c.target, 0)) = 1
           and count(*) = (select count(*) from total t where t.province_key = c.province_key)
    )
    select province_key, 0 as commune_key, 0 as unit_key, target from province
    union all
    select c.province_key, c.commune_key, 0, c.target from commune c
    where c.whole and not exists (select from province where province_key = c.province_key)
    union all
    select p.province_key, p.commune_key, p.unit_key, p.target
    from place p join commune c using (province_key, commune_key)
    where not c.whole
"""
_NEWER = """
    select e.province_key, e.commune_key, e.unit_key, found.target, found.unit_key is not null
    from event_place e
    left join ({places}) found using (province_key, commune_key, unit_key)
    where e.number > :since
"""
# A reorganisation that was entered, or taken back, after the day on which it took effect: until
# then events were recorded in the former units (and up to a day ahead, by clocks that run fast).
_LATE = text("""
    with late as materialized (
        select distinct unnest(touched) as key from reorganisation
        cross join lateral (select cast(greatest(created_at, reverted_at)
            at time zone 'Asia/Ho_Chi_Minh' as date) + 1 as known) entered
        where effective_on <= known and effective_on <= cast(:last as date)
          and known >= cast(:first as date)
    )
    select distinct e.commune_key from event_place e
    where e.unit_key in (select key from late) or e.commune_key in (select key from late)
       or e.province_key in (select key from late)
    union
    select u.key from admin_unit u
    join placement d on d.unit_key = u.key and d.level = 'district'
         and d.during && daterange(u.valid_from, u.valid_to, '[]')
    where u.level = 'commune' and :districts
    group by u.key having count(*) > 1
""")
_SEEN = text("""
    select coalesce(max(number), 0) as newest, (select version from tree) as version
    from event_place
""")

_KNOWN: dict[Any, tuple[int, Sources]] = {}
"""Sources already worked out, and the newest place in them: exact, by the tree that was seen."""
type _Days = tuple[UUID, int, date, date, bool]
"""A version of the tree and its newest place, the days asked for, and whether districts are."""
_APART: dict[_Days, Sequence[int]] = {}
"""What was entered late in those days: exact, by the version that the answer's snapshot sees."""
_MOST_KNOWN: Final = 500
_MOST_UNITS: Final = 500
"""Places that are added one by one before the coarsest sources are looked for again."""


class Seen(NamedTuple):
    """What a transaction sees: the newest place of events, and the version of the tree."""

    newest: int
    version: UUID


async def see(session: AsyncSession) -> Seen:
    """Return what the transaction sees."""

    async def read() -> Seen:
        return Seen(*(await session.execute(_SEEN)).one())

    return await once(session, "seen", read)


async def find_sources(
    session: AsyncSession,
    today: date,
    roots: Collection[tuple[int, Level]],
    level: Level | None,
    day: date | None,
    days: tuple[date, date],
) -> Sources:
    """Return what makes up the roots, or the units of a level in them, in the tree of a day.

    Without a `day` every event is placed as it was recorded; `days` are those asked for.
    """
    newest, version = await see(session)
    levels = sorted({root_level for _, root_level in roots})
    keys = sorted(key for key, _ in roots)
    apart: Sequence[int] = ()
    if day is None:
        districts = Level.district in {level, *levels}
        apart = await _late(session, (version, newest, *days, districts))
    asked = (version, today, tuple(keys), level, day, apart)
    places = _ON_DAY if day else _RECORDED
    given: dict[str, Any] = {"roots": keys, "root_levels": levels, "level": level, "day": day}
    given["apart"] = list(apart)
    given["nation"] = next((key for key, root_level in roots if root_level is Level.nation), None)
    since, known = _KNOWN.get(asked, (0, None))
    if known and since < newest:
        newer = text(_NEWER.format(places=places))
        known = _with(known, await session.execute(newer, given | {"since": since}))
    if known is None:
        rows = await session.execute(text(_WHOLE.format(places=places)), given | {"since": 0})
        known = Sources(tuple(tuple(row) for row in rows), frozenset(apart))
    if len(_KNOWN) >= _MOST_KNOWN:
        _KNOWN.clear()
    _KNOWN[asked] = newest, known
    return known


async def _late(session: AsyncSession, asked: _Days) -> Sequence[int]:
    """Return the communes whose events of some days cannot be placed as they were recorded."""
    if asked not in _APART:
        *_, first, last, districts = asked
        given = {"first": first, "last": last, "districts": districts}
        if len(_APART) >= _MOST_KNOWN:
            _APART.clear()
        _APART[asked] = tuple(sorted(await session.scalars(_LATE, given)))
    return _APART[asked]


def _with(known: Sources, newer: Iterable[Any]) -> Sources | None:
    """Return sources with further places; `None` where one says otherwise than its commune."""
    targets = {row[:3]: row[3] for row in known.rows}
    units = {}
    for province, commune, unit, target, inside in newer:
        wholes = [(province, ALL, ALL), (province, commune, ALL)]
        whole = next((key for key in wholes if key in targets), None)
        if whole is None and inside:
            units[province, commune, unit] = target
        elif whole is not None and not (inside and targets[whole] == target):
            return None
    if len(units) > _MOST_UNITS:
        return None
    return Sources((*known.rows, *((*key, target) for key, target in units.items())), known.apart)
