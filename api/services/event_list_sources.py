"""What a list of events walks: the indexed values that hold every row asked for, and few others.

A filter may say more than its index knows; then each row is asked for the rest of it.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any, Final, NamedTuple
from uuid import UUID

from api import clock
from api.auth.caller import Caller, Tree
from api.auth.permissions import Permission
from api.auth.scope import Reach
from api.driver import ENTERED, Connection
from api.models.support_events import SupportEventQuery
from api.models.types import Level
from api.services import external_ids

RESOURCE: Final = "support_events"


class Source(NamedTuple):
    """An indexed column of events, and the values of it that are walked."""

    column: str
    values: Collection[Any]


class Asked(NamedTuple):
    """A unit of the filter, and the day whose tree says what lies in it."""

    key: int
    level: str
    day: date


@dataclass(frozen=True)
class Sources:
    """Where the rows of a list are found."""

    walked: tuple[Source, ...]
    """An event may be found by several of them."""
    own: bool = False
    """Whether they are the caller's whole scope, so that no row need be asked for it."""
    within: tuple[Asked, ...] = ()
    """Units in one of which each row must be found to lie."""


class Territory(NamedTuple):
    """Where what lies in some units was recorded, or rather more."""

    provinces: frozenset[int]
    units: frozenset[int]


_ASKED = """
    select key, level, least($2::date, coalesce(valid_to, $2::date)) as day
    from admin_unit where id = any ($1::uuid[])
"""
# `asked` are the units of the filter; a province is recorded as a whole, a smaller unit is not.
_LYING = """
    with asked as (
        select * from unnest($1::integer[], $2::text[], $3::date[]) as a (key, level, day)
    ), here as materialized (
        select p.unit_key, a.level in ('nation', 'province') as whole
        from asked a
        join placement p on p.ancestor_key = a.key and p.level = a.level and p.during @> a.day
    )
    select array(select unit_key from here where not whole
                 union
                 select s.unit_key from here h join admin_unit_state s using (unit_key)
                 where h.whole and s.parent_key is null) as units,
           array(select q.ancestor_key
                 from here h join placement q on q.unit_key = h.unit_key and q.level = 'province'
                 where h.whole
                 union
                 select key from asked where level = 'nation') as provinces
"""
_TEAMS_OF_MEMBERS = f"""
{ENTERED}
select distinct m.team_id from entered cross join lateral (
    select team_id from membership
    where member_id = any ($3::uuid[]) and entered.scopes is not null offset 0) m
"""  # noqa: S608 - a constant

_KNOWN: dict[tuple[Tree, tuple[Asked, ...]], Territory] = {}
"""Territories of provinces: thousands of units are read for one; exact for a version of the tree"""
_MOST_KNOWN: Final = 1_000


async def find_sources(
    database: Connection, caller: Caller, query: SupportEventQuery
) -> Sources | None:
    """Return what the list walks; `None` where the filters already tell that there is nothing.

    The narrowest filter drives: named events, households, members, teams, units; else the scope.
    """
    within: tuple[Asked, ...] = ()
    if query.unit_id:
        rows = await database.fetch(_ASKED, query.unit_id, clock.today())
        within = tuple(sorted(Asked(*row) for row in rows))
        if not within:
            return None
        if any(asked.level == Level.nation for asked in within):
            within = ()  # everything lies in the nation
    reach = caller.reach(Permission.events_read)
    if named := await _named(database, caller, query):
        return _sources([named], within=within)
    if not within:
        return _sources(_of_scope(reach), own=True)
    land = await _territory(database, caller.tree, within)
    if land.provinces:
        return _sources(_shared(land, reach), within=within)
    return _sources([Source("unit_key", land.units)])


async def _named(database: Connection, caller: Caller, query: SupportEventQuery) -> Source | None:
    if query.external_id:
        events = await external_ids.find_named(database, RESOURCE, query.external_id)
        return Source("id", events)
    if query.household_id:
        return Source("household_id", frozenset(query.household_id))
    if query.member_id:  # a member's events are its teams' events: that is what the index has
        return Source("team_id", await _teams_of(database, caller, query.member_id))
    if query.team_id:
        return Source("team_id", frozenset(query.team_id))
    return None


def _of_scope(reach: Reach) -> list[Source]:
    return [
        Source("province_key", reach.provinces),
        Source("commune_key", reach.communes),
        Source("unit_key", reach.units),
        Source("team_commune_key", reach.communes),
        Source("team_unit_key", reach.units),
        Source("team_id", reach.teams),
    ]


def _shared(land: Territory, reach: Reach) -> list[Source]:
    """Return what holds all that lies in a large territory and in the scope as well.

    By place: in the provinces of both, or in the smaller parts of either; or by its team.
    """
    parts = land.units if reach.provinces else frozenset[int]()
    smaller = Reach(land.provinces & reach.provinces, reach.communes, parts | reach.units)
    by_place = _of_scope(smaller)[:3]
    return by_place + _of_scope(reach)[3:]


def _sources(
    found: Iterable[Source], *, own: bool = False, within: tuple[Asked, ...] = ()
) -> Sources | None:
    walked = tuple(source for source in found if source.values)
    return Sources(walked, own, within) if walked else None


async def _territory(database: Connection, tree: Tree, within: tuple[Asked, ...]) -> Territory:
    if (tree, within) in _KNOWN:
        return _KNOWN[tree, within]
    (row,) = await database.fetch(_LYING, *(list(column) for column in zip(*within, strict=True)))
    found = Territory(frozenset(row["provinces"]), frozenset(row["units"]))
    if found.provinces:
        if len(_KNOWN) >= _MOST_KNOWN:
            _KNOWN.clear()
        _KNOWN[tree, within] = found
    return found


async def _teams_of(database: Connection, caller: Caller, members: list[UUID]) -> set[UUID]:
    rows = await database.fetch(_TEAMS_OF_MEMBERS, caller.scopes, caller.context, members)
    return {row["team_id"] for row in rows}
