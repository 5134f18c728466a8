"""Which rolls of people and of what stands make up the units of an answer, tree by tree."""

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from api import clock
from api.models.types import Level
from api.services.event_sources import ALL, Sources, find_sources, see
from api.services.observation_units import Asked
from api.services.periods import Period


class Era(NamedTuple):
    """Periods that are placed in the same tree, one after another, and what makes them up there."""

    before: int
    """How many periods are asked for that come earlier."""
    pieces: Sequence[Period]
    sources: Sources


class Stretch(NamedTuple):
    """Days that have one tree, and what makes up the answer there."""

    first: date
    last: date
    sources: Sources


_TURNS = text("""
    select distinct day from (
        select lower(during) as day from admin_unit_state
        union all select upper(during) from admin_unit_state) either
    where day is not null order by day
""")
_KNOWN: dict[UUID, list[date]] = {}
"""The days on which any unit changes: exact for a version of the tree."""
_MOST_KNOWN: Final = 10
_MOST_STRETCHES: Final = 12
"""What makes up a tree costs more than it saves where few facts lie between two of them."""


async def find_eras(session: AsyncSession, asked: Asked) -> list[Era]:
    """Return what makes up the answer where each period has a tree: of stocks, and of one day."""
    begun = asked.begun
    if asked.tree_day:
        return [Era(0, begun, await _sources(session, asked, asked.tree_day))]
    turns = await _turns(session)
    eras: list[Era] = []
    days: list[date] = []
    for n, piece in enumerate(begun):
        tree = asked.tree(piece)
        day = max((turn for turn in turns if turn <= tree), default=date.min)
        if days and days[-1] == day:
            eras[-1] = eras[-1]._replace(pieces=[*eras[-1].pieces, piece])
        else:
            days.append(day)
            eras.append(Era(n, [piece], await _sources(session, asked, tree)))
    return eras


async def find_days(session: AsyncSession, asked: Asked) -> list[Stretch] | None:
    """Return what makes up the answer where each day has a tree; `None` if these are too many."""
    first, last = asked.begun[0].first, asked.begun[-1].last
    if asked.tree_day:
        return [Stretch(first, last, await _sources(session, asked, asked.tree_day))]
    turns = [turn for turn in await _turns(session) if first < turn <= last]
    if len(turns) >= _MOST_STRETCHES:
        return None
    begins, ends = [first, *turns], [*(turn - timedelta(1) for turn in turns), last]
    return [
        Stretch(begin, end, await _sources(session, asked, begin))
        for begin, end in zip(begins, ends, strict=True)
    ]


async def find_of_events(session: AsyncSession, asked: Asked) -> Sources | None:
    """Return what makes up the answer where each event has its place; `None` if no roll tells."""
    nation = asked.nation
    if nation and len(asked.roots) == 1 and asked.level in {None, Level.nation}:
        return Sources(((ALL, ALL, ALL, nation),))
    recorded = asked.tree_day is None
    if recorded and Level.district in {asked.level, *(root.level for root in asked.roots)}:
        return None
    sources = await _sources(session, asked, asked.tree_day)
    return None if sources.apart else sources


async def _sources(session: AsyncSession, asked: Asked, day: date | None) -> Sources:
    return await find_sources(
        session,
        clock.today(),
        [(root.key, root.level) for root in asked.roots],
        asked.level,
        day,
        (asked.begun[0].first, asked.begun[-1].last),
    )


async def _turns(session: AsyncSession) -> list[date]:
    _, version = await see(session)
    if version not in _KNOWN:
        if len(_KNOWN) >= _MOST_KNOWN:
            _KNOWN.clear()
        _KNOWN[version] = list(await session.scalars(_TURNS))
    return _KNOWN[version]
