"""Figures of declared indicators: the latest statistic of the very unit, never a sum of others.

Of a stock or a running total (`as_of`) it is the newest by the period's last day; what was
declared for a period answers for just that period. Of two of one day it is the one recorded last.
A sum over the units below would look like a total where some of them are missing, so nobody gets
one.
"""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from api.models.types import number
from api.services.observation_cells import Figures
from api.services.observation_units import Asked

# Row-level security shows the statistics of the units asked for, and no others.
_LATEST = text("""
    select distinct on (s.unit_key, p.n) s.unit_key, p.n, s.value
    from statistic s
    join unnest(cast(:firsts as date[]), cast(:lasts as date[]), cast(:ats as date[]))
         with ordinality as p (first, last, at, n)
      on case when s.first_on is null then s.last_on <= p.at
              else s.first_on = p.first and s.last_on = p.last end
    where s.indicator = :indicator and s.deleted_at is null
    order by s.unit_key, p.n, s.last_on desc, s.created_at desc, s.id desc
""")


async def find_declared(session: AsyncSession, asked: Asked, indicator: str) -> Figures:
    """Return a declared indicator's figures by unit and period, in one statement."""
    begun = asked.begun
    rows = await session.execute(
        _LATEST,
        {
            "indicator": indicator,
            "firsts": [piece.first for piece in begun],
            "lasts": [piece.last for piece in begun],
            "ats": [asked.at(piece) for piece in begun],
        },
    )
    return {(row.unit_key, row.n): {None: number(float(row.value))} for row in rows}
