"""What the figures of a closed period became since: seen at every look, remembered once.

A look counts the live figures in a snapshot of its own, and several may look at once. What was
seen in an older snapshot is never kept behind what was seen in a newer one: so each revision is
there once, in the order of time. While nothing that the figures rest on changes, a worker that
has looked does not count again.
"""

import json
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from api import clock
from api.auth.caller import Caller
from api.driver import Hot, attempt
from api.models.closed_periods import ClosedPeriod
from api.models.types import Level
from api.services.closed_figures import (
    Cell,
    Frozen,
    Known,
    RevisionRow,
    changes,
    count,
    read_revisions,
)
from api.services.observation_basis import Basis

MOST_KNOWN: Final = 1_000

_ENTER = "select set_config('noidai.scopes', $1, true)"
_TURN = "select pg_advisory_xact_lock(hashtextextended('noidai revisions ' || $1::text, 0))"
# A snapshot is newer when more transactions were over: they are totally ordered.
_KEEP = """
    with newest as (
        select number, snapshot::pg_snapshot as snapshot from closed_period_revision
        where closed_period_id = $1 and people = $2 order by number desc limit 1
    ), known as (
        select distinct on (indicator, unit_id, service_type)
               indicator, unit_id, service_type, became
        from closed_period_revision where closed_period_id = $1 and people = $2
        order by indicator, unit_id, service_type, number desc
    ), seen as (
        select * from jsonb_to_recordset($3::text::jsonb) as s (
            indicator text, unit_id uuid, service_type text, was float8, became float8)
    )
    insert into closed_period_revision (
        closed_period_id, people, number, unit_key, commune_key, province_key, at, snapshot,
        indicator, unit_id, service_type, was, became)
    select $1, $2,
           coalesce((select number from newest), 0) + row_number() over (
               order by s.indicator, s.unit_id, s.service_type),
           $4, $5, $6, greatest($7::timestamptz, (
               select max(at) from closed_period_revision where closed_period_id = $1)),
           $8, s.indicator, s.unit_id, s.service_type,
           case when k.indicator is null then s.was else k.became end, s.became
    from seen s
    left join known k on k.indicator = s.indicator and k.unit_id is not distinct from s.unit_id
         and k.service_type is not distinct from s.service_type
    where case when k.indicator is null then s.was else k.became end is distinct from s.became
      and not exists (
          select from newest n
          where pg_snapshot_xmax(n.snapshot) > pg_snapshot_xmax($8::text::pg_snapshot)
             or (pg_snapshot_xmax(n.snapshot) = pg_snapshot_xmax($8::text::pg_snapshot)
                 and (select count(*) from pg_snapshot_xip(n.snapshot))
                   < (select count(*) from pg_snapshot_xip($8::text::pg_snapshot))))
"""
_ALL = """
    select people, number, at, indicator, unit_id, service_type, was, became
    from closed_period_revision where closed_period_id = $1 order by at, people, number
"""
_NOW = text("select pg_current_snapshot()::text")


class Revisions:
    """Looks at closed periods, and knows of which nothing has changed since."""

    def __init__(self, hot: Hot) -> None:
        """Look at what has changed, and keep revisions, through `hot`."""
        self._hot = hot
        self._known: dict[tuple[UUID, bool], tuple[Basis, ...]] = {}

    async def look(
        self,
        session: AsyncSession,
        caller: Caller,
        row: ClosedPeriod,
        level: Level,
        frozen: Sequence[Frozen],
    ) -> list[RevisionRow]:
        """Return every revision that the caller may read, those of this very moment included."""
        kept = await read_revisions(session, row.id)
        found: list[tuple[bool, list[Known]]] = []
        counted = dict[bool, tuple[Basis, ...]]()
        for part in frozen:
            if await self._holds(row.id, part.people):
                continue
            codes = list(dict.fromkeys(item.indicator for item in part.items))
            live = await count(session, caller, row.unit_id, level, row.period, codes)
            same = {
                code
                for code, version in live.definition_versions.items()
                if row.definition_versions.get(code) == version
            }
            revised: dict[Cell, float | None] = {
                r.cell: r.became for r in kept if r.people == part.people
            }
            seen = changes(
                [item for item in part.items if item.indicator in same],
                {cell: value for cell, value in revised.items() if cell[0] in same},
                [item for item in live.items if item.indicator in same],
            )
            counted[part.people] = live.bases
            if seen:
                found.append((part.people, seen))
        if found:
            kept = await self._keep(session, caller, row, found)
        for people, bases in counted.items():
            self._remember((row.id, people), bases)
        return kept

    async def _holds(self, row_id: UUID, people: bool) -> bool:
        """Tell whether nothing has changed since this worker last looked."""
        bases = self._known.get((row_id, people))
        if bases is None:
            return False
        now = [await basis.holds(self._hot) for basis in bases]
        if all(now):
            self._known[row_id, people] = tuple(basis for basis in now if basis)
            return True
        return False

    def _remember(self, key: tuple[UUID, bool], bases: tuple[Basis, ...]) -> None:
        self._known.pop(key, None)
        while len(self._known) >= MOST_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[key] = bases

    async def _keep(
        self,
        session: AsyncSession,
        caller: Caller,
        row: ClosedPeriod,
        found: Sequence[tuple[bool, Sequence[Known]]],
    ) -> list[RevisionRow]:
        """Keep what was seen, unless somebody has seen a newer moment already."""
        snapshot = await session.scalar(_NOW)
        async with attempt(self._hot) as connection:
            await connection.fetch(_ENTER, caller.scopes)
            await connection.fetch(_TURN, str(row.id))
            for people, seen in found:
                place: tuple[Any, ...] = (row.unit_key, row.commune_key, row.province_key)
                told = json.dumps([_told(each) for each in seen])
                await connection.fetch(
                    _KEEP, row.id, people, told, *place, clock.now(), str(snapshot)
                )
            return [RevisionRow(*each) for each in await connection.fetch(_ALL, row.id)]


def _told(seen: Known) -> dict[str, Any]:
    indicator, unit_id, service_type = seen.cell
    return {
        "indicator": indicator,
        "unit_id": unit_id or None,
        "service_type": service_type or None,
        "was": seen.was,
        "became": seen.became,
    }
