"""A unit's report of a period: what `/observations` tells as recorded, put together.

A fixed number of statements, whatever the unit's size. What a reader may not see of people there
is not in its report either.
"""

import hashlib
from collections.abc import Sequence
from datetime import date
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from api import clock
from api.auth.caller import Caller, enter
from api.auth.permissions import Permission
from api.errors import NotFound
from api.models.observations import (
    By,
    Every,
    Observation,
    ObservationAnswer,
    ObservationStatus,
)
from api.models.reports import (
    Report,
    ReportActivities,
    ReportIndicator,
    ReportQuery,
    ReportService,
    ReportSubunit,
    ReportUnit,
)
from api.models.types import EARLIEST, Level
from api.services import periods
from api.services.closed_figures import BELOW, BY_SERVICE, codes_for, is_people, question
from api.services.masking import sees_all_people
from api.services.observation_people import OFFICIAL, is_calendar
from api.services.observation_units import Unit, find_sites
from api.services.observations import observe
from api.services.periods import DAY, Period
from api.services.report_lists import (
    find_closings,
    find_idle_teams,
    find_targets,
    find_uncovered_villages,
)

_COLUMNS: Final = {
    "teams": "teams.active",
    "members": "members.active",
    "events": "events.count",
    "villages": "villages.total",
    "villages_covered": "villages.covered",
}
"""What is told of each unit below -> its indicator."""

_ACTIVITIES: Final = ("activities.count", "activities.participants")

# The unit on the last day of the period on which it stood, and who stood above it then.
_UNIT = text("""
    with root as (
        select u.id, u.key, u.level, u.valid_from, u.valid_to,
               least(greatest(cast(:last as date), coalesce(u.valid_from, :last)),
                     coalesce(u.valid_to, :last)) as day
        from admin_unit u where u.id = cast(:unit_id as uuid) and u.deleted_at is null
    )
    select root.*, s.code, s.name, above.id as above_id, a.code as above_code, a.name as above_name
    from root
    join admin_unit_state s on s.unit_key = root.key and s.during @> root.day
    left join admin_unit above on above.key = s.parent_key
    left join admin_unit_state a on a.unit_key = above.key and a.during @> root.day
""")
_INDICATORS = text("""
    select code, name_vi, name_en from indicator order by code
""")
_SERVICES = text("select code, name_vi, name_en, unit_of_count from service_type")


class _Asking(NamedTuple):
    """Who asks, and about what."""

    session: AsyncSession
    caller: Caller
    root: Any
    period: Period

    async def observe(
        self, codes: Sequence[str], period: str, level: Level | None = None, by: By | None = None
    ) -> ObservationAnswer:
        """Ask as the caller would."""
        await enter(self.session, self.caller)
        query = question(codes, self.root.id, period, level, by)
        return (await observe(self.session, self.caller, query)).answer


async def get_report(
    session: AsyncSession, caller: Caller, unit_id: UUID, query: ReportQuery
) -> Report:
    """Return a unit's report. 404 for a unit that is absent or out of scope."""
    (period,) = periods.parse(query.period)
    root = (await session.execute(_UNIT, {"unit_id": unit_id, "last": period.last})).one_or_none()
    if root is None:
        raise NotFound
    asking = _Asking(session, caller, root, period)
    level, today = Level(root.level), clock.today()
    names = {row.code: row for row in await session.execute(_INDICATORS)}
    (site,) = await find_sites(session, [_as_unit(root)], today)
    told = codes_for(level, names)
    whole = sees_all_people(caller, [site]) and caller.has(Permission.people_read)
    before = _previous(period)
    now = await asking.observe(_open(told, period, level, whole=whole), period.label)
    then = await asking.observe(_open(told, before, level, whole=whole), before.label)
    services = await asking.observe(BY_SERVICE, period.label, by=By.service_type)
    held = await asking.observe(_ACTIVITIES, period.label, by=By.kind)
    below = BELOW.get(level)
    units = await asking.observe([*_COLUMNS.values()], period.label, below) if below else None
    at = min(period.last, today)
    uncovered, villages = await find_uncovered_villages(session, root, at)
    idle, teams = await find_idle_teams(session, root, at, period)
    if site is None or not caller.reach(Permission.teams_read).covers(site):
        teams = []
    await enter(session, caller)
    targets = await find_targets(session, caller, root, period, names)
    answers = [answer for answer in (now, then, services, held, units) if answer]
    versions = [answer.meta.data_version for answer in answers]
    return Report(
        unit=ReportUnit(unit_id=root.id, code=root.code, name=root.name),
        addressed_to=_above(root),
        period=period.label,
        first_on=period.first,
        last_on=period.last,
        complete_through=now.meta.complete_through,
        generated_at=clock.now(),
        data_version=hashlib.sha256(" ".join(versions).encode()).hexdigest()[:16],
        definition_versions=now.meta.definition_versions,
        verified_share=now.meta.verified_share,
        previous_period=before.label,
        indicators=_indicators(told, names, now.items, then.items),
        services=_by_service(services.items, {s.code: s for s in await session.execute(_SERVICES)}),
        targets=targets,
        activities=_activities(held.items),
        units=_subunits(units.items if units else []),
        uncovered_village_count=uncovered,
        uncovered_villages=villages,
        idle_team_count=idle,
        idle_teams=teams,
        closed_periods=await find_closings(session, caller, root, period),
    )


def _as_unit(root: Any) -> Unit:
    standing = (root.valid_from or EARLIEST, root.valid_to or date.max)
    return Unit(root.key, root.id, Level(root.level), (standing,), ((date.max, None, root.name),))


def _above(root: Any) -> ReportUnit | None:
    if root.above_id is None:
        return None
    return ReportUnit(unit_id=root.above_id, code=root.above_code, name=root.above_name)


def _open(told: Sequence[str], period: Period, level: Level, *, whole: bool) -> list[str]:
    """Leave out the people whom `/observations` would refuse to count for the caller at all."""
    ended = is_calendar(period) and period.last < clock.today()
    if whole or (ended and level in OFFICIAL):
        return list(told)
    return [code for code in told if not is_people(code)]


def _previous(period: Period) -> Period:
    """Return the month, quarter, year, week before, or as many days."""
    last = period.first - DAY
    for every in (Every.year, Every.quarter, Every.month, Every.week):
        if periods.piece_of(period.first, every) == period:
            return periods.piece_of(last, every)
    first = last - (period.last - period.first)
    return Period(f"{first}/{last}", first, last)


def _indicators(
    told: Sequence[str],
    names: dict[str, Any],
    now: Sequence[Observation],
    then: Sequence[Observation],
) -> list[ReportIndicator]:
    present, past = ({i.indicator: i for i in items if i.unit_id} for items in (now, then))
    rows = []
    for code in told:
        item, old = present.get(code), past.get(code)
        value, before = item.value if item else None, old.value if old else None
        change = None if value is None or before is None else value - before
        rows.append(
            ReportIndicator(
                indicator=code,
                name_vi=names[code].name_vi,
                name_en=names[code].name_en,
                unit_of_count=item.unit_of_count if item else None,
                value=value,
                numerator=item.numerator if item else None,
                denominator=item.denominator if item else None,
                previous_value=before,
                change=change,
                status=item.status if item else ObservationStatus.suppressed,
            )
        )
    return rows


def _by_service(items: Sequence[Observation], services: dict[str, Any]) -> list[ReportService]:
    numbers: dict[str, dict[str, int]] = {}
    for item in items:
        if item.service_type and item.unit_id:
            numbers.setdefault(item.service_type, {})[item.indicator] = int(item.value or 0)
    return [
        ReportService(
            service_type=code,
            name_vi=services[code].name_vi,
            name_en=services[code].name_en,
            unit_of_count=services[code].unit_of_count,
            events=found.get("events.count", 0),
            quantity=found.get("events.quantity", 0),
            quantity_verified=found.get("events.quantity_verified", 0),
        )
        for code, found in sorted(numbers.items())
    ]


def _activities(items: Sequence[Observation]) -> list[ReportActivities]:
    numbers: dict[str, dict[str, int]] = {}
    for item in items:
        if item.kind and item.unit_id:
            numbers.setdefault(item.kind, {})[item.indicator] = int(item.value or 0)
    count, participants = _ACTIVITIES
    return [
        ReportActivities(
            kind=kind, activities=found.get(count, 0), participants=found.get(participants, 0)
        )
        for kind, found in sorted(numbers.items())
    ]


def _subunits(items: Sequence[Observation]) -> list[ReportSubunit]:
    columns = {code: name for name, code in _COLUMNS.items()}
    rows: dict[UUID | None, dict[str, Any]] = {}
    for item in items:
        row = rows.setdefault(item.unit_id, dict.fromkeys(_COLUMNS))
        row |= {"unit_id": item.unit_id, "code": item.unit_code, "name": item.unit_name}
        row[columns[item.indicator]] = item.value
    return [ReportSubunit.model_validate(row) for row in rows.values()]
