"""What a report lists by name: villages without a team, teams without an event, closed periods."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col

from api import clock
from api.auth.caller import Caller, enter
from api.auth.permissions import Permission
from api.auth.scope import visible
from api.models.closed_periods import ClosedPeriod
from api.models.reports import (
    MOST_LISTED,
    ReportClosing,
    ReportTarget,
    ReportTeam,
    ReportVillage,
)
from api.models.targets import Target
from api.models.types import Level, number
from api.services.closed_figures import RevisionRow
from api.services.closed_periods import revision_of
from api.services.periods import Period
from api.services.target_progress import unit_progress

MOST_SHOWN: Final = 50
"""Revisions of one closed period."""
_MOST_CLOSED: Final = 100

_ACTIVE = """
    t.deleted_at is null and t.founded_on <= cast(:at as date)
    and coalesce(t.dissolved_on >= cast(:at as date), true)
"""
_PLACED = """
    join placement p on p.unit_key = {key} and p.level = :level
         and p.ancestor_key = :root and p.during @> cast(:at as date)
"""
_UNCOVERED = text(f"""
    select u.id, s.name, c.name as commune_name, count(*) over () as total
    from admin_unit u {_PLACED.format(key="u.key")}
    join admin_unit_state s on s.unit_key = u.key and s.during @> cast(:at as date)
    left join admin_unit_state c on c.unit_key = s.parent_key and c.during @> cast(:at as date)
    where u.level = 'village' and u.deleted_at is null
      and daterange(u.valid_from, u.valid_to, '[]') @> cast(:at as date)
      and not exists (select from team t where t.unit_key = u.key and {_ACTIVE})
    order by c.name, s.name, u.id
    limit {MOST_LISTED}
""")  # noqa: S608 - put together from constants
_IDLE = text(f"""
    select t.id, t.name, s.name as unit_name, count(*) over () as total
    from team t {_PLACED.format(key="t.unit_key")}
    join admin_unit u on u.key = t.unit_key
    join admin_unit_state s on s.unit_key = u.key
         and s.during @> least(cast(:at as date), coalesce(u.valid_to, cast(:at as date)))
    where {_ACTIVE} and not exists (
        select from support_event e
        where e.team_id = t.id and e.status in ('submitted', 'verified')
          and e.occurred_on between cast(:first as date) and cast(:last as date)
          and e.occurred_at >= cast(cast(:first as date) as timestamp)
              at time zone 'Asia/Ho_Chi_Minh'
          and e.occurred_at < cast(cast(:last as date) + 1 as timestamp)
              at time zone 'Asia/Ho_Chi_Minh')
    order by s.name, t.name, t.id
    limit {MOST_LISTED}
""")  # noqa: S608 - put together from constants
_REVISIONS = text(f"""
    select closed_period_id, people, number, at, indicator, unit_id, service_type, was, became,
           total
    from (
        select r.*, row_number() over (partition by closed_period_id
                                       order by at desc, people, number desc) as newest,
               count(*) over (partition by closed_period_id) as total
        from closed_period_revision r
        where closed_period_id = any(cast(:ids as uuid[])) and unit_id = cast(:unit_id as uuid)
    ) n
    where newest <= {MOST_SHOWN}
    order by closed_period_id, at, people, number
""")  # noqa: S608 - put together from constants


def _given(root: Any, at: date) -> dict[str, Any]:
    return {"root": root.key, "level": root.level, "at": at}


async def find_uncovered_villages(
    session: AsyncSession, root: Any, at: date
) -> tuple[int | None, list[ReportVillage]]:
    """Return the villages under a unit without an active team on a day, and how many they are."""
    if root.level == Level.nation:
        return None, []
    rows = list(await session.execute(_UNCOVERED, _given(root, at)))
    villages = [
        ReportVillage(unit_id=row.id, name=row.name, commune_name=row.commune_name) for row in rows
    ]
    return rows[0].total if rows else 0, villages


async def find_idle_teams(
    session: AsyncSession, root: Any, at: date, period: Period
) -> tuple[int | None, list[ReportTeam]]:
    """Return the teams that did nothing that counts in a period, and how many they are."""
    if root.level == Level.nation:
        return None, []
    days = {"first": period.first, "last": period.last}
    rows = list(await session.execute(_IDLE, _given(root, at) | days))
    teams = [ReportTeam(team_id=row.id, name=row.name, unit_name=row.unit_name) for row in rows]
    return rows[0].total if rows else 0, teams


async def find_targets(
    session: AsyncSession, caller: Caller, root: Any, period: Period, names: Mapping[str, Any]
) -> list[ReportTarget]:
    """Return a unit's own targets of a period with their progress as of its last day."""
    as_of = min(period.last, clock.today())
    progress = await unit_progress(session, caller, root.key, period, as_of)
    await enter(session, caller)
    asked = visible(Target, caller, Permission.targets_read).where(
        col(Target.id).in_([each.target_id for each in progress])
    )
    targets = {target.id: target for target in await session.scalars(asked)}
    return [
        ReportTarget(
            target_id=target.id,
            indicator=target.indicator,
            name_vi=names[target.indicator].name_vi,
            name_en=names[target.indicator].name_en,
            owner=target.owner,
            period=target.period,
            measure=target.measure,
            comparator=target.comparator,
            target=number(target.value),
            value=each.value,
            attainment=each.attainment,
            status=each.status,
            document=target.document,
        )
        for each in progress
        if (target := targets.get(each.target_id))
    ]


async def find_closings(
    session: AsyncSession, caller: Caller, root: Any, period: Period
) -> list[ReportClosing]:
    """Return the closed periods of a unit within a period, with what was seen to change since."""
    rows: Sequence[ClosedPeriod] = (
        await session.scalars(
            visible(ClosedPeriod, caller, Permission.aggregates_read)
            .where(
                col(ClosedPeriod.unit_key) == root.key,
                col(ClosedPeriod.first_on) >= period.first,
                col(ClosedPeriod.last_on) <= period.last,
            )
            .order_by(col(ClosedPeriod.first_on), col(ClosedPeriod.last_on))
            .limit(_MOST_CLOSED)
        )
    ).all()
    totals: dict[Any, int] = {}
    found: dict[Any, list[RevisionRow]] = {}
    asked = {"ids": [row.id for row in rows], "unit_id": root.id}
    for row in await session.execute(_REVISIONS, asked):
        closed, *revision, total = row
        found.setdefault(closed, []).append(RevisionRow(*revision))
        totals[closed] = total
    return [
        ReportClosing(
            closed_period_id=row.id,
            period=row.period,
            closed_at=row.closed_at,
            hash=row.hash,
            revision_count=totals.get(row.id, 0),
            revisions=[revision_of(each) for each in found.get(row.id, [])],
        )
        for row in rows
    ]
