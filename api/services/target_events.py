"""Counting events for many questions at once, by rolls; later on, only what came and went since.

See `event_rolls`, which does the first for one question; what has to be counted from the facts is
left to it. A number that was counted in one snapshot becomes that of another by the versions of
events that are in the one but not in the other, see `event_changes`.
"""

from bisect import bisect_right
from collections.abc import Collection, Mapping
from datetime import date
from typing import Any, Final, NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from api.services.event_rolls import ROLLED, SUMS, TALLIES, Rolls
from api.services.observation_cells import Counts
from api.services.target_questions import Question

type Told = dict[str, Counts]
"""What events come to, by the column of their rolls."""
_COLUMNS: Final = list(ROLLED.values())

_ASKED: Final = """
    unnest(cast(:sources as integer[]), cast(:firsts as date[]), cast(:lasts as date[]),
           cast(:every as text[]), cast(:dimensions as text[]), cast(:splits as boolean[]),
           cast(:parts as text[]), cast(:levels as text[]), cast(:days as date[]))
        with ordinality
        as a (source, first, last, every, dimension, split, parts, level, day, number)
"""
_FOLDED: Final = text(f"""
    select a.number, s.target, r.starts, case when a.split then r.part end as part, {SUMS}
    from {_ASKED}
    join unnest(cast(:of as integer[]), cast(:provinces as integer[]), cast(:communes as integer[]),
                cast(:units as integer[]), cast(:targets as integer[]))
         as s (source, province_key, commune_key, unit_key, target) using (source)
    cross join lateral (  -- each by the index: the planner would go through the whole country's
        select * from event_roll r
        where r.province_key = s.province_key and r.commune_key = s.commune_key
          and r.unit_key = s.unit_key and r.every = a.every and r.dimension = a.dimension
          and r.starts between a.first and a.last
          and (a.parts is null or r.part = any(string_to_array(a.parts, ',')))
        offset 0) r
    group by 1, 2, 3, 4
""")  # noqa: S608 - put together from constants
_FOLDED_SINCE: Final = "select * from event_changes"
_KNOWN: Final = "cast(cast(:since as text) as pg_snapshot)"
_SINCE: Final = f"""
    select unit_key, service_type, channel, outcome, status, quantity, occurred_on, 1 as sign
    from support_event
    where xid >= cast(:oldest as bigint)
      and not pg_visible_in_snapshot(xid::text::xid8, {_KNOWN})
    union all
    select unit_key, service_type, channel, outcome, status, quantity, occurred_on, -1
    from support_event_version
    where ended_xid >= cast(:oldest as bigint)
      and not pg_visible_in_snapshot(ended_xid::text::xid8, {_KNOWN})
      and pg_visible_in_snapshot(xid::text::xid8, {_KNOWN})
"""  # noqa: S608 - put together from constants
_CHANGED: Final = f"""
    with change as materialized ({{changes}}
    ), e as materialized (
        select a.number, a.level, a.day, e.unit_key,
               case when a.every = 'month' then cast(date_trunc('month', e.occurred_on) as date)
                    else e.occurred_on end as starts,
               case when a.split then told.part end as part, {TALLIES}
        from change e
        join {_ASKED} on e.occurred_on between a.first and a.last
        cross join lateral (
            select case a.dimension when 'service_type' then e.service_type
                                    when 'channel' then e.channel
                                    when 'outcome' then e.outcome end as part) told
        where a.parts is null or told.part = any(string_to_array(a.parts, ','))
        group by 1, 2, 3, 4, 5, 6
    )
    select e.number, place.target, e.starts, e.part, {SUMS}
    from e cross join lateral (
        select ancestor_key as target from placement p
        where p.unit_key = e.unit_key and p.level = e.level and p.level <> 'nation'
          and p.during @> e.day and p.ancestor_key = any(cast(:roots as integer[]))
        union all
        select cast(:nation as integer) where e.level = 'nation') place
    group by 1, 2, 3, 4
"""  # noqa: S608 - put together from constants


class Events(NamedTuple):
    """A question's events as they were counted, and how."""

    rolls: Rolls
    told: Told


class Added(NamedTuple):
    """A question's events with those that came, and the units in which any came or went."""

    events: Events
    units: frozenset[int]


async def count_events(
    session: AsyncSession, several: Mapping[Question, tuple[Rolls, Collection[str]]]
) -> dict[Question, Events]:
    """Return some columns' numbers of every question: by unit, period and what it is split by."""
    counted, together = dict[Question, Events](), dict[Question, Events]()
    for question, (rolls, columns) in several.items():
        if rolls.sources.apart:
            counted[question] = Events(rolls, await rolls.count(session, columns))
        else:
            together[question] = Events(rolls, {column: {} for column in columns})
    if together:
        asked = _asked([events.rolls for events in together.values()])
        rows = list(await session.execute(_FOLDED, asked))
        changes = text(_CHANGED.format(changes=_FOLDED_SINCE))
        rows += await session.execute(changes, asked)
        added = _added(together, rows)
        counted |= {question: each.events for question, each in added.items()}
    return counted


async def add_events(
    session: AsyncSession, known: Mapping[Question, Events], since: str
) -> dict[Question, Added]:
    """Return what was counted in a snapshot with what has come and gone `since`."""
    if not known:
        return {}
    given = {"since": since, "oldest": int(since.partition(":")[0])}
    asked = _asked([events.rolls for events in known.values()])
    rows = await session.execute(text(_CHANGED.format(changes=_SINCE)), asked | given)
    return _added(known, list(rows))


def _asked(several: list[Rolls]) -> dict[str, Any]:
    """Return the parameters of both statements; the same sources are given once."""
    numbers = {rows: n for n, rows in enumerate({rolls.sources.rows: None for rolls in several})}
    rows = [(number, *row) for sources, number in numbers.items() for row in sources]
    columns = zip(*rows, strict=True) if rows else ((), (), (), (), ())
    names = ("of", "provinces", "communes", "units", "targets")
    begun = [rolls.asked.begun for rolls in several]
    chosen = [next(iter(rolls.filters.values()), None) for rolls in several]
    return {
        **{name: list(column) for name, column in zip(names, columns, strict=True)},
        "sources": [numbers[rolls.sources.rows] for rolls in several],
        "firsts": [pieces[0].first for pieces in begun],
        "lasts": [pieces[-1].last for pieces in begun],
        "every": [rolls.every.value for rolls in several],
        "dimensions": [rolls.dimension or "" for rolls in several],
        "splits": [rolls.by is not None for rolls in several],
        "parts": [None if parts is None else ",".join(parts) for parts in chosen],
        "levels": [rolls.asked.roots[0].level.value for rolls in several],
        "days": [rolls.asked.tree_day for rolls in several],
        "nation": next((r.asked.nation for r in several if r.asked.nation), None),
        "roots": sorted({root.key for rolls in several for root in rolls.asked.roots}),
    }


def _added(known: Mapping[Question, Events], rows: list[Any]) -> dict[Question, Added]:
    """Add rows up with what is known, which stays as it is; a part without facts is none."""
    found: list[list[Any]] = [[] for _ in known]
    for row in rows:
        found[row[0] - 1].append(row)
    return {
        question: Added(_with(events, several), frozenset(row[1] for row in several))
        for (question, events), several in zip(known.items(), found, strict=True)
    }


def _with(events: Events, rows: list[Any]) -> Events:
    firsts = [piece.first for piece in events.rolls.asked.begun]
    periods: dict[date, int] = {}
    told: Told = {column: dict(counts) for column, counts in events.told.items()}
    places = [(4 + _COLUMNS.index(column), counts, set[Any]()) for column, counts in told.items()]
    for row in rows:
        _, target, starts, part, *_ = row
        key = (
            target,
            periods.get(starts) or periods.setdefault(starts, bisect_right(firsts, starts)),
        )
        for place, counts, own in places:
            if not (number := row[place]):
                continue
            if key not in own:
                own.add(key)
                counts[key] = dict(counts.get(key, {}))
            counts[key][part] = counts[key].get(part, 0) + number
    return Events(events.rolls, told)
