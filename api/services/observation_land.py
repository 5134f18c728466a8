"""The land that hiding is worked out over: whole provinces, and communes whose land has mixed."""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from api.auth.caller import Caller, Tree
from api.models.types import Level
from api.services.disclosure import Column, Ground
from api.services.observation_units import Unit
from api.services.periods import Period

type _Blocks = tuple[Column, Mapping[int, Sequence[int]], frozenset[int]]
"""Commune -> the first of its block -> all of it; the communes that shared land with several."""


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
    _known: dict[Any, Any] = field(default_factory=dict)
    """What was worked out: the same for all days and months between two changes of the tree."""

    def is_mixed(self, month: Period) -> bool:
        """Tell whether any communes have shared territory since a month began."""
        return bool(self._ends) and self._ends[-1] >= month.first

    def province_of(self, commune: int, day: date) -> int | None:
        """Return the province that a commune lies in on a day."""
        return self._above(Level.province, day).get(commune)

    def communes_in(self, district: int, day: date) -> Sequence[int]:
        """Return the communes of a district on a day."""
        return self._under(Level.district, day).get(district, ())

    def stands(self, key: int) -> bool:
        """Tell whether a commune or a province stands today."""
        return key in self.standing

    def ground(self, day: date) -> Ground:
        """Return where the communes lie on a day."""
        return Ground(self._above(Level.province, day), self._under(Level.province, day))

    def shared(self, ground: Ground, month: Period, *, as_recorded: bool) -> Ground:
        """Return the ground with the communes that are hidden together for what they have shared.

        As recorded, those are closed that shared their land of the month with several of today.
        """
        first, blocks, closed = self._blocks(month)
        return replace(
            ground, first=first, blocks=blocks, closed=closed if as_recorded else frozenset()
        )

    def has_changed(self, province: int, month: Period) -> bool:
        """Tell whether any commune of a province has given or taken land since a month began."""
        since = bisect_left(self._ends, month.first)

        def changed() -> set[int]:
            above = self._above(Level.province, month.last)
            return {above[commune] for commune in self._blocks(month)[0] if commune in above}

        return province in self._once(("changed", since, self._turn(month.last)), changed)

    @cached_property
    def _ends(self) -> list[date]:
        return sorted({until for *_, until in self.mixed})

    @cached_property
    def _turns(self) -> tuple[list[date], list[date]]:
        """The first and the last days of all places: between them nothing changes."""
        spans = {span[1:3] for several in self.places.values() for span in several}
        return sorted({first for first, _ in spans}), sorted({last for _, last in spans})

    def _turn(self, day: date) -> tuple[int, int]:
        firsts, lasts = self._turns
        return bisect_right(firsts, day), bisect_left(lasts, day)

    def _above(self, level: Level, day: date) -> dict[int, int]:
        """Return the unit of a level that each commune lies in on a day."""

        def above() -> dict[int, int]:
            return {
                commune: key
                for commune, several in self.places.items()
                for lies_in, first, last, key in reversed(several)
                if lies_in == level and first <= day <= last
            }

        return self._once(("above", level, self._turn(day)), above)

    def _under(self, level: Level, day: date) -> dict[int, list[int]]:
        def under() -> dict[int, list[int]]:
            found: dict[int, list[int]] = {}
            for commune, key in self._above(level, day).items():
                found.setdefault(key, []).append(commune)
            return found

        return self._once(("under", level, self._turn(day)), under)

    def _blocks(self, month: Period) -> _Blocks:
        def blocks() -> _Blocks:
            linked = _linked((a, b) for a, b, until in self.mixed if until >= month.first)
            shared = {c for several in linked if len(self.standing & several) > 1 for c in several}
            return (
                {commune: min(several) for several in linked for commune in several},
                {min(several): sorted(several) for several in linked},
                frozenset(shared),
            )

        return self._once(("blocks", bisect_left(self._ends, month.first)), blocks)

    def _once[T](self, key: Any, found: Callable[[], T]) -> T:
        if key not in self._known:
            self._known[key] = found()
        value: T = self._known[key]
        return value


def _linked(links: Iterable[tuple[int, int]]) -> list[set[int]]:
    groups: dict[int, set[int]] = {}
    for one, other in links:
        both = groups.setdefault(one, {one}) | groups.setdefault(other, {other})
        groups.update(dict.fromkeys(both, both))
    return list({id(group): group for group in groups.values()}.values())


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
