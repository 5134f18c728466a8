"""Counting what stands by rolls: teams, members, households; and activities by their day.

A roll tells how many of a recorded province or commune begin and cease to count on a day or in a
month; whatever has changed since it was folded is looked at one by one. All is read in one
snapshot, so that an answer is exact for everything committed before it. What no roll tells (kinds
of teams of members, campaigns, single teams) is counted from the facts.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date
from typing import Any, Final, NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from api.db import once
from api.models.observations import By, Every
from api.services import periods
from api.services.counting import UNAIDED, placed
from api.services.event_sources import ALL, Sources
from api.services.formulas import (
    ACTIVITIES,
    FORMULAS,
    HOUSEHOLDS,
    HOUSEHOLDS_BY_DAY,
    MEMBERS,
    MEMBERS_TRAINED,
    MEMBERS_YOUNG,
    PARTICIPANTS,
    TEAMS,
    TEAMS_FOUNDED,
)
from api.services.measures import Measure
from api.services.observation_cells import Counts
from api.services.observation_units import Asked
from api.services.people_sources import Stretch, find_days, find_eras
from api.services.people_statements import SOURCE_COLUMNS
from api.services.periods import Period
from api.services.standing_statements import (
    FLOW,
    FLOW_TURNS,
    NOTED,
    RAGGED,
    STOCK,
    STOCK_TURNS,
    TURNED,
    looked_up,
)

type _Key = tuple[int | None, int, str | None]
"""Target, number of the period, part."""

_FEW_RAGGED: Final = 2
"""Periods that end within a month: with more of them, days are read instead of months."""


class Roll(NamedTuple):
    """How a measure is kept: its name, the notes of what changes, the filter that is its parts."""

    name: str
    nouns: tuple[str, ...]
    parts: str | None = None
    value: str = "things"
    ever: bool = False
    """Whether it is followed from the first on, in period 0 what was before all of them."""

    @property
    def roaming(self) -> bool:
        """Whether one thing may lie in several places."""
        return self.nouns == _OF_MEMBERS


_OF_MEMBERS: Final = ("member", "team_members")
ROLLS: Final[Mapping[Measure, Roll]] = {
    TEAMS: Roll("team", ("team",), "team_kind"),
    FORMULAS["teams.zalo_share"].numerator: Roll("team_zalo", ("team",), "team_kind"),
    TEAMS_FOUNDED: Roll("team", ("team",), "team_kind"),
    MEMBERS: Roll("member", _OF_MEMBERS),
    MEMBERS_YOUNG: Roll("member_young", _OF_MEMBERS),
    MEMBERS_TRAINED: Roll("member_trained", _OF_MEMBERS),
    HOUSEHOLDS: Roll("household", ("household",)),
    HOUSEHOLDS_BY_DAY: Roll("household", ("household",), ever=True),
    ACTIVITIES: Roll("activity", ("activity",), "activity_kind"),
    PARTICIPANTS: Roll("activity", ("activity",), "activity_kind", value="amount"),
}


async def count_standing(
    session: AsyncSession, asked: Asked, measure: Measure, by: str | None
) -> Counts | None:
    """Return the numbers of a measure of what stands; `None` if rolls do not tell them."""
    roll = ROLLS.get(measure)
    if roll is None or not asked.begun:
        return None
    filters = {name: values for name, values in asked.filters.items() if name in measure.filters}
    told = roll.parts is not None
    if (by and not (told and by == By.kind)) or not filters.keys() <= {roll.parts}:
        return None
    given = {"measure": roll.name, "parts": next(iter(filters.values()), None)}
    count = _flow if measure.day else _stock
    return await count(session, asked, roll, "r.part" if by else "null::text", given)


async def _stock(
    session: AsyncSession, asked: Asked, roll: Roll, part: str, given: Mapping[str, Any]
) -> Counts:
    found = _Found(roll.value)
    for era in await find_eras(session, asked):
        ats = [asked.at(piece) for piece in era.pieces]
        ragged = [n for n, at in enumerate(ats, 1) if at != periods.piece_of(at, Every.month).last]
        by_day = len(ragged) > _FEW_RAGGED
        days = {"ats": ats, "last": ats[-1], "every": "day" if by_day else "month"}
        more = RAGGED if ragged and not by_day else ""
        rows = await _folded(
            session,
            STOCK.format(part=part.replace("r.", ""), more=more, looked=_looked(roll, era.sources)),
            era.sources,
            {**given, **days, "ragged": ragged},
        )
        found.add_changes(rows, era.before, len(ats))
    ats = [asked.at(piece) for piece in asked.begun]
    trees = [asked.tree(piece) for piece in asked.begun]
    day = "cast(:tree_day as date)" if asked.tree_day else "p.tree"
    turns = STOCK_TURNS.format(day=day, part=part)
    given = {**given, "ats": ats, "trees": trees}
    found.add(await _turned(session, asked, roll, turns, given))
    return found.counts


async def _flow(
    session: AsyncSession, asked: Asked, roll: Roll, part: str, given: Mapping[str, Any]
) -> Counts | None:
    stretches = await find_days(session, asked)
    if stretches is None or (roll.ever and asked.tree_day is None):
        return None
    found = _Found(roll.value)
    firsts = [piece.first for piece in asked.begun]
    for n, stretch in enumerate(stretches):
        first = date.min if roll.ever and n == 0 else stretch.first
        days = {"firsts": firsts, "first": first, "last": stretch.last}
        days["every"] = (_every(asked.begun) if _is_whole(stretch) else Every.day).value
        looked = _looked(roll, stretch.sources)
        statement = FLOW.format(part=part.replace("r.", ""), looked=looked)
        found.add(await _folded(session, statement, stretch.sources, {**given, **days}))
    day = "cast(:tree_day as date)" if asked.tree_day else "lower(r.days)"
    if roll.ever:
        given = {**given, "first": date.min}
    turns = FLOW_TURNS.format(day=day, part=part)
    found.add(await _turned(session, asked, roll, turns, given))
    return found.counts


def _every(pieces: Sequence[Period]) -> Every:
    return Every.month if all(map(_is_whole, pieces)) else Every.day


def _is_whole(days: Period | Stretch) -> bool:
    return days.first.day == 1 and days.last == periods.piece_of(days.last, Every.month).last


async def _folded(
    session: AsyncSession, statement: str, sources: Sources, given: Mapping[str, Any]
) -> Sequence[Any]:
    told: dict[str, Any] = dict(zip(SOURCE_COLUMNS, sources.written, strict=True))
    told["totals"] = sources.totals
    return (await session.execute(text(statement), {**given, **told})).all()


def _looked(roll: Roll, sources: Sources) -> str:
    return looked_up(units=any(unit != ALL for *_, unit, _ in sources.rows), roaming=roll.roaming)


async def _turned(
    session: AsyncSession, asked: Asked, roll: Roll, turns: str, given: Mapping[str, Any]
) -> Sequence[Any]:
    """Return what has changed since it was folded."""
    if (await _noted(session)).isdisjoint(roll.nouns):
        return ()
    statement = placed(turns, TURNED, asked, first=UNAIDED)
    return (await session.execute(statement, {**asked.placing, **given})).all()


async def _noted(session: AsyncSession) -> AbstractSet[str]:
    """Return of which nouns anything is noted."""

    async def read() -> AbstractSet[str]:
        return frozenset(await session.scalars(text(NOTED)))

    return await once(session, "noted", read)


class _Found:
    """Numbers, put together from what was folded and what has changed since."""

    def __init__(self, value: str) -> None:
        self._value = value
        self._things: Counter[_Key] = Counter()
        self._values: Counter[_Key] = Counter()

    def add(self, rows: Sequence[Any]) -> None:
        for row in rows:
            key = row.target, row.n, row.part
            self._things[key] += row.things
            self._values[key] += getattr(row, self._value)

    def add_changes(self, rows: Sequence[Any], before: int, number: int) -> None:
        """Add up by how much each of some periods differs from the one before, from 0 on."""
        changes: dict[tuple[int | None, str | None], Counter[int]] = {}
        for row in rows:
            changes.setdefault((row.target, row.part), Counter())[row.n] += row.things
        for (target, part), each in changes.items():
            standing = 0
            for n in range(1, number + 1):
                standing += each[n]
                self._things[target, before + n, part] += standing
                self._values[target, before + n, part] += standing

    @property
    def counts(self) -> Counts:
        """Return the numbers; a part without anything is none."""
        counts: Counts = {}
        for (target, n, part), things in self._things.items():
            if things:
                counts.setdefault((target, n), {})[part] = self._values[target, n, part]
        return counts
