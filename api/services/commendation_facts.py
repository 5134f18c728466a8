"""The facts behind a commendation, by the definitions of the indicators."""

from typing import Any, Final
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from api import clock
from api.auth.caller import Caller, present
from api.auth.permissions import FACT_READS, Permission
from api.models.commendations import (
    Commendation,
    CommendationFacts,
    CommendationFactsQuery,
    ServiceFigure,
)
from api.services import periods
from api.services.commendations import find_commendation
from api.services.formulas import ACTIVITIES, EVENTS, EVENTS_COMPLETED, EVENTS_VERIFIED, QUANTITY

# A member's events are its teams' events: that is what the index has.
_OF_MEMBER: Final = """
    {fact}.team_id in (select team_id from membership where member_id = :member_id)
    and e.member_ids @> array[cast(:member_id as uuid)]
"""
_OF_UNIT: Final = """
    {fact}.unit_key in (select unit_key from placement where ancestor_key = :unit_key)
    and exists (select from placement c
                where c.unit_key = {fact}.unit_key and c.ancestor_key = :unit_key
                  and c.during @> {fact}.{day})
"""
_EVENTS: Final = f"""
    select count(*) as events,
           count(*) filter (where {EVENTS_VERIFIED.where[-1]}) as verified,
           count(*) filter (where {EVENTS_COMPLETED.where[-1]}) as completed,
           count(distinct e.occurred_on) as days
    from support_event e where {" and ".join(EVENTS.where)} and {{which}}
"""  # noqa: S608 - put together from constants
_QUANTITIES: Final = f"""
    select e.service_type, s.unit_of_count, {QUANTITY.value} as quantity
    from support_event e join service_type s on s.code = e.service_type
    where {" and ".join(QUANTITY.where)} and {{which}}
    group by e.service_type, s.unit_of_count order by e.service_type
"""  # noqa: S608 - put together from constants
_ACTIVITIES: Final = f"""
    select count(*) from activity a where {" and ".join(ACTIVITIES.where)} and {{which}}
"""  # noqa: S608 - put together from constants


async def get_facts(
    session: AsyncSession, caller: Caller, commendation_id: UUID, query: CommendationFactsQuery
) -> CommendationFacts:
    """Count what the recipient did in a period: its member, else its team, else its unit.

    As far as the caller reads totals; a unit's facts each in the tree of its own day.
    """
    row = await find_commendation(session, caller, commendation_id)
    year = (row.awarded_on or clock.today()).year
    (period,) = periods.parse(query.period or str(year))
    last = min(period.last, clock.today())
    await present(session, dict.fromkeys(FACT_READS, caller.reach(Permission.aggregates_read)))
    events, activities = _which(row)
    parameters: dict[str, Any] = {"first": period.first, "last": last}
    parameters |= _named(row)
    found = (await session.execute(text(_EVENTS.format(which=events)), parameters)).one()
    quantities = await session.execute(text(_QUANTITIES.format(which=events)), parameters)
    held = await session.scalar(text(_ACTIVITIES.format(which=activities)), parameters)
    return CommendationFacts(
        commendation_id=row.id,
        period=period.label,
        complete_through=last,
        events=found.events,
        completed_share=100 * found.completed / found.events if found.events else None,
        verified_share=100 * found.verified / found.events if found.events else None,
        days_active=found.days,
        quantities=[
            ServiceFigure(
                service_type=each.service_type,
                unit_of_count=each.unit_of_count,
                quantity=each.quantity,
            )
            for each in quantities
        ],
        activities=held or 0,
    )


def _named(row: Commendation) -> dict[str, Any]:
    if row.member_id:
        return {"member_id": row.member_id}
    return {"team_id": row.team_id} if row.team_id else {"unit_key": row.unit_key}


def _which(row: Commendation) -> tuple[str, str]:
    """Return the conditions that keep the recipient's events, and its activities."""
    if row.member_id:
        attended = "a.attendee_ids @> array[cast(:member_id as uuid)]"
        return _OF_MEMBER.format(fact="e"), attended
    if row.team_id:
        return "e.team_id = :team_id", "a.team_id = :team_id"
    events, activities = (("e", "occurred_on"), ("a", "held_on"))
    return (
        _OF_UNIT.format(fact=events[0], day=events[1]),
        _OF_UNIT.format(fact=activities[0], day=activities[1]),
    )
