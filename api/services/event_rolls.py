"""Counting events by their rolls: what was folded, and what has changed since.

Both are read in one snapshot, so that an answer is exact for everything committed before it.
Where no roll tells what is asked (a kind of team, a campaign, a channel by commune, a part of a
month), the
events themselves are counted.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncSession

from api.auth.caller import Caller
from api.driver import connection_of
from api.models.observations import By, Every
from api.services import periods
from api.services.counting import UNAIDED, placed
from api.services.event_sources import Sources, find_sources
from api.services.formulas import (
    EVENTS,
    EVENTS_COMPLETED,
    EVENTS_VERIFIED,
    QUANTITY,
    QUANTITY_VERIFIED,
    WITHIN,
)
from api.services.measures import COLUMNS, FILTERS, Measure
from api.services.observation_cells import Counts
from api.services.observation_units import Asked

ROLLED: Final[Mapping[Measure, str]] = {
    EVENTS: "events",
    EVENTS_VERIFIED: "verified",
    EVENTS_COMPLETED: "completed",
    QUANTITY: "quantity",
    QUANTITY_VERIFIED: "quantity_verified",
}
"""Measure -> the column of `event_roll` that holds it."""

_TOLD: Final = {"service_type": By.service_type, "channel": By.channel}
"""Filters that rolls tell: parameter -> dimension."""
SUMS: Final = ", ".join(f"sum({column})::bigint as {column}" for column in ROLLED.values())
_COUNTED = "status in ('submitted', 'verified')"
_HELPED = "outcome in ('completed', 'guided')"
TALLIES: Final = f"""
    sum(e.sign) filter (where {_COUNTED}) as events,
    sum(e.sign) filter (where status = 'verified') as verified,
    sum(e.sign) filter (where {_COUNTED} and outcome = 'completed') as completed,
    sum(e.sign * e.quantity) filter (where {_COUNTED} and {_HELPED}) as quantity,
    sum(e.sign * e.quantity) filter (where status = 'verified' and {_HELPED}) as quantity_verified
"""
_FOLDED: Final = f"""
    select s.target, width_bucket(r.starts, $5::date[]) as n, case when $6 then r.part end as part,
           {SUMS}
    from unnest($1::integer[], $2::integer[], $3::integer[], $4::integer[])
         as s (province_key, commune_key, unit_key, target)
    cross join lateral (  -- each by the index: the planner would go through the whole country's
        select * from event_roll r
        where r.province_key = s.province_key and r.commune_key = s.commune_key
          and r.unit_key = s.unit_key and r.every = $7 and r.dimension = $8
          and r.starts between $9 and $10 and ($11::text[] is null or r.part = any($11))
        offset 0) r
    group by 1, 2, 3
"""  # noqa: S608 - put together from constants
_FACTS = """
    select width_bucket(e.occurred_on, cast(:firsts as date[])) as n, {day} as day, e.unit_key,
           {part} as part, {tallies}
    from (
        select unit_key, service_type, channel, outcome, status, quantity, occurred_at,
               occurred_on, sign
        from event_changes
        where coalesce(province_key, -1) = any(cast(:whole as integer[]))
           or coalesce(commune_key, -1) <> all(cast(:apart as integer[]))
        {facts}
    ) e
    where {conditions}
    group by 1, 2, 3, 4
"""
_APART = """
        union all
        select unit_key, service_type, channel, outcome, status, quantity, occurred_at,
               occurred_on, 1
        from support_event
        where coalesce(province_key, -1) <> all(cast(:whole as integer[]))
          and (commune_key = any(cast(:apart as integer[]))
               or commune_key is null and -1 = any(cast(:apart as integer[])))
"""


@dataclass(frozen=True)
class Rolls:
    """How the events of one query are counted."""

    asked: Asked
    filters: Mapping[By, Sequence[str]]
    by: By | None
    every: Every
    sources: Sources

    @property
    def dimension(self) -> By | None:
        """What the rolls are told apart by."""
        return self.by or next(iter(self.filters), None)

    async def count(self, session: AsyncSession, columns: Collection[str]) -> dict[str, Counts]:
        """Return the numbers of some columns, in two statements."""
        asked, begun = self.asked, self.asked.begun
        first, last = begun[0].first, begun[-1].last
        parts = next(iter(self.filters.values()), None)
        found: list[Any] = await (await connection_of(session)).fetch(
            _FOLDED,
            *self.sources.columns,
            [piece.first for piece in begun],
            self.by is not None,
            self.every.value,
            self.dimension or "",
            first,
            last,
            parts,
        )
        facts = asked.placing | {
            "apart": sorted(self.sources.apart),
            "whole": sorted(self.sources.reach.provinces),
        }
        facts |= {name: list(values) for name, values in self.asked.filters.items()}
        found += await session.execute(self._facts(), facts)
        places = {column: 3 + list(ROLLED.values()).index(column) for column in columns}
        return {column: _added(found, place) for column, place in places.items()}

    def _facts(self) -> Any:
        conditions = [WITHIN]
        conditions += [FILTERS[name] for name in self.asked.filters]
        facts = _FACTS.format(
            day="cast(:tree_day as date)" if self.asked.tree_day else "e.occurred_on",
            part=COLUMNS[self.by] if self.by else "null",
            tallies=TALLIES,
            facts=_APART if self.sources.apart else "",
            conditions=" and ".join(conditions),
        )
        return placed(facts, SUMS, self.asked, first=UNAIDED)


def _added(rows: Sequence[Any], place: int) -> Counts:
    """Return one column's numbers; a part without facts is none."""
    counts: Counts = {}
    for row in rows:
        if number := row[place]:
            parts = counts.setdefault((row[0], row[1]), {})
            parts[row[2]] = parts.get(row[2], 0) + number
    return counts


def _every(asked: Asked, dimensions: set[By]) -> Every | None:
    """Return the rolls that tell what is asked; none tell two dimensions, or a kind of team."""
    if By.kind in dimensions or len(dimensions) > 1:
        return None
    months = all(
        p.first.day == 1 and p.last == periods.piece_of(p.last, Every.month).last
        for p in asked.pieces
    )
    return Every.month if months else Every.day


async def find_rolls(
    session: AsyncSession, caller: Caller, asked: Asked, by: By | None
) -> Rolls | None:
    """Return how events are counted by rolls; `None` if these tell nothing of what is asked."""
    if not asked.filters.keys() <= _TOLD.keys():
        return None
    filters = {_TOLD[name]: values for name, values in asked.filters.items()}
    dimensions = {*filters, *([by] if by else [])}
    every = _every(asked, dimensions)
    if every is None or not asked.begun:
        return None
    sources = await find_sources(
        session,
        caller.tree.day,
        [(root.key, root.level) for root in asked.roots],
        asked.level,
        asked.tree_day,
        (asked.begun[0].first, asked.begun[-1].last),
    )
    by_month = every is Every.month
    sources = sources.served(
        communes=by_month and dimensions <= {By.service_type}, units=by_month and not dimensions
    )
    return Rolls(asked, filters, by, every, sources)
