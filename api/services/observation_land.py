"""The land that hiding is worked out over: whole provinces, and communes whose land has mixed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from api.auth.caller import Caller, Tree
from api.models.types import Level
from api.services.observation_units import Unit
from api.services.periods import Period


@dataclass(frozen=True)
class Land:
    """Provinces with their communes of all times, in all trees."""

    provinces: tuple[Unit, ...]
    places: Mapping[int, Sequence[tuple[str, date, date, int]]]
    """Commune -> level, first and last day, and who stood above it."""
    standing: frozenset[int]
    """The communes and provinces of today."""
    mixed: Sequence[tuple[int, int, date]]
    """Two communes that the same territory lay in, the first of them until that day."""
    _blocks: dict[date, dict[int, tuple[int, ...]]] = field(default_factory=dict)

    def above(self, commune: int, level: Level, day: date) -> int | None:
        """Return the unit of a level that a commune lies in on a day."""
        places = self.places.get(commune, ())
        return next((key for lv, a, b, key in places if lv == level and a <= day <= b), None)

    def province_of(self, commune: int, day: date) -> int | None:
        """Return the province that a commune lies in on a day."""
        return self.above(commune, Level.province, day)

    def communes_in(self, district: int, day: date) -> list[int]:
        """Return the communes of a district on a day."""
        return [key for key in self.places if self.above(key, Level.district, day) == district]

    def stands(self, key: int) -> bool:
        """Tell whether a commune or a province stands today."""
        return key in self.standing

    def links(self, month: Period) -> list[tuple[int, int]]:
        """Return the communes that have shared territory since a month began."""
        return [(a, b) for a, b, until in self.mixed if until >= month.first]

    def block(self, commune: int, month: Period) -> tuple[int, ...]:
        """Return the communes that are hidden together in a month, for what they have shared."""
        if month.first not in self._blocks:
            self._blocks[month.first] = _blocks_of(self.links(month))
        return self._blocks[month.first].get(commune, (commune,))

    def is_mixed(self, commune: int, month: Period) -> bool:
        """Tell whether a commune shares its land of a month with several communes of today."""
        return sum(self.stands(key) for key in self.block(commune, month)) > 1

    def has_changed(self, province: int, month: Period) -> bool:
        """Tell whether any commune of a province has given or taken land since a month began."""
        touched = {key for link in self.links(month) for key in link}
        return any(self.province_of(key, month.last) == province for key in touched)


def _blocks_of(links: Sequence[tuple[int, int]]) -> dict[int, tuple[int, ...]]:
    groups: dict[int, set[int]] = {}
    for one, other in links:
        both = groups.setdefault(one, {one}) | groups.setdefault(other, {other})
        groups.update(dict.fromkeys(both, both))
    blocks = {id(group): tuple(sorted(group)) for group in groups.values()}
    return {key: blocks[id(group)] for key, group in groups.items()}


# All provinces, of any time, that have shared a unit with those of the roots.
_PROVINCES = text("""
    with recursive lies as materialized (
        select distinct unit_key, ancestor_key as province from placement where level = 'province'
    ), pair as materialized (
        select distinct one.province as here, other.province as there
        from lies one join lies other using (unit_key)
    ), found as (
        select distinct lies.province
        from admin_unit root
        join placement p on p.ancestor_key = root.key and p.level = root.level
        join lies on lies.unit_key = p.unit_key
        where root.key = any(cast(:roots as integer[]))
        union
        select pair.there from found join pair on pair.here = found.province
    )
    select u.key, u.id, coalesce(u.valid_to >= cast(:today as date), true) as stands
    from admin_unit u join found on found.province = u.key order by u.key
""")
_COMMUNES = text("""
    select u.key, p.level, coalesce(lower(p.during), date '0001-01-01') as since,
           coalesce(upper(p.during) - 1, date '9999-12-31') as until, p.ancestor_key as above,
           coalesce(u.valid_from <= cast(:today as date), true)
           and coalesce(u.valid_to >= cast(:today as date), true) as stands
    from admin_unit u join placement p on p.unit_key = u.key
    where u.level = 'commune' and p.level in ('district', 'province') and u.key in (
        select unit_key from placement
        where level = 'province' and ancestor_key = any(cast(:provinces as integer[])))
""")
_MIXED = text("""
    select one.ancestor_key as one, other.ancestor_key as other,
           max(upper(one.during) - 1) as until
    from placement one
    join placement other on other.unit_key = one.unit_key and other.level = 'commune'
         and one.during << other.during and other.ancestor_key <> one.ancestor_key
    where one.level = 'commune' and one.ancestor_key = any(cast(:communes as integer[]))
    group by 1, 2
    union
    select predecessor_key, successor_key, happened_on - 1 from unit_succession
    where predecessor_key = any(cast(:communes as integer[]))
      and successor_key = any(cast(:communes as integer[]))
""")

_KNOWN: dict[tuple[Tree, frozenset[int]], Land] = {}
"""Lands already worked out: exact, since the tree's version is read with every request."""
_MOST_KNOWN: Final = 100


async def find_land(session: AsyncSession, caller: Caller, roots: Sequence[Unit]) -> Land:
    """Return the provinces that whatever is hidden in the roots may depend on."""
    keys = frozenset(root.key for root in roots)
    if (caller.tree, keys) not in _KNOWN:
        if len(_KNOWN) >= _MOST_KNOWN:
            _KNOWN.clear()
        _KNOWN[caller.tree, keys] = await _read(session, caller.tree.day, sorted(keys))
    return _KNOWN[caller.tree, keys]


async def _read(session: AsyncSession, today: date, roots: list[int]) -> Land:
    given: dict[str, Any] = {"today": today, "roots": roots}
    provinces = list(await session.execute(_PROVINCES, given))
    given = {"today": today, "provinces": [row.key for row in provinces]}
    places: dict[int, list[tuple[str, date, date, int]]] = {}
    standing = {row.key for row in provinces if row.stands}
    for row in await session.execute(_COMMUNES, given):
        places.setdefault(row.key, []).append((row.level, row.since, row.until, row.above))
        standing |= {row.key} if row.stands else set()
    links = await session.execute(_MIXED, {"communes": sorted(places)})
    return Land(
        tuple(Unit(row.key, row.id, Level.province, (), ()) for row in provinces),
        places,
        frozenset(standing),
        [(row.one, row.other, row.until) for row in links],
    )
