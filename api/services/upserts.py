"""Upserts: a portal writes a row under an id of its own, without asking whether it is there."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession
from sqlmodel import col, select

from api.auth.caller import Caller
from api.driver import connection_of
from api.errors import FieldError, Refusal, ValidationFailed
from api.models.activities import Activity, ActivityCreate, ActivityRead, ActivityUpdate
from api.models.base import Record
from api.models.households import Household, HouseholdCreate, HouseholdRead, HouseholdUpdate
from api.models.members import Member, MemberCreate, MemberRead, MemberRewrite
from api.models.statistics import Statistic, StatisticCreate, StatisticRead, StatisticUpdate
from api.models.support_events import (
    SupportEvent,
    SupportEventCreate,
    SupportEventRead,
    SupportEventRewrite,
    SupportEventUpdate,
)
from api.models.teams import Team, TeamCreate, TeamRead, TeamUpdate
from api.models.types import Creation, Input, Output
from api.services import (
    activities,
    event_corrections,
    event_intake,
    external_ids,
    households,
    members,
    statistics,
    support_events,
    teams,
)
from api.services.writing import ANY_VERSION


@dataclass(frozen=True)
class Noun[Read: Output]:
    """How the rows of one resource are created, changed and (what is ever hidden) brought back."""

    resource: str
    table: type[Record]
    creation: type[Creation]
    change: type[Input]
    create: Callable[..., Awaitable[tuple[Read, bool]]]
    update: Callable[..., Awaitable[Read]]
    undelete: Callable[..., Awaitable[object]] | None


TEAMS: Noun[TeamRead] = Noun(
    teams.RESOURCE,
    Team,
    TeamCreate,
    TeamUpdate,
    teams.create_team,
    teams.update_team,
    teams.undelete_team,
)
MEMBERS: Noun[MemberRead] = Noun(
    members.RESOURCE,
    Member,
    MemberCreate,
    MemberRewrite,
    members.create_member,
    members.rewrite_member,
    members.bring_member_back,
)
HOUSEHOLDS: Noun[HouseholdRead] = Noun(
    households.RESOURCE,
    Household,
    HouseholdCreate,
    HouseholdUpdate,
    households.create_household,
    households.update_household,
    households.bring_household_back,
)

ACTIVITIES: Noun[ActivityRead] = Noun(
    activities.RESOURCE,
    Activity,
    ActivityCreate,
    ActivityUpdate,
    activities.create_activity,
    activities.update_activity,
    activities.undelete_activity,
)
STATISTICS: Noun[StatisticRead] = Noun(
    statistics.RESOURCE,
    Statistic,
    StatisticCreate,
    StatisticUpdate,
    statistics.create_statistic,
    statistics.update_statistic,
    statistics.undelete_statistic,
)


async def _record_event(
    session: AsyncSession, caller: Caller, given: SupportEventCreate
) -> tuple[SupportEventRead, bool]:
    (outcome,) = await event_intake.insert_events(await connection_of(session), caller, [given])
    if isinstance(outcome, Refusal):
        raise outcome
    row, is_new = outcome
    return support_events.present_event(caller, row), is_new


async def _correct_event(
    session: AsyncSession,
    caller: Caller,
    event_id: UUID,
    expected: int,
    change: SupportEventRewrite,
) -> SupportEventRead:
    """Correct what is given; an event stays its team's, and without a unit where it is."""
    event = await support_events.find_event(session, caller, event_id)
    if change.team_id != event.team_id:
        raise ValidationFailed(FieldError("/team_id", "read_only"))
    given = change.model_dump(exclude={"team_id"}, exclude_unset=True)
    if change.unit_id is None:
        given.pop("unit_id", None)
    correction = SupportEventUpdate.model_validate(given)
    return await event_corrections.update_support_event(
        session, caller, event_id, expected, correction
    )


SUPPORT_EVENTS: Noun[SupportEventRead] = Noun(
    support_events.RESOURCE,
    SupportEvent,
    SupportEventCreate,
    SupportEventRewrite,
    _record_event,
    _correct_event,
    None,
)


async def put[Read: Output](
    session: AsyncSession, caller: Caller, noun: Noun[Read], name: tuple[str, str], given: Input
) -> tuple[Read, bool]:
    """Create the row of an external id (system, id), or give it the fields that were sent.

    A deleted row comes back. 409 `external_id_conflict` when the system's name is another
    client's. Returns the row as it is now and whether it is new.
    """
    row, before = await write(session, caller, noun, name, given)
    return row, before is None


async def write[Read: Output](
    session: AsyncSession, caller: Caller, noun: Noun[Read], name: tuple[str, str], given: Input
) -> tuple[Read, int | None]:
    """Do the same; return the row as it is now and the version that it had, if it was there."""
    body: dict[str, Any] = given.model_dump()
    body["external_ids"] = external_ids.with_name(body["external_ids"], *name)
    row_id, is_new = await external_ids.reserve(session, caller, noun.resource, *name)
    if is_new:
        creation = noun.creation.model_validate(body | {"id": row_id})
        return (await noun.create(session, caller, creation))[0], None
    known = select(col(noun.table.version)).where(col(noun.table.id) == row_id)
    before = await session.scalar(known.with_for_update())
    if noun.undelete:
        await noun.undelete(session, caller, row_id, ANY_VERSION)
    sent = {field: body[field] for field in given.model_fields_set | {"external_ids"}}
    change = noun.change.model_validate(sent)
    row = await noun.update(session, caller, row_id, ANY_VERSION, change)
    return row, row.version if before is None else before
