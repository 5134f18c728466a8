"""What observations are counted in: the root, the units below it, and their territory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from api.auth.caller import Caller, Tree
from api.auth.permissions import Permission
from api.auth.scope import Reach
from api.errors import FieldError, NotFound, ValidationFailed
from api.models.observations import Boundary, By, ObservationQuery
from api.models.types import Level
from api.services.measures import FILTERS, Formula
from api.services.periods import Period
from api.services.places import Place, find_places

_LEVELS: Final = list(Level)


@dataclass(frozen=True)
class Unit:
    """A unit to count in: its days under the root, and its codes and names by their last day."""

    key: int
    id: UUID
    level: Level
    standing: tuple[tuple[date, date], ...]
    names: tuple[tuple[date, str | None, str], ...]

    def stands(self, first: date, last: date) -> bool:
        """Tell whether it stood under the root on any of the days."""
        return any(since <= last and first <= until for since, until in self.standing)

    def called(self, day: date) -> tuple[str | None, str]:
        """Return its code and name on a day, or on its first or last when it did not stand."""
        state = next((s for s in self.names if day <= s[0]), self.names[-1])
        return state[1:]


@dataclass(frozen=True)
class Asked:
    """A query, understood: what is to be counted, when, and under which units."""

    query: ObservationQuery
    today: date
    whole: Period
    pieces: tuple[Period, ...]
    level: Level | None
    roots: tuple[Unit, ...]
    services: Mapping[str, str]
    """Services that the filter lets through (all without one) -> their unit of count."""
    teams: tuple[UUID, ...] = ()
    """Those to split by, where what is asked is told of single teams."""

    @cached_property
    def tree_day(self) -> date | None:
        """The day in whose tree everything is placed; `None`: each fact in that of its own."""
        match self.query.boundary:
            case Boundary.current:
                return self.today
            case Boundary.as_recorded:
                return None
            case day:
                return date.fromisoformat(day)

    @property
    def begun(self) -> list[Period]:
        """The pieces that have begun: the first ones."""
        return [p for p in self.pieces if p.first <= self.today]

    def at(self, piece: Period) -> date:
        """Return the day on which stocks are taken: the last one, today if the piece runs."""
        return min(piece.last, self.today)

    def tree(self, piece: Period) -> date:
        """Return the day of the tree in which stocks are placed."""
        return self.tree_day or self.at(piece)

    def window(self, piece: Period, formula: Formula | None = None) -> tuple[date, date]:
        """Return the days on one of which a unit has to stand to be counted in."""
        if self.tree_day or (formula and formula.numerator.day is None):
            return self.tree(piece), self.tree(piece)
        return piece.first, piece.last

    @property
    def nation(self) -> int | None:
        """The nation, if it is one of the roots."""
        return next((root.key for root in self.roots if root.level is Level.nation), None)

    @property
    def filters(self) -> dict[str, list[Any]]:
        """What the filters let through, by parameter."""
        return {
            name: list(self.services if name == "service_type" else given)
            for name in FILTERS
            if (given := getattr(self.query, name))
        }

    @property
    def placing(self) -> dict[str, Any]:
        """The parameters of a statement that places facts in the targets, see `counting`."""
        return {
            "roots": [root.key for root in self.roots],
            "root_levels": sorted({root.level for root in self.roots}),
            "level": self.level,
            "tree_day": self.tree_day,
            **({"nation": self.nation} if self.nation else {}),
            "first": self.begun[0].first,
            "last": self.begun[-1].last,
            "firsts": [piece.first for piece in self.begun],
        }

    def by(self, formula: Formula) -> By | None:
        """Return the dimension to split by, where the indicator has it."""
        return self.query.by if self.query.by in formula.dimensions else None


_STATES = """
    cross join lateral (
        select array_agg(coalesce(upper(s.during) - 1, date '9999-12-31')
                         order by s.during) as ends,
               array_agg(s.code order by s.during) as codes,
               array_agg(s.name order by s.during) as names
        from admin_unit_state s where s.unit_key = u.key
    ) state
"""
# By default the scope: those of its units that lie in no other of them.
_ROOTS = text(f"""
    select u.key, u.id, u.level, ends, codes, names,
           array[coalesce(u.valid_from, date '0001-01-01')] as since,
           array[coalesce(u.valid_to, date '9999-12-31')] as until
    from admin_unit u {_STATES}
    where u.deleted_at is null
      and (u.id = cast(:unit_id as uuid) or u.key = any(cast(:keys as integer[])))
      and not exists (
          select from placement above
          where above.unit_key = u.key and above.during @> cast(:today as date)
            and above.ancestor_key = any(cast(:keys as integer[])) and above.ancestor_key <> u.key)
""")  # noqa: S608 - put together from constants
_TARGETS = text(f"""
    select u.key, u.id, u.level, ends, codes, names, below.since, below.until
    from (
        select u.key,
               array_agg(coalesce(lower(stood.during), date '0001-01-01')) as since,
               array_agg(coalesce(upper(stood.during) - 1, date '9999-12-31')) as until
        from admin_unit root
        join placement p on p.ancestor_key = root.key and p.level = root.level
        join admin_unit u on u.key = p.unit_key and u.level = :level and u.deleted_at is null
        cross join lateral (
            select p.during * daterange(u.valid_from, u.valid_to, '[]') as during
        ) stood
        where root.key = any(cast(:roots as integer[]))
          and stood.during && daterange(cast(:first as date), cast(:last as date), '[]')
        group by u.key
    ) below
    join admin_unit u on u.key = below.key {_STATES}
""")  # noqa: S608 - put together from constants


async def _units(session: AsyncSession, statement: Any, parameters: dict[str, Any]) -> list[Unit]:
    units = [
        Unit(
            row.key,
            row.id,
            Level(row.level),
            tuple(zip(row.since, row.until, strict=True)),
            tuple(zip(row.ends, row.codes, row.names, strict=True)),
        )
        for row in await session.execute(statement, parameters)
    ]
    return sorted(units, key=lambda unit: (unit.names[-1][1] or "", unit.names[-1][2], unit.id))


async def find_roots(
    session: AsyncSession, caller: Caller, query: ObservationQuery, today: date
) -> tuple[Unit, ...]:
    """Return the root asked for, or the disjoint units that the caller's scope consists of."""
    keys = [] if query.unit_id else caller.roots(Permission.aggregates_read)
    parameters = {"unit_id": query.unit_id, "keys": keys, "today": today}
    roots = await _units(session, _ROOTS, parameters)
    if query.unit_id and not (roots and await _covers(session, caller, roots[0], today)):
        raise NotFound
    lowest = max((_LEVELS.index(root.level) for root in roots), default=0)
    if query.level and _LEVELS.index(query.level) < lowest:
        expected = ", ".join(_LEVELS[lowest:])
        raise ValidationFailed(FieldError("/query/level", "wrong_level", {"expected": expected}))
    return tuple(roots)


async def _covers(session: AsyncSession, caller: Caller, root: Unit, today: date) -> bool:
    """Tell whether a root lies in the caller's reach, on its last day if it has ended."""
    (place,) = await find_sites(session, [root], today)
    return place is not None and caller.reach(Permission.aggregates_read).covers(place)


async def find_sites(
    session: AsyncSession, roots: Sequence[Unit], today: date
) -> list[Place | None]:
    """Return where roots lie, each on its last day if it has ended."""
    asked = [(r.id, max(since, min(today, until))) for r in roots for since, until in r.standing]
    found = await find_places(session, asked)
    places = (found.get(each) for each in asked)
    return [place if isinstance(place, Place) else None for place in places]


async def find_targets(session: AsyncSession, caller: Caller, asked: Asked) -> list[Unit]:
    """Return the units to count in: the roots, or those of the level that stood under them.

    A root that itself did not stand is always one: its cells say so.
    """
    if asked.level is None:
        return list(asked.roots)
    first, last = asked.window(asked.whole)
    roots = [root.key for root in asked.roots]
    known = caller.tree, tuple(roots), asked.level, first, last
    if known not in _BELOW:
        parameters = {"roots": roots, "level": asked.level, "first": first, "last": last}
        if len(_BELOW) >= _MOST_KNOWN:
            _BELOW.clear()
        _BELOW[known] = await _units(session, _TARGETS, parameters)
    return _BELOW[known] + [root for root in asked.roots if not root.stands(first, last)]


# What is recorded in the roots, on any day: provinces all of whose rows are, and other units.
_TERRITORY = text("""
    with here as materialized (
        select distinct p.unit_key as key
        from admin_unit root
        join placement p on p.ancestor_key = root.key and p.level = root.level
        where root.key = any(cast(:roots as integer[]))
    ), province as materialized (
        select u.key from admin_unit u join here using (key)
        where u.level in ('nation', 'province') and not exists (
            select from placement p
            join admin_unit c on c.key = p.unit_key and c.level in ('commune', 'village')
                 and p.during && daterange(c.valid_from, c.valid_to, '[]')
            where p.ancestor_key = u.key and p.level = 'province'
              and c.key not in (select key from here))
    ), recorded as (  -- the days of a unit that are recorded under one of those provinces
        select p.unit_key as key, range_agg(p.during) as days
        from province join placement p on p.ancestor_key = province.key and p.level = 'province'
        group by p.unit_key
    )
    select array(select key from province) as provinces,
           array(select u.key
                 from here join admin_unit u using (key) left join recorded using (key)
                 where u.level in ('district', 'commune', 'village')
                   and not coalesce(recorded.days @> daterange(u.valid_from, u.valid_to, '[]'),
                                    false)) as units
""")


_KNOWN: dict[tuple[Tree, frozenset[int]], Reach] = {}
"""Territories already worked out: exact, since the tree's version is read with every request."""
_BELOW: dict[tuple[Tree, tuple[int, ...], Level, date, date], list[Unit]] = {}
"""The units below roots, likewise."""
_MOST_KNOWN: Final = 300


async def find_territory(session: AsyncSession, caller: Caller, asked: Asked) -> Reach:
    """Return the recorded units that lay in the roots on any day."""
    keys = frozenset(root.key for root in asked.roots)
    if (caller.tree, keys) not in _KNOWN:
        found = (await session.execute(_TERRITORY, {"roots": list(keys)})).one()
        if len(_KNOWN) >= _MOST_KNOWN:
            _KNOWN.clear()
        _KNOWN[caller.tree, keys] = Reach(
            provinces=frozenset(found.provinces), units=frozenset(found.units)
        )
    return _KNOWN[caller.tree, keys]
